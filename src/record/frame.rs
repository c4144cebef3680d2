//! Fragments: the unit of checksumming, and how a record is cut into them.
//!
//! The file is seen as blocks of 32 KiB (the file header is at the start of the first). A record is one fragment if
//! it fits into the rest of its block, otherwise a first, any number of middle and a last one, each filling its
//! block but the last. Where fewer bytes are left in a block than a fragment header has, they are zeros and are
//! never looked at.
//!
//! | offset | bytes | field of a fragment |
//! | --- | --- | --- |
//! | 0 | 8 | xxh3-64 of the rest of the fragment, seeded with database, file and offset of the fragment |
//! | 8 | 2 | bytes of the body |
//! | 10 | 1 | part: 1 full, 2 first, 3 middle, 4 last; 0 is never valid |
//! | 11 | 1 | kind of record |
//! | 12 | 4 | count: operations in the record |
//! | 16 | 8 | first sequence number |
//! | 24 | 8 | offset up to which the file was durable when the record was built |
//! | 32 | | body |
//!
//! The body of a full fragment is the payload. The bodies of the fragments of a longer record, joined, are the
//! payload followed by 8 bytes of checksum of the whole payload (seeded with the offset of the first fragment) and
//! 4 bytes with the number of fragments. All fragments of a record agree on kind, count, sequence and durable
//! offset.

use crate::base::checksum::Origin;
use crate::base::types::SeqNo;

/// Bytes of a block; no fragment crosses the border between two. Never change.
pub(crate) const BLOCK_BYTES: usize = 32 * 1024;

/// Bits of an offset that say where in its block it is.
const BLOCK_MASK: u64 = BLOCK_BYTES as u64 - 1;

/// Bytes of a fragment before its body. Never change.
pub(crate) const FRAGMENT_HEADER_BYTES: usize = 32;

/// Bytes that follow the payload of a record of several fragments. Never change.
pub(super) const GROUP_TRAILER_BYTES: usize = 12;

/// Bytes that a block without file header has for a body.
const BODY_BYTES_MAX: usize = BLOCK_BYTES - FRAGMENT_HEADER_BYTES;

/// What a record is. The numbers are on disk: never change them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum RecordKind {
    /// First record of a log segment: names the segment before it.
    Link = 1,
    /// Operations of one commit.
    Batch = 2,
    /// Nothing but the offset up to which the file is durable.
    SyncProof = 3,
    /// Manifest edit.
    Edit = 4,
    /// Nothing: the last record of a log segment, after which the file may be cut.
    End = 9,
}

/// Kinds that later versions write: (number, name). Never change.
const RESERVED_KINDS: [(u8, &str); 4] =
    [(5, "prepare"), (6, "commit prepared"), (7, "rollback prepared"), (8, "prepared checkpoint")];

impl RecordKind {
    /// The kind a byte stands for; otherwise the name under which the format reserves it, if it does.
    pub(super) fn from_byte(byte: u8) -> Result<RecordKind, Option<&'static str>> {
        match byte {
            1 => Ok(RecordKind::Link),
            2 => Ok(RecordKind::Batch),
            3 => Ok(RecordKind::SyncProof),
            4 => Ok(RecordKind::Edit),
            9 => Ok(RecordKind::End),
            other => Err(RESERVED_KINDS.iter().find(|(number, _)| *number == other).map(|(_, name)| *name)),
        }
    }
}

/// What the framing says of a record beside its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordMeta {
    /// What it is.
    pub(crate) kind: RecordKind,
    /// Sequence number of its first operation; 0 for records without operations.
    pub(crate) first_seq: SeqNo,
    /// Operations in it, with consecutive sequence numbers.
    pub(crate) count: u32,
    /// Everything before this offset was durable when the record was built.
    pub(crate) synced_upto: u64,
}

/// Which part of its record a fragment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Part {
    Full = 1,
    First = 2,
    Middle = 3,
    Last = 4,
}

impl Part {
    fn from_byte(byte: u8) -> Option<Part> {
        match byte {
            1 => Some(Part::Full),
            2 => Some(Part::First),
            3 => Some(Part::Middle),
            4 => Some(Part::Last),
            _ => None,
        }
    }
}

