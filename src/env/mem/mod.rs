//! A file system in memory that forgets what a disk may forget.
//!
//! The rules are in the documentation of [`MemFs`], where the users of the crate find them.

mod content;
mod disk;
mod handles;
mod inode;
mod namespace;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::disk::Disk;
use self::handles::{MemAppend, MemLock, MemRead, Shared};
use super::{AppendFile, AppendOptions, DirEntry, FileLock, Fs, ReadFile};
use crate::base::sync::{Mutex, Rank};

/// What a crash does to what is not durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CrashMode {
    /// The process dies, the operating system does not: everything written is there, and what was not synced is still
    /// not durable.
    ProcessKill,
    /// The power fails and nothing survives that was not synced.
    SyncedOnly,
    /// The power fails; of what was not synced, each file keeps the first so many bytes it was given and each
    /// directory its first so many operations.
    PerFilePrefix,
    /// The power fails; of what was not synced, any subset of sectors, lengths and operations survives.
    Random,
    /// As `Random`, and sectors that were being written may be torn or hold garbage.
    Torn,
}

impl CrashMode {
    /// Every mode.
    pub const ALL: [CrashMode; 5] = [
        CrashMode::ProcessKill,
        CrashMode::SyncedOnly,
        CrashMode::PerFilePrefix,
        CrashMode::Random,
        CrashMode::Torn,
    ];
}

/// What a handle is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HandleKind {
    /// Writing.
    Append,
    /// Reading.
    Read,
    /// A mapping.
    Map,
    /// A lock.
    Lock,
}

/// A handle that was not dropped yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenHandle {
    /// The name under which the file was opened.
    pub path: PathBuf,
    /// What it is for.
    pub kind: HandleKind,
}

/// A file system in memory with simulated crashes.
///
/// Absolute and relative paths mean the same: the working directory is the root, which always exists.
///
/// ```
/// use esker::env::{AppendOptions, CrashMode, Fs, MemFs};
/// use std::path::Path;
///
/// let disk = MemFs::new();
/// let file = disk.create(Path::new("/a"), AppendOptions::default())?;
/// file.append(b"kept")?;
/// file.sync()?;
/// disk.sync_dir(Path::new("/"))?;
/// file.append(b", lost")?;
///
/// let after = disk.crash_clone(7, CrashMode::SyncedOnly);
/// assert_eq!(after.read_file(Path::new("/a"))?, b"kept");
/// assert_eq!(disk.read_file(Path::new("/a"))?, b"kept, lost");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # The model
///
/// The disk has a *visible* state, which every open handle and every call sees, and a *durable* one. Between the two
/// stand pending bytes, pending lengths and pending directory operations. [`MemFs::crash_clone`] decides what became of
/// the pending part and answers the disk as the next process finds it. Every durability test leans on these rules:
///
/// **Content.**
/// 1. Appended bytes are pending until a sync of their file ([`AppendFile::sync`] or [`Fs::sync_file`]) succeeds.
///    A sync covers what was appended before it began.
/// 2. At a power cut each 512-byte sector is kept or lost on its own, in any order. A lost sector has its old bytes:
///    zeros where nothing was durable before. In [`CrashMode::Torn`] it may also be half old and half new, or garbage.
/// 3. Bytes that were not being written never change: synced bytes survive even in a torn sector ("powersafe
///    overwrite").
/// 4. The length is pending on its own, between that of the last sync and the greatest since: the file may end before
///    the bytes that were kept (length lost), or after bytes that were lost (length grew, data zeros).
/// 5. A preallocated file has its reserved length at once, tail reading as zeros, in listings and for readers; this
///    length is pending like any other. [`AppendFile::finish`] cuts the tail, which is pending too.
/// 6. After the power cut everything found is durable.
///
/// **Names.**
/// 1. A creation, rename or removal is pending until [`Fs::sync_dir`] of its directory succeeds. Syncing a file's
///    content does not cover its name; syncing a name does not cover the content.
/// 2. At a power cut each pending operation is kept or lost on its own; those that are kept take effect in their
///    order. A rename is atomic: both names change or none does, so the new name leads to its old or its new file.
/// 3. A rename from one directory to another is one operation of both: syncing either makes durable what is pending
///    in both.
/// 4. A new directory is an entry of the one above. If that entry is lost, so is everything below.
/// 5. A file whose last name is removed lives on for its open handles, and for crashes that lose the removal.
///
/// **Process death.** In [`CrashMode::ProcessKill`] the operating system lives on: the next process sees everything
/// that was written, and what was pending is still pending. Whoever acts on it before syncing it loses it to a power
/// cut.
///
/// **A failed sync** ([`MemFs::fail_sync_at`]) behaves as measured on Linux (ext4, XFS): the pages are taken for clean.
/// The bytes stay visible, no later sync writes them, and [`Fs::drop_cache`] brings back what is on the device, zeros.
/// A power cut before that may find them written or not.
///
/// **Crash points.** Every call that changes the disk counts as a mutation: create, append, sync, rename, remove,
/// `sync_dir`, `sync_file`, a `create_dir_all` that creates, a `finish` that cuts, a `lock` that creates. After
/// [`MemFs::freeze_at`]`(n)` the power fails in the `n`th: an append is carried out for a part of its bytes, anything
/// else not at all, and every mutation from there on fails. Running a workload for n = 1, 2, … until it is no longer
/// interrupted visits every crash point.
///
/// **Determinism.** The same calls and the same seed give the same disk, byte for byte.
///
/// Not modelled: permissions, access times, hard links, removal of directories.
pub struct MemFs {
    disk: Shared,
}

