//! Reading one segment: what it holds at a glance, and all of its batches.
//!
//! A segment has a reserved tail of zeros that can be as long as the segment. Its end is looked for with a small
//! buffer, so that memory is taken only for the part in use. Batches share those bytes.

use super::link::{self, Predecessor};
use super::segment::segment_path;
use crate::base::checksum::{FileTag, Origin};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::types::{DbId, SEQ_MAX, SegmentNo, SeqNo};
use crate::env::{Env, ReadFile};
use crate::record::{BLOCK_BYTES, FILE_HEADER_BYTES, FileHeader, Reader, Record, RecordKind, Tail, used_len};
use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Read to see what a segment holds: header and link, with room to spare.
const GLANCE_BYTES: u64 = 4096;

/// Read at once, and parsed while it is still in the processor's cache and the system reads ahead.
const PIECE_BYTES: u64 = 1 << 20;

/// Buffer for the search for the end of the part in use: fits into the processor's cache.
const CHUNK_BYTES: u64 = 256 * 1024;

/// A segment opened for reading.
pub(super) struct SegmentFile {
    pub(super) number: SegmentNo,
    pub(super) path: PathBuf,
    origin: Origin,
    db: DbId,
    file: Arc<dyn ReadFile>,
    len: u64,
}

/// What a segment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// A valid link: part of the chain, or left over from an attempt to be.
    Linked(Option<Predecessor>),
    /// No valid record; this many bytes after the header that are none.
    Nothing { dropped_bytes: u64 },
}

/// A commit as it was logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReplayedBatch<'a> {
    /// Sequence number of its first operation.
    pub(crate) first_seq: SeqNo,
    /// Operations in it, if the log is to be believed; the payload decides.
    pub(crate) count: u32,
    /// Offset of its record in the segment.
    pub(crate) offset: u64,
    /// Its operations, see [`ops`](super::ops).
    pub(crate) payload: Payload<'a>,
}

/// Where the bytes of a commit are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Payload<'a> {
    /// In the segment, from this offset on.
    Shared(&'a [u8], usize),
    /// In a buffer of its own, because its record crosses a block.
    Own(Vec<u8>),
}

/// What is made of the commits of a segment while they are read, when their bytes are still in the processor's cache.
pub(crate) trait Visit: Send {
    /// Takes the next commit of the segment at `path`.
    fn batch(&mut self, path: &Path, batch: ReplayedBatch<'_>) -> Result<()>;

    /// Takes the segment's bytes, where the shared payloads are, after the last commit.
    fn end(&mut self, bytes: Arc<[u8]>);
}

/// One segment, read.
#[derive(Debug)]
pub(crate) struct ReplayedSegment<V> {
    /// Its number.
    pub(crate) number: SegmentNo,
    /// Bytes of it in memory.
    pub(crate) len: usize,
    /// End of the last valid record.
    pub(crate) valid_len: u64,
    /// Last sequence number in it, or before it if it has none.
    pub(crate) last_seq: SeqNo,
    /// Bytes after the last valid record that were dropped as a torn tail.
    pub(crate) dropped_bytes: u64,
    /// What was made of its batches, which came with rising sequence numbers.
    pub(crate) batches: V,
}

impl SegmentFile {
    /// Opens a segment.
    pub(super) fn open(env: &Env, dir: &Path, db: DbId, number: SegmentNo) -> Result<SegmentFile> {
        let path = segment_path(dir, number);
        let file = env.fs.open(&path).map_err(|error| Error::io("open", &path, error))?;
        let len = file.len().map_err(|error| Error::io("read", &path, error))?;
        Ok(SegmentFile { number, path, origin: Origin::new(db, FileTag::Log, number), db, file, len })
    }

    /// Looks at header and link.
    ///
    /// The header is durable before any record is written, so a bad one with something after it is damage. With
    /// nothing after it the segment was never written, whatever became of the header: whether it should have been
    /// is for the chain to say.
    pub(super) fn glance(&self) -> Result<Content> {
        let head = self.read(self.len.min(GLANCE_BYTES))?;
        match FileHeader::decode(&self.path, &head, FileTag::Log) {
            Ok(header) => self.check_identity(&header)?,
            Err(error) if error.kind() != ErrorKind::Corruption => return Err(error),
            Err(_) if self.used_bytes()? <= FILE_HEADER_BYTES as u64 => {
                return Ok(Content::Nothing { dropped_bytes: 0 });
            }
            Err(error) => return Err(error),
        }
        if let Ok(Some(record)) = self.reader(&head).next() {
            return self.link(&record).map(Content::Linked);
        }
        let bytes = self.read(self.used_blocks()?)?;
        let mut reader = self.reader(&bytes);
        match reader.next()? {
            Some(record) => self.link(&record).map(Content::Linked),
            None => self.nothing(&head, reader.tail().dropped_bytes),
        }
    }

