//! The system calls the standard library has no door to, each as a safe function with an `io::Result`.
//!
//! Interrupted calls are repeated here, so that nobody above sees `EINTR`. What only Linux has answers `Unsupported`
//! elsewhere when the caller must know, and does nothing when it is a hint. Knows nothing of the engine.
#![expect(unsafe_code, reason = "calls into libc")]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// Repeats a call that answers -1 with `errno` until it is not interrupted.
fn repeat<N: Copy + PartialEq + From<i8>>(mut call: impl FnMut() -> N) -> io::Result<N> {
    loop {
        let answer = call();
        if answer != N::from(-1) {
            return Ok(answer);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// A count, whose width and sign differ between systems.
fn wide(count: impl TryInto<u64>) -> u64 {
    count.try_into().unwrap_or(u64::MAX)
}

/// A file position as the system takes it.
#[cfg(target_os = "linux")]
fn position<T: TryFrom<u64>>(value: u64) -> io::Result<T> {
    T::try_from(value).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "file offset out of range"))
}

/// Bytes of a memory page, a power of two.
pub(super) fn page_bytes() -> usize {
    static PAGE_BYTES: OnceLock<usize> = OnceLock::new();
    *PAGE_BYTES.get_or_init(|| {
        // SAFETY: sysconf only reads its argument.
        let answer = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        // POSIX has no system without this value; 64 KiB is a multiple of every page size in use but one.
        usize::try_from(answer).ok().filter(|bytes| bytes.is_power_of_two()).unwrap_or(64 * 1024)
    })
}

/// From here on fresh memory is asked for in large pages.
const LARGE_PAGES_FROM_BYTES: usize = 8 << 20;

/// A buffer of zeros. A large one comes from the system untouched, and in large pages where it has them: touching
/// 64 MiB for the first time in pages of 4 KiB costs as much as reading it from the page cache.
pub(super) fn zeroed(len: usize) -> Arc<[u8]> {
    let bytes = Arc::<[u8]>::new_zeroed_slice(len);
    // SAFETY: every bit pattern is a valid u8, zeros among them.
    let bytes = unsafe { bytes.assume_init() };
    if len >= LARGE_PAGES_FROM_BYTES {
        advise_large_pages(&bytes);
    }
    bytes
}

/// Asks for large pages within this memory.
#[cfg(target_os = "linux")]
fn advise_large_pages(bytes: &[u8]) {
    let skipped = bytes.as_ptr().align_offset(page_bytes());
    let Some(whole) = bytes.get(skipped..) else { return };
    // SAFETY: the range lies within one live allocation and starts at a page; the advice changes how the memory is
    // backed, never what is in it. Refusing it is no error.
    unsafe { libc::madvise(whole.as_ptr().cast_mut().cast(), whole.len(), libc::MADV_HUGEPAGE) };
}

/// A hint that other systems do not have.
#[cfg(not(target_os = "linux"))]
fn advise_large_pages(_bytes: &[u8]) {}

/// Reserves blocks for this part of the file, which becomes part of its length and reads as zeros.
///
/// Nothing is written: the blocks are marked unwritten. `Unsupported` where the file system cannot do it.
#[cfg(target_os = "linux")]
pub(super) fn reserve(file: &File, offset: u64, bytes: u64) -> io::Result<()> {
    let (offset, bytes) = (position(offset)?, position(bytes)?);
    // SAFETY: fallocate takes no pointers; the descriptor is open as long as `file` is borrowed.
    let done = repeat(|| unsafe { libc::fallocate(file.as_raw_fd(), 0, offset, bytes) });
    match done {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) => {
            Err(io::Error::new(io::ErrorKind::Unsupported, error))
        }
        Err(error) => Err(error),
    }
}

