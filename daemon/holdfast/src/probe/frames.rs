//! Frames of a WebSocket as a client reads them (RFC 6455, section 5.2). Enough for short answers of the API server: nothing is sent, large
//! frames are passed over.

use std::io;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The largest frame that is kept, in bytes; a `Status` is far below.
const LARGEST: u64 = 64 * 1024;

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// Text or bytes.
    Data(Vec<u8>),
    /// The end.
    Close,
    /// Something that needs no answer: a continuation, a ping, a large frame.
    Other,
}

/// The next frame. The end of the stream is [`Frame::Close`].
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Frame> {
    let mut head = [0; 2];
    if let Err(error) = stream.read_exact(&mut head).await {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Ok(Frame::Close);
        }
        return Err(error);
    }
    let length = match head[1] & 0x7f {
        126 => u64::from(stream.read_u16().await?),
        127 => stream.read_u64().await?,
        short => short.into(),
    };
    if head[1] & 0x80 != 0 {
        return Err(io::Error::other("a server masks its frames"));
    }
    if length > LARGEST {
        tokio::io::copy(&mut stream.take(length), &mut tokio::io::sink()).await?;
        return Ok(Frame::Other);
    }
    let mut body = Vec::new();
    stream.take(length).read_to_end(&mut body).await?;
    if body.len() as u64 != length {
        return Ok(Frame::Close);
    }
    Ok(match head[0] & 0x0f {
        1 | 2 => Frame::Data(body),
        8 => Frame::Close,
        _ => Frame::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn frames(mut bytes: &[u8]) -> Vec<Frame> {
        let mut frames = Vec::new();
        loop {
            frames.push(read(&mut bytes).await.unwrap());
            if frames.last() == Some(&Frame::Close) {
                return frames;
            }
        }
    }

    #[tokio::test]
    async fn frames_of_all_lengths_are_read() {
        let mut bytes = vec![0x82, 2, 1, b'x', 0x89, 0];
        bytes.extend([0x82, 126, 1, 0]);
        bytes.extend([7; 256]);
        bytes.extend([0x82, 127, 0, 0, 0, 0, 0, 1, 0, 1]);
        bytes.extend(vec![0; 65_537]);
        bytes.extend([0x82, 1, 3, 0x88, 0, 0x82, 1, 9]);
        let frames = frames(&bytes).await;
        let expected = [
            Frame::Data(vec![1, b'x']),
            Frame::Other,
            Frame::Data(vec![7; 256]),
            Frame::Other,
            Frame::Data(vec![3]),
            Frame::Close,
        ];
        assert_eq!(frames, expected);
    }

    #[tokio::test]
    async fn a_stream_that_is_cut_off_is_an_end() {
        assert_eq!(frames(&[0x82, 5, 1]).await, [Frame::Close]);
    }

    #[tokio::test]
    async fn a_masked_frame_is_an_error() {
        assert!(read(&mut &[0x82, 0x81, 0, 0, 0, 0, 1][..]).await.is_err());
    }
}