/// Where a record starts that follows one ending at `end`: there, or at the next block if no fragment header fits.
#[inline]
pub(crate) fn next_start(end: u64) -> u64 {
    let left = block_left(end);
    if left < FRAGMENT_HEADER_BYTES { end.saturating_add(left as u64) } else { end }
}

/// Bytes from this offset to the end of its block, at least one.
#[inline]
fn block_left(offset: u64) -> usize {
    let used = (offset & BLOCK_MASK) as usize;
    BLOCK_BYTES.saturating_sub(used)
}

/// Bytes for a body in a fragment that starts here.
#[inline]
fn room_at(offset: u64) -> usize {
    block_left(offset).saturating_sub(FRAGMENT_HEADER_BYTES)
}

/// Fragments of a record that does not fit into the `room` of its first one.
fn fragment_count(room: usize, payload_bytes: usize) -> usize {
    let later = payload_bytes.saturating_add(GROUP_TRAILER_BYTES).saturating_sub(room);
    later.div_ceil(BODY_BYTES_MAX).saturating_add(1)
}

/// Bytes that [`encode`] appends for a payload of this length at this offset.
#[inline]
pub(crate) fn encoded_len(offset: u64, payload_bytes: usize) -> u64 {
    let start = next_start(offset);
    let room = room_at(start);
    let framed = if payload_bytes <= room {
        payload_bytes.saturating_add(FRAGMENT_HEADER_BYTES)
    } else {
        fragment_count(room, payload_bytes)
            .saturating_mul(FRAGMENT_HEADER_BYTES)
            .saturating_add(payload_bytes)
            .saturating_add(GROUP_TRAILER_BYTES)
    };
    start.saturating_sub(offset).saturating_add(framed as u64)
}

/// Appends to `out` the framed form of a record that follows one ending at `offset` of the file; the first record
/// follows the file header.
pub(crate) fn encode(origin: Origin, offset: u64, meta: &RecordMeta, payload: &[u8], out: &mut Vec<u8>) {
    let start = next_start(offset);
    let padding = start.saturating_sub(offset) as usize;
    if padding > 0 {
        out.resize(out.len().saturating_add(padding), 0);
    }
    let room = room_at(start);
    if payload.len() <= room {
        put_fragment(origin, start, Part::Full, meta, (payload, &[]), out);
    } else {
        put_group(origin, start, room, meta, payload, out);
    }
}

/// A record of several fragments, the first with this room.
fn put_group(origin: Origin, start: u64, room: usize, meta: &RecordMeta, payload: &[u8], out: &mut Vec<u8>) {
    let trailer = group_trailer(origin, start, payload, fragment_count(room, payload.len()));
    out.reserve(usize::try_from(encoded_len(start, payload.len())).unwrap_or_default());
    let (mut offset, mut room, mut part) = (start, room, Part::First);
    let mut rest = (payload, &trailer[..]);
    loop {
        let (body, later) = split(rest, room);
        if later.0.is_empty() && later.1.is_empty() {
            return put_fragment(origin, offset, Part::Last, meta, body, out);
        }
        put_fragment(origin, offset, part, meta, body, out);
        offset = offset.saturating_add(FRAGMENT_HEADER_BYTES as u64).saturating_add(room as u64);
        (room, part, rest) = (BODY_BYTES_MAX, Part::Middle, later);
    }
}

/// What follows the payload of a record of several fragments.
pub(super) fn group_trailer(
    origin: Origin,
    start: u64,
    payload: &[u8],
    fragments: usize,
) -> [u8; GROUP_TRAILER_BYTES] {
    let mut trailer = [0u8; GROUP_TRAILER_BYTES];
    trailer[..8].copy_from_slice(&origin.checksum(start, payload).to_le_bytes());
    trailer[8..].copy_from_slice(&u32::try_from(fragments).unwrap_or(u32::MAX).to_le_bytes());
    trailer
}

/// Two byte strings read as one.
type Pair<'a> = (&'a [u8], &'a [u8]);

