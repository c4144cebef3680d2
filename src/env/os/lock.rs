//! The lock that keeps a second opener out: `flock` on the file, and a table of what this process holds.
//!
//! `flock` belongs to the open file, so it holds between handles of one process too; the table is for file systems
//! that turn it into a lock of the process (NFS), where closing any descriptor of the file would even give it up. So
//! the table is asked by device and inode before the file is opened.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::base::sync::{Mutex, Rank};
use crate::env::FileLock;

/// Device and inode: a file's identity.
type FileId = (u64, u64);

/// Files locked by this process.
static HELD: Mutex<BTreeSet<FileId>> = Mutex::new(Rank::Device, BTreeSet::new());

/// How often a lock file is tried again that was replaced while it was being locked.
const ATTEMPTS: usize = 8;

/// See [`FileLock`].
#[derive(Debug)]
pub(super) struct OsFileLock {
    path: PathBuf,
    file: File,
    id: FileId,
}

/// Locks a file, creating it with this mode if needed; `WouldBlock` if it is held.
pub(super) fn lock(path: &Path, mode: u32) -> io::Result<OsFileLock> {
    for _ in 0..ATTEMPTS {
        if id_of_path(path)?.is_some_and(|id| HELD.lock().contains(&id)) {
            return Err(held());
        }
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(mode).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held()),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let id = id_of_file(&file)?;
        if id_of_path(path)? != Some(id) {
            continue;
        }
        if !HELD.lock().insert(id) {
            return Err(held());
        }
        return Ok(OsFileLock { path: path.to_path_buf(), file, id });
    }
    Err(io::Error::new(io::ErrorKind::WouldBlock, "the lock file keeps being replaced"))
}

fn held() -> io::Error {
    io::Error::new(io::ErrorKind::WouldBlock, "the lock is held by another process or another handle")
}

fn id_of_file(file: &File) -> io::Result<FileId> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

fn id_of_path(path: &Path) -> io::Result<Option<FileId>> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(Some((metadata.dev(), metadata.ino()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl FileLock for OsFileLock {
    fn is_intact(&self) -> bool {
        id_of_path(&self.path).is_ok_and(|id| id == Some(self.id))
    }
}

impl Drop for OsFileLock {
    fn drop(&mut self) {
        // Explicitly, since a child process forked meanwhile shares the open file. If it fails, all that is left to
        // do is to close the file, which happens next.
        self.file.unlock().ok();
        HELD.lock().remove(&self.id);
    }
}