/// Elsewhere there is no reservation that does not write.
#[cfg(not(target_os = "linux"))]
pub(super) fn reserve(_file: &File, _offset: u64, _bytes: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Starts writing dirty pages of this part of the file to the device, without waiting for it.
#[cfg(target_os = "linux")]
pub(super) fn start_writeback(file: &File, offset: u64, bytes: u64) -> io::Result<()> {
    let (offset, bytes) = (position(offset)?, position(bytes)?);
    // SAFETY: sync_file_range takes no pointers.
    repeat(|| unsafe {
        libc::sync_file_range(file.as_raw_fd(), offset, bytes, libc::SYNC_FILE_RANGE_WRITE)
    })?;
    Ok(())
}

/// A hint that other systems do not have.
#[cfg(not(target_os = "linux"))]
pub(super) fn start_writeback(_file: &File, _offset: u64, _bytes: u64) -> io::Result<()> {
    Ok(())
}

/// Drops clean cached pages of this part of the file; `bytes` 0 means to its end. Best effort.
#[cfg(any(target_os = "linux", target_os = "freebsd"))]
pub(super) fn forget_pages(file: &File, offset: u64, bytes: u64) {
    let (Ok(offset), Ok(bytes)) = (offset.try_into(), bytes.try_into()) else { return };
    // SAFETY: posix_fadvise takes no pointers. Its answer is an error number of no consequence: nothing may depend
    // on pages having been dropped.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), offset, bytes, libc::POSIX_FADV_DONTNEED) };
}

/// A hint that other systems do not have.
#[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
pub(super) fn forget_pages(_file: &File, _offset: u64, _bytes: u64) {}

/// Reads some bytes at this offset; pages that had to be fetched for it do not stay in the page cache.
///
/// An error of `EOPNOTSUPP` or `EINVAL` means that kernel or file system do not know how (before Linux 6.14).
#[cfg(target_os = "linux")]
pub(super) fn read_at_uncached(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let offset = position(offset)?;
    let part = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    // SAFETY: `part` describes exactly `buf`, which is borrowed mutably during the call.
    let read = repeat(|| unsafe {
        libc::preadv2(file.as_raw_fd(), &raw const part, 1, offset, libc::RWF_DONTCACHE)
    })?;
    usize::try_from(read).map_err(io::Error::other)
}

/// Elsewhere there is no such read.
#[cfg(not(target_os = "linux"))]
pub(super) fn read_at_uncached(_file: &File, _buf: &mut [u8], _offset: u64) -> io::Result<usize> {
    Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP))
}

/// Whether writing to reserved blocks of this file system goes to these blocks: where it does not (copy on write,
/// layers, network), a reservation promises nothing to a later store into a mapping.
#[cfg(target_os = "linux")]
pub(super) fn overwrites_in_place(file: &File) -> bool {
    /// ext2, ext3, ext4; XFS; tmpfs; F2FS. (An XFS file is copied on write only while it shares blocks.)
    const IN_PLACE: [u32; 4] = [0xEF53, 0x5846_5342, 0x0102_1994, 0xF2F5_2010];
    let mut answer = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: fstatfs fills the structure it is given.
    if repeat(|| unsafe { libc::fstatfs(file.as_raw_fd(), answer.as_mut_ptr()) }).is_err() {
        return false;
    }
    // SAFETY: the call succeeded, so the structure is filled.
    let kind = unsafe { answer.assume_init() }.f_type;
    // The field's type differs between C libraries; the magic number is 32 bits in all of them.
    IN_PLACE.contains(&(kind as u32))
}

/// Elsewhere nothing is known.
#[cfg(not(target_os = "linux"))]
pub(super) fn overwrites_in_place(_file: &File) -> bool {
    false
}

/// Bytes an unprivileged process can still write to the file system of this path.
pub(super) fn available_bytes(path: &Path) -> io::Result<u64> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut answer = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path ends with NUL; statvfs fills the structure it is given.
    repeat(|| unsafe { libc::statvfs(path.as_ptr(), answer.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so the structure is filled.
    let answer = unsafe { answer.assume_init() };
    Ok(wide(answer.f_bavail).saturating_mul(wide(answer.f_frsize)))
}

/// The largest size this process may give a file (`RLIMIT_FSIZE`).
///
/// Asked before growing a file, because the kernel answers a growth beyond it with `SIGXFSZ`, whose default is to
/// kill the process, and the signal's disposition belongs to the program, not to a library.
pub(super) fn file_size_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit fills the structure it is given.
    repeat(|| unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) })?;
    if limit.rlim_cur == libc::RLIM_INFINITY {
        return Ok(u64::MAX);
    }
    Ok(wide(limit.rlim_cur))
}

/// Closes a file and hands out the system's answer, which dropping a `File` swallows.
pub(super) fn close(file: File) -> io::Result<()> {
    let descriptor = file.into_raw_fd();
    // SAFETY: `into_raw_fd` gave up ownership, so the descriptor is closed once, here. It is gone whatever the answer.
    if unsafe { libc::close(descriptor) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) }
}
