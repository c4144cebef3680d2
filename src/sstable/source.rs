//! Where a table's blocks come from: the block cache, the mapped file, or the file.
//!
//! A block is always copied into memory of our own and verified there before anything looks into it; mapped bytes
//! are never lent. If the file cannot be mapped, or a copy out of the map fails, the same bytes are read by position:
//! results do not depend on the way, and whatever is wrong is then reported by an ordinary read.

use super::bytes::{Extent, Malformed};
use super::frame::{self, FrameError};
use crate::base::checksum::{FileTag, Origin};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::types::{DbId, FileNo};
use crate::cache::{BlockCache, BlockKey};
use crate::env::{MappedFile, ReadFile};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How single blocks are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadMode {
    /// Copied out of the mapped file.
    Mmap,
    /// Read by position.
    Pread,
}

/// An open file that should be a certain table.
pub(crate) struct TableSource {
    /// The file.
    pub(crate) file: Arc<dyn ReadFile>,
    /// Its path, for errors.
    pub(crate) path: PathBuf,
    /// The database it belongs to.
    pub(crate) db: DbId,
    /// The number it was born under.
    pub(crate) origin: FileNo,
    /// Its length, as the manifest has it.
    pub(crate) bytes: u64,
    /// How single blocks are read.
    pub(crate) mode: ReadMode,
    /// Where decompressed blocks are kept.
    pub(crate) cache: Arc<BlockCache>,
}

/// Reads blocks of one file.
pub(super) struct Source {
    file: Arc<dyn ReadFile>,
    path: PathBuf,
    origin: Origin,
    bytes: u64,
    map: Option<Arc<dyn MappedFile>>,
    /// A copy out of the map failed: it is not asked again.
    map_failed: AtomicBool,
    cache: Arc<BlockCache>,
    cache_id: u64,
}

impl Source {
    /// Checks the file's length and maps it, if wanted and possible.
    pub(super) fn open(source: TableSource) -> Result<Source> {
        let len = source.file.len().map_err(|error| Error::io("stat", &source.path, error))?;
        if len != source.bytes {
            let expected = format!("a file of {} bytes", source.bytes);
            return Err(Error::corrupt(&source.path, None, expected, format!("{len} bytes")));
        }
        let map = match source.mode {
            ReadMode::Mmap => source.file.map(source.bytes).ok(),
            ReadMode::Pread => None,
        };
        Ok(Source {
            origin: Origin::new(source.db, FileTag::Table, source.origin),
            file: source.file,
            path: source.path,
            bytes: source.bytes,
            map,
            map_failed: AtomicBool::new(false),
            cache_id: source.cache.new_file_id(),
            cache: source.cache,
        })
    }

    /// Path of the file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Length of the file.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The block, if it is in the cache.
    #[inline]
    pub(super) fn cached(&self, place: Extent) -> Option<Arc<[u8]>> {
        self.cache.get(&self.cache_key(place))
    }

    /// The block, from the cache or from the file; kept in the cache if `fill`.
    #[inline]
    pub(super) fn block(&self, place: Extent, fill: bool) -> Result<Arc<[u8]>> {
        if let Some(block) = self.cached(place) {
            return Ok(block);
        }
        let block = self.load(place)?;
        if fill {
            self.keep(place, &block);
        }
        Ok(block)
    }

    /// Puts a block into the cache.
    pub(super) fn keep(&self, place: Extent, block: &Arc<[u8]>) {
        self.cache.insert(self.cache_key(place), Arc::clone(block));
    }

    /// The block from the file.
    pub(super) fn load(&self, place: Extent) -> Result<Arc<[u8]>> {
        let mut frame = vec![0u8; self.frame_len(place)?];
        self.read(place.start, &mut frame)?;
        self.open_frame(place, &frame)
    }

    /// The block from the file, past map and page cache.
    pub(super) fn load_uncached(&self, place: Extent) -> Result<Arc<[u8]>> {
        let mut frame = vec![0u8; self.frame_len(place)?];
        self.read_file(place.start, &mut frame, true)?;
        self.open_frame(place, &frame)
    }

    /// Verifies a frame that was read from this place.
    pub(super) fn open_frame(&self, place: Extent, frame: &[u8]) -> Result<Arc<[u8]>> {
        frame::open(frame, place.start, self.origin).map_err(|error| self.frame_error(place.start, error))
    }

    /// Length of a frame, which must lie inside the file: nothing is allocated by a length that was not held
    /// against the file.
    pub(super) fn frame_len(&self, place: Extent) -> Result<usize> {
        let limit = (frame::RAW_BYTES_MAX as u64).saturating_add(frame::TRAILER_BYTES as u64);
        if place.start >= place.end || place.end > self.bytes || place.len() > limit {
            let expected = format!("a block inside the file's {} bytes", self.bytes);
            return Err(Error::corrupt(
                &self.path,
                place.start,
                expected,
                format!("one that ends at {}", place.end),
            ));
        }
        usize::try_from(place.len())
            .map_err(|_| Error::new(ErrorKind::LimitExceeded, "a block larger than this machine's memory"))
    }

    /// Fills the buffer from the map, or else from the file.
    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        if let Some(map) = &self.map
            && !self.map_failed.load(Ordering::Relaxed)
        {
            match map.copy_out(offset, buf) {
                Ok(()) => return Ok(()),
                Err(_) => self.map_failed.store(true, Ordering::Relaxed),
            }
        }
        self.read_file(offset, buf, false)
    }

    /// Fills the buffer from the file, past the map and, if `uncached`, past the page cache.
    pub(super) fn read_file(&self, offset: u64, buf: &mut [u8], uncached: bool) -> Result<()> {
        let result = if uncached {
            self.file.read_exact_at_uncached(offset, buf)
        } else {
            self.file.read_exact_at(offset, buf)
        };
        result.map_err(|error| self.read_error(offset, buf.len(), error))
    }

    /// A read that comes short at a known length means that the file was cut.
    fn read_error(&self, offset: u64, len: usize, error: io::Error) -> Error {
        let now = self.file.len().unwrap_or(self.bytes);
        if now < self.bytes || error.kind() == io::ErrorKind::UnexpectedEof {
            let expected = format!("{len} bytes of a file of {}", self.bytes);
            return Error::corrupt(&self.path, offset, expected, format!("a file of {now}"));
        }
        Error::io("read", &self.path, error)
    }

    /// The error of a block at this offset that has no valid form.
    pub(super) fn malformed(&self, offset: u64, malformed: Malformed) -> Error {
        self.frame_error(offset, malformed.into())
    }

    /// The error of a block at this offset.
    pub(super) fn frame_error(&self, offset: u64, error: FrameError) -> Error {
        match error {
            FrameError::Corrupt { expected, found } => Error::corrupt(&self.path, offset, expected, found),
            FrameError::Unsupported(what) => {
                let path = self.path.display();
                let message = format!("{path} at offset {offset}: {what} was written by a later version");
                Error::new(ErrorKind::VersionUnsupported, message)
            }
        }
    }

    fn cache_key(&self, place: Extent) -> BlockKey {
        BlockKey { file: self.cache_id, offset: place.start }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("path", &self.path).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}
