//! Content for tests of what cuts, packs and fetches images.

/// Bytes that look random and repeat nowhere, the same for the same seed (xorshift64, Marsaglia 2003).
pub fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..size)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}
