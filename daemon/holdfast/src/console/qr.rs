//! A text as a QR code of half blocks: two modules a character, so that it fits on 80 by 25.
//!
//! A module that must be dark is left black, and all others are filled, with a border of two: scanners want dark on light, and terminals
//! are light on dark.

use qrcodegen::{QrCode, QrCodeEcc};

/// Modules around the code.
const BORDER: i32 = 2;

/// Lines of the code; none for a text that is too long for any.
pub(super) fn code(text: &str) -> Vec<String> {
    let Ok(code) = QrCode::encode_text(text, QrCodeEcc::Low) else {
        return Vec::new();
    };
    let light = |x: i32, y: i32| y < code.size() + BORDER && !code.get_module(x, y);
    let range = -BORDER..code.size() + BORDER;
    let line = |y: i32| {
        range
            .clone()
            .map(|x| match (light(x, y), light(x, y + 1)) {
                (true, true) => '\u{2588}',
                (true, false) => '\u{2580}',
                (false, true) => '\u{2584}',
                (false, false) => ' ',
            })
            .collect()
    };
    range.clone().step_by(2).map(line).collect()
}
