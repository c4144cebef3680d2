//! The link at the start of a segment: 24 bytes that name the segment before it, or none when the log begins here.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | number of the predecessor |
//! | 8 | 8 | its valid length: bytes after it are to be ignored |
//! | 16 | 8 | last sequence number logged up to there |

use crate::base::coding::Reader;
use crate::base::types::{SegmentNo, SeqNo};

/// Bytes of a link that names a predecessor. Never change.
pub(super) const LINK_BYTES: usize = 24;

/// The segment before another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Predecessor {
    /// Its number.
    pub(crate) number: SegmentNo,
    /// Its bytes that count; durable before anything names them.
    pub(crate) valid_len: u64,
    /// Last sequence number in it, or before it if it has none.
    pub(crate) last_seq: SeqNo,
}

/// The payload of a link to this predecessor.
pub(super) fn encode(predecessor: Option<Predecessor>, out: &mut Vec<u8>) {
    if let Some(Predecessor { number, valid_len, last_seq }) = predecessor {
        for field in [number, valid_len, last_seq] {
            out.extend_from_slice(&field.to_le_bytes());
        }
    }
}

/// Reads a link; the outer `None` when it is not one.
pub(super) fn decode(payload: &[u8]) -> Option<Option<Predecessor>> {
    if payload.is_empty() {
        return Some(None);
    }
    let mut reader = Reader::new(payload);
    let (number, valid_len, last_seq) = (reader.u64()?, reader.u64()?, reader.u64()?);
    reader.is_empty().then_some(Some(Predecessor { number, valid_len, last_seq }))
}
