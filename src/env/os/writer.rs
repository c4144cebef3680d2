//! How appended bytes get into a file: through a mapped window where that works, by plain writes otherwise.
//!
//! A mapped file is reserved on disk ahead of its end (`fallocate`: unwritten blocks, never zeros written by us) and
//! written through a window of [`WINDOW_BYTES`] that slides along: mapped, its pages brought in, filled by copies
//! without a system call, unmapped. What was copied is in the page cache, exactly as after `write(2)`. Small windows,
//! because whoever needs the next one waits for it, and because every page brought in is dirty and goes to the device
//! with the next sync. Pages of a window cost about 4 µs each, so they are always used up; but a large append that
//! needs more does it by a plain write, which takes them in bulk. Whenever mapping is not to be had (file system,
//! kernel, limits), the file goes on with plain writes; only a fault under the window is an error.
//!
//! Knows nothing of syncing; one thread at a time.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::region::{WindowError, WriteMap};
use super::sys;

/// Bytes of the file mapped at a time.
pub(super) const WINDOW_BYTES: u64 = 128 * 1024;

/// So many bytes beyond the window are written plainly rather than through a new one.
pub(super) const DIRECT_BYTES: usize = 4096;

/// Bytes by which a reservation grows when it proves too small.
pub(super) const GROWTH_BYTES: u64 = 1024 * 1024;

/// The limit on file sizes is asked for again after so many bytes: a program may lower it while files grow.
const LIMIT_RECHECK_BYTES: u64 = 1024 * 1024;

/// The mapped part of the file.
struct Window {
    map: WriteMap,
    /// File offset of its first byte.
    start: u64,
}

impl Window {
    /// Copies as much as fits at this file offset and says how much that was: 0 if the offset is not in the window.
    #[inline]
    fn store(&mut self, at: u64, bytes: &[u8]) -> Result<usize, WindowError> {
        let Some(offset) = at.checked_sub(self.start).and_then(|offset| usize::try_from(offset).ok()) else {
            return Ok(0);
        };
        let room = self.map.len().saturating_sub(offset).min(bytes.len());
        let Some(part) = bytes.get(..room).filter(|part| !part.is_empty()) else { return Ok(0) };
        self.map.store(offset, part)?;
        Ok(room)
    }
}

/// The writing end of a file.
pub(super) struct Writer {
    /// Bytes appended.
    len: u64,
    /// The file's length in the file system as far as it was reserved; 0 if it was not.
    reserved: u64,
    /// Whether to write through a window.
    mapped: bool,
    window: Option<Window>,
    /// Whether a store failed.
    poisoned: bool,
    /// Up to where growing the file is known not to exceed the process's limit.
    allowed: u64,
}

impl Writer {
    /// Reserves space in a new file and maps the first window. A full disk is an error here, before any use; a file
    /// system that cannot reserve is not.
    pub(super) fn new(file: &File, preallocate: u64, mapped: bool) -> io::Result<Writer> {
        let mut writer = Writer { len: 0, reserved: 0, mapped, window: None, poisoned: false, allowed: 0 };
        if preallocate > 0
            && let Err(error) = writer.reserve(file, preallocate)
        {
            if error.kind() != io::ErrorKind::Unsupported {
                return Err(error);
            }
            writer.mapped = false;
        }
        writer.mapped = writer.mapped && sys::overwrites_in_place(file);
        if writer.mapped {
            writer.slide(file, 0)?;
        }
        Ok(writer)
    }

    /// Bytes appended so far.
    #[inline]
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The file's length in the file system as far as it was reserved.
    pub(super) fn reserved(&self) -> u64 {
        self.reserved
    }

    /// Whether a store into a window failed.
    pub(super) fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// Whether appending goes through a window.
    pub(super) fn is_mapped(&self) -> bool {
        self.mapped
    }

    /// Adds bytes at the end. After an error the length is as before, and bytes may stand behind it.
    #[inline]
    pub(super) fn append(&mut self, file: &File, bytes: &[u8]) -> io::Result<()> {
        let end = self.end_after(bytes)?;
        let stored = match &mut self.window {
            Some(window) => window.store(self.len, bytes),
            None => Ok(0),
        };
        match stored {
            Ok(count) if count == bytes.len() => {}
            Ok(count) => self.append_rest(file, bytes, count)?,
            Err(error) => return Err(self.fault(error)),
        }
        self.len = end;
        Ok(())
    }

