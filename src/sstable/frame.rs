//! How a block stands in the file: its bytes, perhaps compressed, and a trailer.
//!
//! ```text
//! stored bytes       the block, raw or LZ4 (block format)
//! u8  compression    0 = none, 1 = LZ4
//! u32 raw length     bytes of the block before compression
//! u64 checksum       xxh3-64 of everything before it, seeded with the file's origin and the block's offset
//! ```
//!
//! Valid iff: the checksum holds; the compression is known; the raw length is the stored length (none) or what
//! decompression yields (LZ4), and within the cap. The checksum is verified before decompression, because LZ4
//! answers flipped bytes with other bytes. LZ4 is kept only where it saves an eighth.

use super::Compression;
use super::bytes::Malformed;
use crate::base::checksum::Origin;
use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};
use std::sync::Arc;

/// Bytes after the stored ones. Never change.
pub(super) const TRAILER_BYTES: usize = 13;

/// Largest block before compression: a value of 1 GiB with its key, and room.
pub(super) const RAW_BYTES_MAX: usize = (1 << 30) + (1 << 28);

/// LZ4 cannot expand a byte to more than this many.
const LZ4_RATIO_MAX: usize = 255;

/// Inputs from here on need the compressor's table of 32-bit positions.
const SMALL_TABLE_BYTES: usize = u16::MAX as usize;

/// Scratch above this size, in bytes, is given back after the block that needed it.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// A block's stored bytes failed: what was expected and found, at which part of the frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FrameError {
    /// Not what was written.
    Corrupt { expected: String, found: String },
    /// Written by a later version.
    Unsupported(String),
}

impl From<Malformed> for FrameError {
    fn from(malformed: Malformed) -> FrameError {
        FrameError::Corrupt { expected: "a well-formed block".into(), found: malformed.0.into() }
    }
}

fn corrupt(expected: impl Into<String>, found: impl Into<String>) -> FrameError {
    FrameError::Corrupt { expected: expected.into(), found: found.into() }
}

/// Compresses blocks, reusing its tables and scratch.
pub(super) struct Framer {
    origin: Origin,
    small: CompressTable,
    large: Option<CompressTable>,
    scratch: Vec<u8>,
}

impl Framer {
    pub(super) fn new(origin: Origin) -> Framer {
        Framer { origin, small: CompressTable::small(), large: None, scratch: Vec::new() }
    }

    /// Appends to `out` the frame of a block that will stand at `offset` of the file.
    pub(super) fn push(&mut self, raw: &[u8], offset: u64, compression: Compression, out: &mut Vec<u8>) {
        let start = out.len();
        let compressed = match compression {
            Compression::Lz4 => self.compress(raw),
            Compression::None => None,
        };
        let (stored, kind) = match compressed {
            Some(len) => (self.scratch.get(..len).unwrap_or_default(), Compression::Lz4),
            None => (raw, Compression::None),
        };
        out.reserve(stored.len().saturating_add(TRAILER_BYTES));
        out.extend_from_slice(stored);
        push_trailer(self.origin, raw.len(), offset, kind, start, out);
        if self.scratch.capacity() > KEPT_BYTES_MAX {
            self.scratch = Vec::new();
            self.large = None;
        }
    }

    /// Makes the frame of a block in the block's own buffer, uncompressed: for blocks too large to copy.
    pub(super) fn seal_raw(&self, raw: &mut Vec<u8>, offset: u64) {
        let raw_len = raw.len();
        push_trailer(self.origin, raw_len, offset, Compression::None, 0, raw);
    }

    /// Compresses into the scratch; `None` when that gains too little.
    fn compress(&mut self, raw: &[u8]) -> Option<usize> {
        let room = get_maximum_output_size(raw.len());
        if self.scratch.len() < room {
            self.scratch = vec![0; room];
        }
        let table = if raw.len() < SMALL_TABLE_BYTES {
            &mut self.small
        } else {
            self.large.get_or_insert_with(CompressTable::large)
        };
        let len = compress_into_with_table(raw, &mut self.scratch, table).ok()?;
        let keep_below = raw.len().saturating_sub(raw.len() / 8);
        (len <= keep_below).then_some(len)
    }
}

/// Appends the trailer of the frame whose stored bytes begin at `start` of `out`.
fn push_trailer(
    origin: Origin,
    raw_len: usize,
    offset: u64,
    kind: Compression,
    start: usize,
    out: &mut Vec<u8>,
) {
    out.push(kind as u8);
    out.extend_from_slice(&u32::try_from(raw_len).unwrap_or(u32::MAX).to_le_bytes());
    let checksum = origin.checksum(offset, out.get(start..).unwrap_or_default());
    out.extend_from_slice(&checksum.to_le_bytes());
}

/// Verifies the frame that stands at `offset` and answers the block.
pub(super) fn open(frame: &[u8], offset: u64, origin: Origin) -> Result<Arc<[u8]>, FrameError> {
    let (stored, kind, raw_len) = verify(frame, offset, origin)?;
    match kind {
        0 if stored.len() == raw_len => Ok(Arc::from(stored)),
        0 => Err(corrupt(format!("{raw_len} raw bytes"), format!("{} stored uncompressed", stored.len()))),
        1 => decompress(stored, raw_len),
        other => Err(FrameError::Unsupported(format!("block compression {other}"))),
    }
}

/// The checksum over the stored bytes; then the parts of the frame.
fn verify(frame: &[u8], offset: u64, origin: Origin) -> Result<(&[u8], u8, usize), FrameError> {
    let short = || corrupt(format!("at least {TRAILER_BYTES} bytes"), format!("{} bytes", frame.len()));
    let (covered, checksum) = frame.split_last_chunk::<8>().ok_or_else(short)?;
    let (rest, raw_len) = covered.split_last_chunk::<4>().ok_or_else(short)?;
    let (kind, stored) = rest.split_last().ok_or_else(short)?;
    let (expected, found) = (origin.checksum(offset, covered), u64::from_le_bytes(*checksum));
    if expected != found {
        return Err(corrupt(format!("checksum {expected:016x}"), format!("checksum {found:016x}")));
    }
    let raw_len = u32::from_le_bytes(*raw_len) as usize;
    if raw_len > RAW_BYTES_MAX {
        let limit = format!("a block of at most {RAW_BYTES_MAX} bytes");
        return Err(corrupt(limit, format!("a raw length of {raw_len}")));
    }
    Ok((stored, *kind, raw_len))
}

fn decompress(stored: &[u8], raw_len: usize) -> Result<Arc<[u8]>, FrameError> {
    if raw_len > stored.len().saturating_mul(LZ4_RATIO_MAX) {
        let found = format!("a raw length of {raw_len} for {} stored bytes", stored.len());
        return Err(corrupt("a raw length that LZ4 can reach", found));
    }
    let mut raw: Arc<[u8]> = std::iter::repeat_n(0u8, raw_len).collect();
    let target = Arc::get_mut(&mut raw).unwrap_or_default();
    match decompress_into(stored, target) {
        Ok(len) if len == raw_len => Ok(raw),
        Ok(len) => Err(corrupt(format!("{raw_len} raw bytes"), format!("{len} from LZ4"))),
        Err(error) => Err(corrupt(format!("{raw_len} raw bytes from LZ4"), error.to_string())),
    }
}