    /// Without records the length may not be durable yet; with a part of one it was.
    fn nothing(&self, head: &[u8], dropped_bytes: u64) -> Result<Content> {
        if dropped_bytes > 0 {
            self.check_uncut(head)?;
        }
        Ok(Content::Nothing { dropped_bytes })
    }

    /// Reads all batches and shows them to `batches`.
    ///
    /// `end` is what the next segment's link says of this one: then every byte up to there must be valid, and bytes
    /// after it are of a failed append and do not count. Without it the tail may be torn.
    pub(super) fn scan<V: Visit>(&self, end: Option<Predecessor>, batches: V) -> Result<ReplayedSegment<V>> {
        let len = match end {
            Some(end) if end.valid_len > self.len => {
                let expected = format!("{} bytes, as the next segment says", end.valid_len);
                return Err(self.damage(self.len, expected, format!("{} bytes", self.len)));
            }
            Some(end) => end.valid_len,
            None => self.used_blocks()?,
        };
        let mut bytes = self.buffer(len)?;
        let mut scan =
            Scan { segment: self, batches, valid_len: FILE_HEADER_BYTES, last_seq: None, is_ended: false };
        let mut filled = 0;
        let mut step = PIECE_BYTES;
        while filled < len {
            let upto = filled.saturating_add(step).min(len);
            self.fill(&mut bytes, filled, upto)?;
            filled = upto;
            let valid_len = scan.valid_len;
            let read = bytes.get(..upto as usize).unwrap_or_default();
            scan.go_on(Reader::of_beginning(&self.path, self.origin, read, valid_len))?;
            // Of a record longer than the piece, the next piece must be more than a little more.
            step = if scan.valid_len == valid_len { step.saturating_mul(2) } else { PIECE_BYTES };
        }
        let tail = scan.go_on(Reader::new(&self.path, self.origin, &bytes, scan.valid_len))?;
        let Scan { mut batches, last_seq, is_ended, .. } = scan;
        let Some(last_seq) = last_seq else {
            return Err(self.damage(FILE_HEADER_BYTES as u64, "a link", "no valid record"));
        };
        match end {
            Some(end) => self.check_end(end, tail.valid_len, last_seq)?,
            None if is_ended => {}
            None => self.check_uncut(&bytes)?,
        }
        batches.end(bytes);
        Ok(ReplayedSegment {
            number: self.number,
            len: len as usize,
            valid_len: tail.valid_len,
            last_seq,
            dropped_bytes: tail.dropped_bytes,
            batches,
        })
    }

    fn reader<'a>(&'a self, bytes: &'a [u8]) -> Reader<'a> {
        Reader::new(&self.path, self.origin, bytes, FILE_HEADER_BYTES)
    }

    fn check_identity(&self, header: &FileHeader) -> Result<()> {
        if header.db == self.db && header.number == self.number {
            return Ok(());
        }
        let expected = format!("segment {} of database {:032x}", self.number, self.db);
        Err(self.damage(0, expected, format!("segment {} of database {:032x}", header.number, header.db)))
    }

    /// The link that the first record must be.
    fn link(&self, record: &Record<'_>) -> Result<Option<Predecessor>> {
        let link = match record.meta.kind {
            RecordKind::Link => link::decode(&record.payload),
            _ => None,
        };
        let link = link.filter(|link| link.is_none_or(|predecessor| predecessor.last_seq <= SEQ_MAX));
        link.ok_or_else(|| self.damage(record.offset, "a link", format!("{:?}", record.meta)))
    }

    /// Last sequence number of a batch that follows `last_seq`. Gaps are right: commits of level `Memory` take
    /// numbers and are not logged.
    #[inline]
    fn check_order(&self, record: &Record<'_>, last_seq: SeqNo) -> Result<SeqNo> {
        let meta = record.meta;
        let end = meta.first_seq.checked_add(u64::from(meta.count)).and_then(|end| end.checked_sub(1));
        match end {
            Some(end) if meta.count > 0 && meta.first_seq > last_seq && end <= SEQ_MAX => Ok(end),
            _ => {
                let found = format!("{} from {}", meta.count, meta.first_seq);
                Err(self.damage(record.offset, format!("sequence numbers after {last_seq}"), found))
            }
        }
    }

