//! Reading one segment: what it holds at a glance, and all of its batches.
//!
//! A segment has a reserved tail of zeros that can be as long as the segment. Its end is looked for with a small
//! buffer, so that memory is taken only for the part in use. Batches share those bytes.

use super::link::{self, Predecessor};
use super::segment::segment_path;
use crate::base::checksum::{FileTag, Origin};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::slice::Slice;
use crate::base::types::{DbId, SEQ_MAX, SegmentNo, SeqNo};
use crate::env::{Env, ReadFile};
use crate::record::{BLOCK_BYTES, FILE_HEADER_BYTES, FileHeader, Reader, Record, RecordKind, used_len};
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Read to see what a segment holds: header and link, with room to spare.
const GLANCE_BYTES: u64 = 4096;

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
pub(crate) struct ReplayedBatch {
    /// Sequence number of its first operation.
    pub(crate) first_seq: SeqNo,
    /// Operations in it, if the log is to be believed; the payload decides.
    pub(crate) count: u32,
    /// Offset of its record in the segment.
    pub(crate) offset: u64,
    /// Its operations, see [`ops`](super::ops). Shares the segment's bytes unless its record crosses a block.
    pub(crate) payload: Slice,
}

/// What is made of the commits of a segment while they are read, when their bytes are still in the processor's cache.
pub(crate) trait Visit: Send {
    /// Takes the next commit of the segment at `path`.
    fn batch(&mut self, path: &Path, batch: ReplayedBatch) -> Result<()>;
}

/// One segment, read.
#[derive(Debug)]
pub(crate) struct ReplayedSegment<V> {
    /// Its number.
    pub(crate) number: SegmentNo,
    /// The part of it in use.
    pub(crate) bytes: Arc<[u8]>,
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
        let bytes = self.read_used()?;
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

    /// Reads all batches and shows them to `batches`. `end` is what the next segment's link says of this one: then
    /// every byte up to there must be valid, and bytes after it are of a failed append and do not count. Without it
    /// the tail may be torn.
    pub(super) fn scan<V: Visit>(
        &self,
        end: Option<Predecessor>,
        mut batches: V,
    ) -> Result<ReplayedSegment<V>> {
        let bytes = match end {
            Some(end) if end.valid_len > self.len => {
                let expected = format!("{} bytes, as the next segment says", end.valid_len);
                return Err(self.damage(self.len, expected, format!("{} bytes", self.len)));
            }
            Some(end) => self.read(end.valid_len)?,
            None => self.read_used()?,
        };
        let mut reader = self.reader(&bytes);
        let Some(first) = reader.next()? else {
            return Err(self.damage(FILE_HEADER_BYTES as u64, "a link", "no valid record"));
        };
        let mut last_seq = self.link(&first)?.map_or(0, |predecessor| predecessor.last_seq);
        let mut is_ended = false;
        while let Some(record) = reader.next()? {
            if is_ended {
                return Err(self.damage(
                    record.offset,
                    "nothing after the end",
                    format!("{:?}", record.meta),
                ));
            }
            match record.meta.kind {
                RecordKind::Batch => {
                    last_seq = self.check_order(&record, last_seq)?;
                    batches.batch(&self.path, self.batch(record, &bytes)?)?;
                }
                RecordKind::SyncProof => {}
                RecordKind::End => is_ended = true,
                RecordKind::Link | RecordKind::Edit => {
                    let found = format!("{:?}", record.meta.kind);
                    return Err(self.damage(record.offset, "a batch or a proof of sync", found));
                }
            }
        }
        let tail = reader.tail();
        match end {
            Some(end) => self.check_end(end, tail.valid_len, last_seq)?,
            None if is_ended => {}
            None => self.check_uncut(&bytes)?,
        }
        Ok(ReplayedSegment {
            number: self.number,
            valid_len: tail.valid_len,
            last_seq,
            dropped_bytes: tail.dropped_bytes,
            batches,
            bytes,
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
    fn batch(&self, record: Record<'_>, bytes: &Arc<[u8]>) -> Result<ReplayedBatch> {
        let payload = match record.payload {
            Cow::Borrowed(payload) => {
                let start = usize::try_from(record.end).ok().and_then(|end| end.checked_sub(payload.len()));
                let shared = start.and_then(|start| Slice::part(bytes, start, payload.len()));
                shared.unwrap_or_else(|| Slice::copy_from(payload))
            }
            Cow::Owned(payload) if u32::try_from(payload.len()).is_ok() => Slice::from(payload),
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
        let Ok(len) = usize::try_from(len) else {
            return Err(self.damage(0, "a segment that fits into memory", format!("{len} bytes")));
        };
        self.file.read_shared(0, len).map_err(|error| Error::io("read", &self.path, error))
    }

    /// The part of the file in use, up to the end of its block: a valid record may end in zeros, but has a header
    /// in each block.
    fn read_used(&self) -> Result<Arc<[u8]>> {
        let used = self.used_bytes()?;
        self.read(used.next_multiple_of(BLOCK_BYTES as u64).min(self.len))
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
