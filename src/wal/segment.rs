//! One file of the log: its name, its creation ahead of use, appending to it, and making it durable.
//!
//! A segment is created with its header synced and its directory entry durable before any record is written, so it
//! can be prepared in the background. Appending is the log's business, one thread at a time. Syncing may run on
//! other threads meanwhile; it claims only what was appended before it began.

use crate::base::checksum::{FileTag, Origin};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::sync::{Mutex, Rank};
use crate::base::types::{DbId, SegmentNo, SeqNo};
use crate::env::{AppendFile, AppendOptions, Env};
use crate::record::{FILE_HEADER_BYTES, FileHeader};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// How segments are made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogOptions {
    /// Length at which the log goes on in a new segment; also the bytes reserved on disk.
    pub(crate) segment_bytes: u64,
    /// Write through a mapped window instead of a system call per record, where the file system allows it.
    pub(crate) mapped: bool,
}

/// The file of a segment: `000012.wal`.
pub(crate) fn segment_path(dir: &Path, number: SegmentNo) -> PathBuf {
    dir.join(segment_name(number))
}

fn segment_name(number: SegmentNo) -> String {
    format!("{number:06}.wal")
}

/// The segment that a file of this name is, if it is one.
pub(crate) fn parse_segment_name(name: &str) -> Option<SegmentNo> {
    let number = name.strip_suffix(".wal")?.parse().ok()?;
    (segment_name(number) == name).then_some(number)
}

/// Bytes after which the device is told to begin writing, so that the sync of a whole segment is short.
const WRITEBACK_BYTES: u64 = 1 << 20;

/// A file of the log that is being written, shared by the log and by those who wait for durability.
pub(crate) struct Segment {
    number: SegmentNo,
    path: PathBuf,
    origin: Origin,
    file: Arc<dyn AppendFile>,
    /// End of the last append that returned.
    len: AtomicU64,
    /// Last sequence number that such an append brought. Stored after `len`, so whoever reads it first reads a
    /// length that covers it.
    last_seq: AtomicU64,
    /// Everything before this offset is durable.
    synced: AtomicU64,
    /// Where the device was last told to begin writing.
    hinted: AtomicU64,
    /// Taken by the one who syncs: of two overlapping syncs the second could miss the failure of the first.
    turn: Mutex<()>,
    /// First failed sync or store. After it nothing of this file can be believed.
    failure: OnceLock<Error>,
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("number", &self.number)
            .field("len", &self.len)
            .field("last_seq", &self.last_seq)
            .field("synced", &self.synced)
            .finish_non_exhaustive()
    }
}

impl Segment {
    /// Its number.
    pub(crate) fn number(&self) -> SegmentNo {
        self.number
    }

    /// Bytes appended, header included.
    pub(crate) fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    /// Last sequence number appended to it, or to the log before it.
    pub(crate) fn last_seq(&self) -> SeqNo {
        self.last_seq.load(Ordering::Acquire)
    }

    /// Everything before this offset is durable.
    pub(crate) fn synced_upto(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }

    /// Makes durable what was appended before this call began, and answers the last sequence number among it.
    ///
    /// A failure is `Poisoned`: it is remembered, the file is never synced again, and every later call answers the
    /// same error.
    pub(crate) fn sync(&self) -> Result<SeqNo> {
        let _turn = self.turn.lock();
        self.check()?;
        let last_seq = self.last_seq();
        let len = self.len();
        if self.synced_upto() < len {
            self.file.sync().map_err(|error| self.fail("sync", error))?;
            self.check_stores()?;
            self.synced.fetch_max(len, Ordering::AcqRel);
        }
        Ok(last_seq)
    }