    #[inline]
    fn batch<'a>(&self, record: Record<'a>) -> Result<ReplayedBatch<'a>> {
        let payload = match record.payload {
            // The last bytes before the record's end.
            Cow::Borrowed(payload) => {
                Payload::Shared(payload, (record.end as usize).saturating_sub(payload.len()))
            }
            Cow::Owned(payload) if u32::try_from(payload.len()).is_ok() => Payload::Own(payload),
            Cow::Owned(payload) => {
                let found = format!("{} bytes", payload.len());
                return Err(self.damage(record.offset, "a batch of less than 4 GiB", found));
            }
        };
        let (first_seq, count) = (record.meta.first_seq, record.meta.count);
        Ok(ReplayedBatch { first_seq, count, offset: record.offset, payload })
    }

    fn check_end(&self, end: Predecessor, valid_len: u64, last_seq: SeqNo) -> Result<()> {
        if valid_len != end.valid_len {
            let expected = format!("valid records up to {}, as the next segment says", end.valid_len);
            return Err(self.damage(valid_len, expected, "an invalid one"));
        }
        if last_seq != end.last_seq {
            let expected = format!("last sequence number {}, as the next segment says", end.last_seq);
            return Err(self.damage(valid_len, expected, format!("{last_seq}")));
        }
        Ok(())
    }

    /// No crash makes the file shorter than its header says: what is missing was cut off, who knows with how many
    /// commits.
    fn check_uncut(&self, head: &[u8]) -> Result<()> {
        let reserved = FileHeader::decode(&self.path, head, FileTag::Log)?.reserved;
        if self.len < reserved {
            let expected = format!("{reserved} bytes, as its header says, or a record that ends the segment");
            return Err(self.damage(self.len, expected, format!("{} bytes", self.len)));
        }
        Ok(())
    }

    fn damage(&self, offset: u64, expected: impl Into<String>, found: impl Into<String>) -> Error {
        Error::corrupt(&self.path, offset, expected, found)
    }

    /// The first `len` bytes; `len` must be within the file.
    fn read(&self, len: u64) -> Result<Arc<[u8]>> {
        let mut bytes = self.buffer(len)?;
        self.fill(&mut bytes, 0, len)?;
        Ok(bytes)
    }

    fn buffer(&self, len: u64) -> Result<Arc<[u8]>> {
        let Ok(len) = usize::try_from(len) else {
            return Err(self.damage(0, "a segment that fits into memory", format!("{len} bytes")));
        };
        Ok(self.file.buffer(len))
    }

    /// Reads this part of the file to its place in a buffer that nobody else knows yet.
    fn fill(&self, bytes: &mut Arc<[u8]>, from: u64, upto: u64) -> Result<()> {
        match Arc::get_mut(bytes).and_then(|bytes| bytes.get_mut(from as usize..upto as usize)) {
            Some(part) => self.read_at(from, part),
            None => Err(Error::io("read", &self.path, io::Error::other("its buffer is in use"))),
        }
    }

    /// Length of the part of the file in use, up to the end of its block: a valid record may end in zeros, but has a
    /// header in each block.
    fn used_blocks(&self) -> Result<u64> {
        Ok(self.used_bytes()?.next_multiple_of(BLOCK_BYTES as u64).min(self.len))
    }

    /// Bytes of the file up to the last one that is not zero. Reads forward, though the answer is found faster from
    /// the back: the system reads ahead of those who go forward, which is worth a factor of three.
    fn used_bytes(&self) -> Result<u64> {
        let mut buffer = vec![0u8; self.len.min(CHUNK_BYTES) as usize];
        let (mut start, mut used) = (0u64, 0u64);
        while start < self.len {
            let chunk_bytes = self.len.saturating_sub(start).min(CHUNK_BYTES);
            let chunk = buffer.get_mut(..chunk_bytes as usize).unwrap_or_default();
            self.read_at(start, chunk)?;
            match used_len(chunk) as u64 {
                0 => {}
                len => used = start.saturating_add(len),
            }
            start = start.saturating_add(chunk_bytes);
        }
        Ok(used)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(offset, buffer).map_err(|error| Error::io("read", &self.path, error))
    }
}

/// A segment while it is being read.
struct Scan<'a, V> {
    segment: &'a SegmentFile,
    batches: V,
    /// End of the last valid record.
    valid_len: usize,
    /// Last sequence number, from the link on.
    last_seq: Option<SeqNo>,
    /// Whether the record came that nothing may follow.
    is_ended: bool,
}

impl<V: Visit> Scan<'_, V> {
    /// Takes the records that a reader finds.
    fn go_on(&mut self, mut reader: Reader<'_>) -> Result<Tail> {
        while let Some(record) = reader.next()? {
            self.record(record)?;
        }
        let tail = reader.tail();
        self.valid_len = tail.valid_len as usize;
        Ok(tail)
    }

    #[inline]
    fn record(&mut self, record: Record<'_>) -> Result<()> {
        let Some(last_seq) = self.last_seq else {
            self.last_seq = Some(self.segment.link(&record)?.map_or(0, |predecessor| predecessor.last_seq));
            return Ok(());
        };
        if self.is_ended {
            let found = format!("{:?}", record.meta);
            return Err(self.segment.damage(record.offset, "nothing after the end", found));
        }
        match record.meta.kind {
            RecordKind::Batch => {
                self.last_seq = Some(self.segment.check_order(&record, last_seq)?);
                self.batches.batch(&self.segment.path, self.segment.batch(record)?)
            }
            RecordKind::SyncProof => Ok(()),
            RecordKind::End => {
                self.is_ended = true;
                Ok(())
            }
            RecordKind::Link | RecordKind::Edit => {
                let found = format!("{:?}", record.meta.kind);
                Err(self.segment.damage(record.offset, "a batch or a proof of sync", found))
            }
        }
    }
}