    /// Writes `bytes[done..]` where they belong, past the window that holds what comes before.
    #[cold]
    fn append_rest(&mut self, file: &File, bytes: &[u8], mut done: usize) -> io::Result<()> {
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            let at = self.len.saturating_add(done as u64);
            self.window = None;
            if self.mapped && rest.len() < DIRECT_BYTES {
                self.slide(file, at)?;
            }
            let Some(window) = &mut self.window else {
                self.allow(at.saturating_add(rest.len() as u64))?;
                return file.write_all_at(rest, at);
            };
            match window.store(at, rest) {
                Ok(count) => done = done.saturating_add(count),
                Err(error) => return Err(self.fault(error)),
            }
        }
        Ok(())
    }

    /// Maps the window that begins at the page of this offset, in place of none, or goes over to plain writes.
    fn slide(&mut self, file: &File, at: u64) -> io::Result<()> {
        if at >= self.reserved && self.reserve(file, at.saturating_add(GROWTH_BYTES)).is_err() {
            // If it is for want of space, the plain write will say so, or will still find room for these few bytes.
            self.mapped = false;
            return Ok(());
        }
        let start = at & !(sys::page_bytes() as u64).wrapping_sub(1);
        let bytes = WINDOW_BYTES.min(self.reserved.saturating_sub(start));
        let bytes = usize::try_from(bytes).map_err(io::Error::other)?;
        match WriteMap::new(file, start, bytes) {
            Ok(map) => self.window = Some(Window { map, start }),
            Err(WindowError::Unavailable) => self.mapped = false,
            Err(error) => return Err(self.fault(error)),
        }
        Ok(())
    }

    /// Extends the file by reserved blocks up to this length.
    fn reserve(&mut self, file: &File, upto: u64) -> io::Result<()> {
        self.allow(upto)?;
        sys::reserve(file, self.reserved, upto.saturating_sub(self.reserved))?;
        self.reserved = upto;
        Ok(())
    }

    /// Checks that the process may let the file grow to this length; the kernel would kill it otherwise.
    fn allow(&mut self, upto: u64) -> io::Result<()> {
        if upto <= self.allowed {
            return Ok(());
        }
        let limit = sys::file_size_limit()?;
        if upto > limit {
            return Err(io::Error::from_raw_os_error(libc::EFBIG));
        }
        self.allowed = limit.min(upto.saturating_add(LIMIT_RECHECK_BYTES));
        Ok(())
    }

    fn end_after(&self, bytes: &[u8]) -> io::Result<u64> {
        self.len.checked_add(bytes.len() as u64).ok_or_else(|| io::Error::from_raw_os_error(libc::EFBIG))
    }

    fn fault(&mut self, error: WindowError) -> io::Error {
        self.poisoned = true;
        match error {
            WindowError::Fault(error) => error,
            WindowError::Unavailable => io::Error::other("a store outside of the file's mapped window"),
        }
    }

    /// Ends writing: unmaps, cuts the file to the appended length, and sees to it that it has exactly that.
    pub(super) fn finish(&mut self, file: &File) -> io::Result<()> {
        self.window = None;
        self.mapped = false;
        let found = file.metadata()?.len();
        let expected = self.len.max(self.reserved);
        if found < expected {
            return Err(length_changed(expected, found));
        }
        if found > self.len {
            file.set_len(self.len)?;
            self.reserved = 0;
            let found = file.metadata()?.len();
            if found != self.len {
                return Err(length_changed(self.len, found));
            }
        }
        // Some file systems keep what went wrong for the call that closes: let one close now.
        sys::close(file.try_clone()?)
    }
}

/// The error of a file that is not as long as it was made.
pub(super) fn length_changed(expected: u64, found: u64) -> io::Error {
    io::Error::other(format!("the file has {found} bytes instead of {expected}: it was changed from outside"))
}
