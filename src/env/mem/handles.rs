//! Open files of the in-memory disk. A handle keeps its file, whatever becomes of the name, and is counted until
//! it is dropped.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::HandleKind;
use super::disk::Disk;
use super::namespace::NodeId;
use crate::base::sync::Mutex;
use crate::env::{AppendFile, FileLock, MappedFile, ReadFile};

/// The disk as its handles share it.
pub(super) type Shared = Arc<Mutex<Disk>>;

/// One use of a file.
struct Handle {
    disk: Shared,
    inode: NodeId,
    number: u64,
    path: PathBuf,
}

impl Handle {
    /// Finds or makes the file and opens it, in one step.
    fn open(
        disk: &Shared,
        path: &Path,
        kind: HandleKind,
        find: impl FnOnce(&mut Disk) -> io::Result<NodeId>,
    ) -> io::Result<Handle> {
        let mut state = disk.lock();
        let inode = find(&mut state)?;
        let number = state.opened(inode, path, kind);
        Ok(Handle { disk: disk.clone(), inode, number, path: path.to_path_buf() })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.disk.lock().closed(self.inode, self.number);
    }
}

/// A file being written.
pub(super) struct MemAppend {
    handle: Handle,
    reserved: u64,
    appended: AtomicU64,
    /// Why nothing can be appended any more.
    closed: OnceLock<(io::ErrorKind, &'static str)>,
}

impl MemAppend {
    pub(super) fn create(disk: &Shared, path: &Path, preallocate: u64) -> io::Result<MemAppend> {
        let handle = Handle::open(disk, path, HandleKind::Append, |disk| disk.create(path, preallocate))?;
        Ok(MemAppend { handle, reserved: preallocate, appended: AtomicU64::new(0), closed: OnceLock::new() })
    }
}

impl AppendFile for MemAppend {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        if let Some((kind, reason)) = self.closed.get() {
            return Err(io::Error::new(*kind, *reason));
        }
        let offset = self.len();
        self.handle.disk.lock().append(self.handle.inode, offset, bytes).inspect_err(|error| {
            self.closed.get_or_init(|| (error.kind(), "an earlier append of this file failed"));
        })?;
        self.appended.store(offset.saturating_add(bytes.len() as u64), Ordering::Release);
        Ok(())
    }

    fn len(&self) -> u64 {
        self.appended.load(Ordering::Acquire)
    }

    fn reserved(&self) -> u64 {
        self.reserved
    }

    fn sync(&self) -> io::Result<()> {
        self.handle.disk.lock().sync(self.handle.inode, self.len())
    }

    fn finish(&self) -> io::Result<()> {
        self.closed.get_or_init(|| (io::ErrorKind::Other, "append to a finished file"));
        self.handle.disk.lock().finish(self.handle.inode, self.len())
    }
}

/// A file being read.
pub(super) struct MemRead {
    handle: Handle,
}

impl MemRead {
    pub(super) fn open(disk: &Shared, path: &Path) -> io::Result<MemRead> {
        let handle = Handle::open(disk, path, HandleKind::Read, |disk| disk.names().find_file(path))?;
        Ok(MemRead { handle })
    }
}

impl ReadFile for MemRead {
    fn len(&self) -> io::Result<u64> {
        Ok(self.handle.disk.lock().inode(self.handle.inode)?.len())
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.handle.disk.lock().inode(self.handle.inode)?.read_exact_at(offset, buf)
    }

    fn map(&self, len: u64) -> io::Result<Arc<dyn MappedFile>> {
        let Handle { disk, inode, path, .. } = &self.handle;
        let handle = Handle::open(disk, path, HandleKind::Map, |disk| {
            let found = disk.inode(*inode)?.len();
            if found < len {
                let message = format!("mapping {len} bytes of a file of {found}");
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
            }
            Ok(*inode)
        })?;
        Ok(Arc::new(MemMap { handle, len, poisoned: AtomicBool::new(false) }))
    }
}

/// A mapped file.
struct MemMap {
    handle: Handle,
    len: u64,
    poisoned: AtomicBool,
}

impl MappedFile for MemMap {
    fn copy_out(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "read beyond the mapped length"));
        }
        if self.poisoned.load(Ordering::Relaxed) {
            return Err(io::Error::other("an earlier read of this mapping failed"));
        }
        let result = self.handle.disk.lock().inode(self.handle.inode)?.read_mapped(offset, buf);
        if result.is_err() {
            self.poisoned.store(true, Ordering::Relaxed);
        }
        result
    }
}

/// A held lock.
pub(super) struct MemLock {
    handle: Handle,
}

impl MemLock {
    pub(super) fn take(disk: &Shared, path: &Path) -> io::Result<MemLock> {
        let handle = Handle::open(disk, path, HandleKind::Lock, |disk| disk.lock(path))?;
        Ok(MemLock { handle })
    }
}

impl std::fmt::Debug for MemLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemLock").field("path", &self.handle.path).finish_non_exhaustive()
    }
}

impl FileLock for MemLock {
    fn is_intact(&self) -> bool {
        let disk = self.handle.disk.lock();
        disk.names().find_file(&self.handle.path).is_ok_and(|id| id == self.handle.inode)
    }
}