    /// The failure that was met on this segment, if there was one.
    pub(super) fn check(&self) -> Result<()> {
        match self.failure.get() {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// Where its bytes belong.
    pub(super) fn origin(&self) -> Origin {
        self.origin
    }

    /// Its file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends framed records, the last sequence number in the log being then `last_seq`. After any failure nothing
    /// may be appended any more; a failed store into the mapped window is `Poisoned`.
    #[inline]
    pub(super) fn append(&self, bytes: &[u8], last_seq: SeqNo) -> Result<()> {
        self.file.append(bytes).map_err(|error| Error::io("append", &self.path, error))?;
        self.check_stores()?;
        let len = self.len.load(Ordering::Relaxed).saturating_add(bytes.len() as u64);
        self.len.store(len, Ordering::Release);
        self.last_seq.store(last_seq, Ordering::Release);
        if len.saturating_sub(self.hinted.load(Ordering::Relaxed)) >= WRITEBACK_BYTES {
            self.hinted.store(len, Ordering::Relaxed);
            self.file.start_writeback();
        }
        Ok(())
    }

    /// Whether these bytes, appended all but the last, would be there whole: the reserved tail is zeros already.
    pub(super) fn is_whole_when_cut(&self, bytes: &[u8]) -> bool {
        bytes.last() == Some(&0) && self.len().saturating_add(bytes.len() as u64) <= self.file.reserved()
    }

    /// Whether giving back the reserved tail makes the file shorter than its header promises.
    pub(super) fn is_cut_by_finish(&self) -> bool {
        self.len() < self.file.reserved()
    }

    /// Gives back the reserved tail; nothing is appended or synced after it.
    pub(super) fn finish(&self) -> Result<()> {
        let _turn = self.turn.lock();
        self.file.finish().map_err(|error| self.fail("finish", error))?;
        if self.file.len() != self.len() {
            let found = format!("a file of {} bytes appended, {} expected", self.file.len(), self.len());
            return Err(self.fail("finish", io::Error::other(found)));
        }
        Ok(())
    }

    #[inline]
    fn check_stores(&self) -> Result<()> {
        if self.file.is_poisoned() {
            return Err(self.fail("append", io::Error::other("a store into the mapped file failed")));
        }
        Ok(())
    }

    /// Remembers a failure after which the file is not to be believed.
    #[cold]
    fn fail(&self, operation: &'static str, error: io::Error) -> Error {
        let cause = Error::io(operation, &self.path, error);
        self.failure.get_or_init(|| poisoned(cause)).clone()
    }
}

/// The error after which the log must not be written any more.
pub(super) fn poisoned(cause: Error) -> Error {
    Error::caused(ErrorKind::Poisoned, "the log cannot be trusted to be durable", cause)
}

/// A segment with nothing but its header, durable, ready to be written.
#[derive(Debug)]
pub(crate) struct Prepared {
    segment: Arc<Segment>,
}

impl Prepared {
    /// Its number.
    pub(crate) fn number(&self) -> SegmentNo {
        self.segment.number
    }

    /// Its file.
    pub(super) fn path(&self) -> &Path {
        &self.segment.path
    }

    /// Takes it into use, the last sequence number in the log before it being `last_seq`.
    pub(super) fn into_segment(self, last_seq: SeqNo) -> Arc<Segment> {
        self.segment.last_seq.store(last_seq, Ordering::Release);
        self.segment
    }
}

/// Creates a segment: reserves its space, makes its header and its directory entry durable.
///
/// Fails if the file exists. After any other failure the file is removed; one of a sync is `Poisoned`.
pub(crate) fn prepare(
    env: &Env,
    dir: &Path,
    db: DbId,
    number: SegmentNo,
    options: &LogOptions,
) -> Result<Prepared> {
    let path = segment_path(dir, number);
    let how = AppendOptions { preallocate: options.segment_bytes, mapped: options.mapped, uncached: false };
    let file = env.fs.create(&path, how).map_err(|error| Error::io("create", &path, error))?;
    // Durable together with the length itself, so from then on a shorter file was cut by somebody else.
    let reserved = file.reserved();
    let header = FileHeader { reserved, ..FileHeader::new(FileTag::Log, db, number) }.encode();
    if let Err(error) = write_header(env, dir, &path, &*file, &header) {
        drop(file);
        return Err(abandon(env, &path, error));
    }
    let header_bytes = FILE_HEADER_BYTES as u64;
    Ok(Prepared {
        segment: Arc::new(Segment {
            number,
            path,
            origin: Origin::new(db, FileTag::Log, number),
            file,
            len: AtomicU64::new(header_bytes),
            last_seq: AtomicU64::new(0),
            synced: AtomicU64::new(header_bytes),
            hinted: AtomicU64::new(header_bytes),
            turn: Mutex::new(Rank::LogSync, ()),
            failure: OnceLock::new(),
        }),
    })
}

fn write_header(env: &Env, dir: &Path, path: &Path, file: &dyn AppendFile, header: &[u8]) -> Result<()> {
    file.append(header).map_err(|error| Error::io("append", path, error))?;
    file.sync().map_err(|error| poisoned(Error::io("sync", path, error)))?;
    if file.is_poisoned() || file.len() != header.len() as u64 {
        let error = io::Error::other("the header did not reach the file");
        return Err(Error::io("append", path, error));
    }
    env.fs.sync_dir(dir).map_err(|error| poisoned(Error::io("sync", dir, error)))
}

/// Removes a file whose creation failed; an error that says so if it stays. A leftover without records is harmless.
fn abandon(env: &Env, path: &Path, error: Error) -> Error {
    match env.fs.remove(path) {
        Ok(()) => error,
        Err(left) => Error::caused(error.kind(), format!("{} stays behind ({left})", path.display()), error),
    }
}
