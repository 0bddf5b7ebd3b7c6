//! Frames: a little-endian `u32` length, then that many bytes of postcard.

use alloc::vec::Vec;
use serde::{Serialize, de::DeserializeOwned};

/// Longest body of a frame in either direction, bytes. The configuration of any message that a node takes (4 MiB of JSON) fits:
/// nothing gets longer on its way from there. Nothing else comes near.
pub const MAX_FRAME_BYTES: usize = 5 * 1024 * 1024;

/// Bytes of the length that precedes a body.
pub const LENGTH_BYTES: usize = 4;

/// Why bytes are not a frame. The peer's fault; the stream is out of step and must be closed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length exceeds [`MAX_FRAME_BYTES`].
    #[error("a frame of {announced} bytes is over the limit of {MAX_FRAME_BYTES}")]
    TooLong {
        /// The length read, bytes.
        announced: usize,
    },
    /// The body is not what this version of the protocol expects here.
    #[error("a frame's body does not decode: {0}")]
    Malformed(postcard::Error),
    /// The body decodes but bytes remain.
    #[error("a frame's body has {0} bytes too many")]
    Trailing(usize),
}

/// Encodes a message with its length in front.
///
/// # Errors
/// [`FrameError::TooLong`] when the body would exceed [`MAX_FRAME_BYTES`].
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut bytes = alloc::vec![0; LENGTH_BYTES];
    bytes = postcard::to_extend(message, bytes).map_err(FrameError::Malformed)?;
    let announced = bytes.len() - LENGTH_BYTES;
    match u32::try_from(announced) {
        Ok(length) if announced <= MAX_FRAME_BYTES => {
            bytes[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
            Ok(bytes)
        }
        _ => Err(FrameError::TooLong { announced }),
    }
}

/// The length of the body that follows this header.
///
/// # Errors
/// [`FrameError::TooLong`], before anything is allocated for it.
pub fn body_length(header: [u8; LENGTH_BYTES]) -> Result<usize, FrameError> {
    let announced = u32::from_le_bytes(header) as usize;
    if announced > MAX_FRAME_BYTES {
        return Err(FrameError::TooLong { announced });
    }
    Ok(announced)
}

/// Decodes a body.
///
/// # Errors
/// [`FrameError::Malformed`] or [`FrameError::Trailing`].
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(FrameError::Trailing(rest.len())),
        Err(error) => Err(FrameError::Malformed(error)),
    }
}