impl Default for MemFs {
    fn default() -> MemFs {
        MemFs::new()
    }
}

impl fmt::Debug for MemFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemFs").field("files", &self.list_files()).finish_non_exhaustive()
    }
}

impl MemFs {
    /// An empty disk without a limit.
    pub fn new() -> MemFs {
        MemFs::from_disk(Disk::new())
    }

    fn from_disk(disk: Disk) -> MemFs {
        MemFs { disk: Arc::new(Mutex::new(Rank::Device, disk)) }
    }

    /// The disk after a crash at this moment: a file system of its own, without handles, locks, counts and pending
    /// faults, with the same capacity. This one goes on as if nothing had happened.
    ///
    /// Cheap: pages are shared until one side writes them.
    pub fn crash_clone(&self, seed: u64, mode: CrashMode) -> MemFs {
        MemFs::from_disk(self.disk.lock().crashed(seed, mode))
    }

    /// Mutations so far, those that failed for other reasons than a failed power included.
    pub fn mutations(&self) -> u64 {
        self.disk.lock().mutations()
    }

    /// Lets the power fail in the `n`th mutation from now (1 is the next one): it is carried out in part or not at
    /// all and fails, and so does every later one, until [`thaw`](MemFs::thaw). Reads go on.
    pub fn freeze_at(&self, n: u64) {
        self.disk.lock().freeze_at(n);
    }

    /// Ends or takes back a [`freeze_at`](MemFs::freeze_at).
    pub fn thaw(&self) {
        self.disk.lock().thaw();
    }

    /// Whether the power has failed.
    pub fn is_frozen(&self) -> bool {
        self.disk.lock().is_frozen()
    }

    /// Lets the `n`th sync of a file's content from now fail (1 is the next one), once, with the pages taken for
    /// clean: the unsynced bytes stay visible and are never written. Later syncs succeed, also on the same handle, as
    /// the system's would ([`OsFs`](super::OsFs) keeps the error): who tries again is found out. A failing `sync_dir`
    /// needs no model of its own; see [`FaultFs`](super::FaultFs).
    pub fn fail_sync_at(&self, n: u64) {
        self.disk.lock().fail_sync_at(n);
    }

    /// Limits the bytes of all files, reserved tails included; `None` for no limit. What does not fit fails with
    /// `StorageFull`, an append after writing what fits. A limit below what is used is allowed: then nothing fits.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk.lock().set_capacity(bytes);
    }

    /// Bytes of all files that have a name or an open handle.
    pub fn used_bytes(&self) -> u64 {
        self.disk.lock().used_bytes()
    }

    /// Handles that were not dropped yet, oldest first.
    pub fn open_handles(&self) -> Vec<OpenHandle> {
        self.disk.lock().handles()
    }

    /// Paths of all files, sorted; directories are not listed.
    pub fn list_files(&self) -> Vec<PathBuf> {
        self.disk.lock().names().files().into_iter().map(|(path, _)| path).collect()
    }

    /// Whether a power cut now would leave this file as it is visible, bytes, length and name.
    pub fn is_durable(&self, path: &Path) -> io::Result<bool> {
        let disk = self.disk.lock();
        Ok(disk.names().is_durable(path)? && disk.inode_of(path)?.is_durable())
    }

    /// The visible bytes of a file.
    pub fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        let disk = self.disk.lock();
        let inode = disk.inode_of(path)?;
        let mut bytes = vec![0; usize::try_from(inode.len()).unwrap_or(usize::MAX)];
        inode.read_exact_at(0, &mut bytes)?;
        Ok(bytes)
    }

    /// Puts a file with these bytes in the place of this name, with the directories above it, as another process
    /// would: durable at once, not counted, and unseen by handles of a file that had the name before.
    pub fn write_file(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.disk.lock().put_file(path, bytes)
    }

    /// Removes a file behind the engine's back: durable at once, not counted. Open handles stay readable.
    pub fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.lock().take_file(path)
    }

    /// Gives a file another length in place: durable at once, not counted, seen by open handles. A longer file ends
    /// in zeros.
    pub fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        self.disk.lock().set_len(path, len)
    }

    /// Flips the bits of `mask` in one byte of a file in place: durable at once if the byte is, not counted, seen by
    /// open handles and mappings.
    pub fn flip(&self, path: &Path, offset: u64, mask: u8) -> io::Result<()> {
        self.disk.lock().flip(path, offset, mask)
    }
}

impl Fs for MemFs {
    fn create(&self, path: &Path, options: AppendOptions) -> io::Result<Arc<dyn AppendFile>> {
        Ok(Arc::new(MemAppend::create(&self.disk, path, options.preallocate)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadFile>> {
        Ok(Arc::new(MemRead::open(&self.disk, path)?))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<PathBuf> {
        self.disk.lock().create_dir_all(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        match self.disk.lock().names().find(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk.lock().list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.lock().rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.lock().remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.lock().sync_dir(dir)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        self.disk.lock().sync_file(path)
    }

    fn drop_cache(&self, path: &Path) {
        self.disk.lock().drop_cache(path);
    }

    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        let disk = self.disk.lock();
        disk.names().find_dir(dir)?;
        Ok(disk.free_bytes())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        Ok(Box::new(MemLock::take(&self.disk, path)?))
    }
}
