//! File mappings under the fault guard: bytes are copied in or out, never lent.
//!
//! No reference to mapped bytes is ever made, since another process can change or truncate the file at any time;
//! only raw copies, after which the guard is asked whether they meant anything. What the bytes say is checked by
//! whoever copied them (a page cut in the middle reads as zeros without any fault).
#![expect(unsafe_code, reason = "raw copies from and into shared mappings")]

use std::fs::File;
use std::io;
use std::ptr;

use memmap2::{Advice, MmapOptions, MmapRaw};

use super::guard::Registration;
use super::sys;

/// A mapping known to the guard. Fields are dropped in order: the registration first, then the mapping.
struct Region {
    registration: Registration,
    map: MmapRaw,
}

impl Region {
    /// Takes over a mapping that starts at a page of its file.
    fn new(map: MmapRaw, writable: bool) -> io::Result<Region> {
        let bytes =
            map.len().max(1).checked_next_multiple_of(sys::page_bytes()).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: the kernel maps whole pages, beginning where `map` begins because its file offset is a multiple of
        // the page size (an empty one has one page). The mapping is ours until `map` is dropped, which is after the
        // registration is; the two types below only copy from or to it and look at the poison flag afterwards.
        let registration = unsafe { Registration::new(map.as_ptr() as usize, bytes, writable)? };
        Ok(Region { registration, map })
    }

    /// Address of this part of the mapping, if it has one of this length there.
    #[inline]
    fn address(&self, offset: usize, bytes: usize) -> Option<*mut u8> {
        let end = offset.checked_add(bytes)?;
        if end > self.map.len() {
            return None;
        }
        Some(self.map.as_mut_ptr().wrapping_add(offset))
    }
}

/// The beginning of a file, mapped for reading.
pub(super) struct ReadMap(Region);

impl ReadMap {
    /// Maps the first `bytes` of a file. Reads around a touched page are switched off.
    pub(super) fn new(file: &File, bytes: usize) -> io::Result<ReadMap> {
        let map = MmapOptions::new().len(bytes).map_raw_read_only(file)?;
        // Only a hint: without it, reads from the device are larger than needed.
        map.advise(Advice::Random).ok();
        Ok(ReadMap(Region::new(map, false)?))
    }

    /// Copies bytes out. After an error the buffer's content means nothing.
    #[inline]
    pub(super) fn load(&self, offset: usize, buf: &mut [u8]) -> io::Result<()> {
        let from = self
            .0
            .address(offset, buf.len())
            .ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "read beyond the mapped length"))?;
        // SAFETY: `from` is the start of `buf.len()` bytes that are mapped readable as long as `self` is borrowed; a
        // page among them that cannot be brought in is replaced by zeros by the guard. `buf` is ours alone and no
        // reference to the mapped bytes exists. Bytes that another process changes during the copy come out as
        // either version: any byte is a valid `u8`, and nothing else is read through this pointer.
        unsafe { ptr::copy_nonoverlapping(from.cast_const(), buf.as_mut_ptr(), buf.len()) };
        if self.0.registration.is_poisoned() {
            return Err(io::Error::other(
                "a page of the mapped file could not be read (truncated file or media error)",
            ));
        }
        Ok(())
    }
}

/// Why a window for writing could not be had.
pub(super) enum WindowError {
    /// Mapping does not work here; plain writes may.
    Unavailable,
    /// The pages cannot be brought in: a store would have faulted.
    Fault(io::Error),
}

/// A part of a file, mapped for writing, its pages present and their blocks allocated.
pub(super) struct WriteMap(Region);

impl WriteMap {
    /// Maps a part of a file that is at least that long. `offset` is a multiple of the page size.
    pub(super) fn new(file: &File, offset: u64, bytes: usize) -> Result<WriteMap, WindowError> {
        let map = MmapOptions::new()
            .offset(offset)
            .len(bytes)
            .map_raw(file)
            .map_err(|_| WindowError::Unavailable)?;
        // Without reads around each page: they would bring in large pages, of which one byte dirties all.
        map.advise(Advice::Random).map_err(|_| WindowError::Unavailable)?;
        let region = Region::new(map, true).map_err(|_| WindowError::Unavailable)?;
        prefault(&region.map)?;
        Ok(WriteMap(region))
    }

    /// Copies bytes in. `Unavailable` if they do not fit, `Fault` if the guard has had to put zeros in place of the file.
    #[inline]
    pub(super) fn store(&mut self, offset: usize, bytes: &[u8]) -> Result<(), WindowError> {
        let to = self.0.address(offset, bytes.len()).ok_or(WindowError::Unavailable)?;
        // SAFETY: `to` is the start of `bytes.len()` bytes that are mapped writable as long as `self` is borrowed,
        // mutably, so no other thread of ours copies to them; a page that cannot be brought in is replaced by private
        // memory by the guard. No reference to the mapped bytes exists, so `bytes` cannot overlap them.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        if self.0.registration.is_poisoned() {
            return Err(WindowError::Fault(io::Error::other(
                "a store into the file's mapped window failed (truncated file, full disk or media error)",
            )));
        }
        Ok(())
    }

    /// Bytes of the window.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.0.map.len()
    }
}

/// Brings in all pages for writing, with errors instead of signals.
#[cfg(target_os = "linux")]
fn prefault(map: &MmapRaw) -> Result<(), WindowError> {
    map.advise(Advice::PopulateWrite).map_err(|error| match error.raw_os_error() {
        Some(libc::EFAULT | libc::EHWPOISON | libc::EIO) => WindowError::Fault(error),
        // Among others EINVAL, before Linux 5.14.
        _ => WindowError::Unavailable,
    })
}

/// Elsewhere a page that cannot be had would only show at the store.
#[cfg(not(target_os = "linux"))]
fn prefault(_map: &MmapRaw) -> Result<(), WindowError> {
    Err(WindowError::Unavailable)
}
