//! A file being read: by position, around the page cache, or through a mapping.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::env::{MappedFile, ReadFile};

use super::region::ReadMap;
use super::sys;

/// See [`ReadFile`].
pub(super) struct OsReadFile {
    file: File,
    mapping: bool,
    /// Whether kernel and file system may know reads that leave the page cache alone; until the first refusal.
    uncached: AtomicBool,
}

impl OsReadFile {
    /// Takes over a file opened for reading. Without `mapping`, `map` is refused.
    pub(super) fn new(file: File, mapping: bool) -> OsReadFile {
        OsReadFile { file, mapping, uncached: AtomicBool::new(true) }
    }

    /// Reads some bytes without leaving them in the page cache; `None` if that is not to be had here.
    fn read_some_uncached(&self, buf: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        match sys::read_at_uncached(&self.file, buf, offset) {
            Ok(count) => Ok(Some(count)),
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ENOSYS)) =>
            {
                self.uncached.store(false, Ordering::Relaxed);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl ReadFile for OsReadFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn buffer(&self, len: usize) -> Arc<[u8]> {
        sys::zeroed(len)
    }

    fn read_exact_at_uncached(&self, mut offset: u64, mut buf: &mut [u8]) -> io::Result<()> {
        while !buf.is_empty() && self.uncached.load(Ordering::Relaxed) {
            let Some(count) = self.read_some_uncached(buf, offset)? else { break };
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            buf = buf.get_mut(count..).unwrap_or_default();
            offset = offset.saturating_add(count as u64);
        }
        self.read_exact_at(offset, buf)
    }

    fn map(&self, len: u64) -> io::Result<Arc<dyn MappedFile>> {
        if !self.mapping {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "mapping files is switched off"));
        }
        if self.len()? < len {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file is shorter than what is to be mapped",
            ));
        }
        let bytes = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        Ok(Arc::new(OsMappedFile(ReadMap::new(&self.file, bytes)?)))
    }
}

/// See [`MappedFile`].
struct OsMappedFile(ReadMap);

impl MappedFile for OsMappedFile {
    #[inline]
    fn copy_out(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.load(usize::try_from(offset).unwrap_or(usize::MAX), buf)
    }
}