/// The first `len` bytes of the joined strings, or all, and what is left.
fn split<'a>((front, back): Pair<'a>, len: usize) -> (Pair<'a>, Pair<'a>) {
    let (front, front_later) = front.split_at(len.min(front.len()));
    let (back, back_later) = back.split_at(len.saturating_sub(front.len()).min(back.len()));
    ((front, back), (front_later, back_later))
}

#[inline]
fn put_fragment(
    origin: Origin,
    offset: u64,
    part: Part,
    meta: &RecordMeta,
    body: Pair<'_>,
    out: &mut Vec<u8>,
) {
    let begin = out.len();
    let body_bytes = body.0.len().saturating_add(body.1.len());
    out.reserve(body_bytes.saturating_add(FRAGMENT_HEADER_BYTES));
    let mut header = [0u8; FRAGMENT_HEADER_BYTES];
    header[8..10].copy_from_slice(&(body_bytes as u16).to_le_bytes());
    header[10] = part as u8;
    header[11] = meta.kind as u8;
    header[12..16].copy_from_slice(&meta.count.to_le_bytes());
    header[16..24].copy_from_slice(&meta.first_seq.to_le_bytes());
    header[24..32].copy_from_slice(&meta.synced_upto.to_le_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(body.0);
    out.extend_from_slice(body.1);
    if let Some((sum, rest)) = out.get_mut(begin..).and_then(|bytes| bytes.split_first_chunk_mut::<8>()) {
        *sum = origin.checksum(offset, rest).to_le_bytes();
    }
}

/// A fragment whose checksum is right. What it says of itself is not yet judged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fragment<'a> {
    pub(super) part: Option<Part>,
    pub(super) kind: u8,
    pub(super) count: u32,
    pub(super) first_seq: SeqNo,
    pub(super) synced_upto: u64,
    pub(super) body: &'a [u8],
    /// Offset of the first byte after it.
    pub(super) end: usize,
}

impl Fragment<'_> {
    /// Whether two fragments can be of the same record.
    pub(super) fn is_of_same_record(&self, other: &Fragment<'_>) -> bool {
        (self.kind, self.count, self.first_seq, self.synced_upto)
            == (other.kind, other.count, other.first_seq, other.synced_upto)
    }
}

/// The fragment at this offset of the file, or what is there instead.
#[inline]
pub(super) fn parse(origin: Origin, file: &[u8], offset: usize) -> Result<Fragment<'_>, &'static str> {
    let bytes = file.get(offset..).unwrap_or_default();
    let Some(header) = bytes.first_chunk::<FRAGMENT_HEADER_BYTES>() else {
        return Err("the end of the file inside a record header");
    };
    if header[10] == 0 {
        return Err("no record header");
    }
    let body_bytes = usize::from(u16::from_le_bytes([header[8], header[9]]));
    if body_bytes > room_at(offset as u64) {
        return Err("a record that reaches beyond its block");
    }
    let fragment_bytes = body_bytes.saturating_add(FRAGMENT_HEADER_BYTES);
    let Some((sum, checked)) = bytes.get(..fragment_bytes).and_then(|bytes| bytes.split_first_chunk::<8>())
    else {
        return Err("a record that reaches beyond the end of the file");
    };
    if origin.checksum(offset as u64, checked) != u64::from_le_bytes(*sum) {
        return Err("a record with a wrong checksum");
    }
    let word = |from: [u8; 8]| u64::from_le_bytes(from);
    Ok(Fragment {
        part: Part::from_byte(header[10]),
        kind: header[11],
        count: u32::from_le_bytes([header[12], header[13], header[14], header[15]]),
        first_seq: word([
            header[16], header[17], header[18], header[19], header[20], header[21], header[22], header[23],
        ]),
        synced_upto: word([
            header[24], header[25], header[26], header[27], header[28], header[29], header[30], header[31],
        ]),
        body: bytes.get(FRAGMENT_HEADER_BYTES..fragment_bytes).unwrap_or_default(),
        end: offset.saturating_add(fragment_bytes),
    })
}
