//! The in-memory disk behind one lock: tree of names, files, capacity, the count of mutations and the faults hung on
//! it. Every operation of the file system and of its handles ends here.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::inode::{Inode, LEN_MAX};
use super::namespace::{Namespace, Node, NodeId};
use super::{CrashMode, HandleKind, OpenHandle};
use crate::base::random::SplitMix64;
use crate::env::DirEntry;

/// What a disk without a limit reports as free.
const UNLIMITED_BYTES: u64 = 1 << 50;

/// The state of one disk.
#[derive(Debug)]
pub(super) struct Disk {
    names: Namespace,
    inodes: BTreeMap<NodeId, Inode>,
    handles: BTreeMap<u64, OpenHandle>,
    next_handle: u64,
    capacity_bytes: Option<u64>,
    mutations: u64,
    /// The mutation in which the power fails.
    freeze_at: Option<u64>,
    /// Counts down to the file sync that fails.
    syncs_to_failure: Option<u64>,
}

/// What becomes of a mutating operation.
enum Turn {
    Do,
    /// The power fails while it is carried out.
    Interrupted,
    Refused,
}

fn frozen() -> io::Error {
    io::Error::other("the simulated power has failed")
}

impl Disk {
    pub(super) fn new() -> Disk {
        Disk {
            names: Namespace::new(),
            inodes: BTreeMap::new(),
            handles: BTreeMap::new(),
            next_handle: 0,
            capacity_bytes: None,
            mutations: 0,
            freeze_at: None,
            syncs_to_failure: None,
        }
    }

    /// The disk after a crash at this moment, with nobody using it.
    pub(super) fn crashed(&self, seed: u64, mode: CrashMode) -> Disk {
        let mut random = SplitMix64::new(seed);
        let mut names = self.names.clone();
        names.crash(mode, &mut random);
        let kept = names.files_of_crashes();
        let mut inodes = BTreeMap::new();
        for id in kept {
            if let Some(inode) = self.inodes.get(&id) {
                inodes.insert(id, inode.crashed(mode, &mut random));
            }
        }
        for (_, id) in names.files() {
            if let Some(inode) = inodes.get_mut(&id) {
                inode.links = inode.links.saturating_add(1);
            }
        }
        Disk { names, inodes, capacity_bytes: self.capacity_bytes, ..Disk::new() }
    }

    // ---- Mutations, counted and refused after the power failed ----

    fn turn(&mut self) -> Turn {
        if self.is_frozen() {
            return Turn::Refused;
        }
        self.mutations = self.mutations.saturating_add(1);
        if self.is_frozen() { Turn::Interrupted } else { Turn::Do }
    }

    /// Lets a mutation through that is carried out whole or not at all.
    fn mutate(&mut self) -> io::Result<()> {
        match self.turn() {
            Turn::Do => Ok(()),
            Turn::Interrupted | Turn::Refused => Err(frozen()),
        }
    }

    pub(super) fn mutations(&self) -> u64 {
        self.mutations
    }

    /// The power fails in the `n`th mutation from now.
    pub(super) fn freeze_at(&mut self, n: u64) {
        self.freeze_at = Some(self.mutations.saturating_add(n.max(1)));
    }

    pub(super) fn thaw(&mut self) {
        self.freeze_at = None;
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.freeze_at.is_some_and(|at| self.mutations >= at)
    }

    /// The `n`th file sync from now fails.
    pub(super) fn fail_sync_at(&mut self, n: u64) {
        self.syncs_to_failure = Some(n.max(1));
    }

    pub(super) fn create(&mut self, path: &Path, preallocate: u64) -> io::Result<NodeId> {
        self.mutate()?;
        let (place, found) = self.names.place(path)?;
        if found.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if preallocate > self.free_bytes() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        check_len(preallocate)?;
        let id = self.names.next_id();
        self.inodes.insert(id, Inode::reserved(preallocate));
        self.names.set(place, Some(Node::File(id)));
        Ok(id)
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<PathBuf> {
        let mut existing = path;
        let mut missing = Vec::new();
        while self.names.find(existing).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            missing.push(existing);
            existing = existing.parent().unwrap_or(Path::new(""));
        }
        self.names.find_dir(existing)?;
        if !missing.is_empty() {
            self.mutate()?;
        }
        for path in missing.into_iter().rev() {
            let (place, found) = self.names.place(path)?;
            if found.is_none() {
                self.names.make_dir(place);
            }
        }
        Ok(if existing.as_os_str().is_empty() { PathBuf::from(".") } else { existing.to_path_buf() })
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.mutate()?;
        let id = self.names.find_file(from)?;
        let (source, _) = self.names.place(from)?;
        let (target, replaced) = self.names.place(to)?;
        match replaced {
            Some(Node::Dir(_)) => return Err(io::ErrorKind::IsADirectory.into()),
            Some(Node::File(same)) if same == id => return Ok(()),
            Some(Node::File(old)) => self.unlink(old),
            None => {}
        }
        self.names.rename(source, target, Node::File(id));
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.mutate()?;
        let id = self.names.find_file(path)?;
        let (place, _) = self.names.place(path)?;
        self.names.set(place, None);
        self.unlink(id);
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        self.mutate()?;
        let dir = self.names.find_dir(path)?;
        self.names.sync(dir);
        self.sweep();
        Ok(())
    }

    pub(super) fn sync_file(&mut self, path: &Path) -> io::Result<()> {
        let id = self.names.find_file(path)?;
        self.sync(id, 0)
    }

    /// Syncs a file that must have at least this length.
    pub(super) fn sync(&mut self, id: NodeId, len: u64) -> io::Result<()> {
        self.mutate()?;
        self.syncs_to_failure = self.syncs_to_failure.map(|left| left.saturating_sub(1));
        let fails = self.syncs_to_failure == Some(0);
        let inode = self.inode_mut(id)?;
        if fails {
            inode.sync_in_vain();
            self.syncs_to_failure = None;
            return Err(io::Error::other("simulated write-back error"));
        }
        inode.sync();
        check_written(len, inode.len())
    }

    /// Writes at this offset. When space or power ends on the way, what came before is written.
    pub(super) fn append(&mut self, id: NodeId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let turn = self.turn();
        let room = self.room(id, offset)?;
        let len = bytes.len() as u64;
        let (written, result) = match turn {
            Turn::Refused => (0, Err(frozen())),
            Turn::Interrupted => (self.interruption(len).min(room), Err(frozen())),
            Turn::Do if room < len => (room, Err(io::ErrorKind::StorageFull.into())),
            Turn::Do => (len, Ok(())),
        };
        let written = usize::try_from(written).unwrap_or(usize::MAX);
        let inode = self.inode_mut(id)?;
        inode.write(offset, bytes.get(..written).unwrap_or(bytes));
        result
    }

    /// How many bytes of an interrupted append are written: any number, always the same for the same run.
    fn interruption(&self, len: u64) -> u64 {
        SplitMix64::new(self.mutations).below(len.saturating_add(1))
    }

    /// Bytes that can be written into the file from this offset.
    fn room(&self, id: NodeId, offset: u64) -> io::Result<u64> {
        let reserved = self.inode(id)?.len().saturating_sub(offset);
        Ok(reserved.saturating_add(self.free_bytes()).min(LEN_MAX.saturating_sub(offset)))
    }

    /// Gives back the reserved tail.
    pub(super) fn finish(&mut self, id: NodeId, len: u64) -> io::Result<()> {
        let found = self.inode(id)?.len();
        check_written(len, found)?;
        if found > len {
            self.mutate()?;
            self.inode_mut(id)?.cut(len);
        }
        Ok(())
    }

    /// Opens the lock file, made if it is missing, and locks it.
    pub(super) fn lock(&mut self, path: &Path) -> io::Result<NodeId> {
        let id = match self.names.find_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.create(path, 0)?,
            found => found?,
        };
        let inode = self.inode_mut(id)?;
        if inode.locked {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        inode.locked = true;
        Ok(id)
    }

    // ---- Looking ----

    pub(super) fn names(&self) -> &Namespace {
        &self.names
    }

    pub(super) fn inode(&self, id: NodeId) -> io::Result<&Inode> {
        self.inodes.get(&id).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn inode_mut(&mut self, id: NodeId) -> io::Result<&mut Inode> {
        self.inodes.get_mut(&id).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn inode_of(&self, path: &Path) -> io::Result<&Inode> {
        self.inode(self.names.find_file(path)?)
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let dir = self.names.find_dir(path)?;
        let entry = |(name, node): (&Arc<str>, Node)| {
            let (len, is_dir) = match node {
                Node::File(id) => (self.inodes.get(&id).map_or(0, Inode::len), false),
                Node::Dir(_) => (0, true),
            };
            DirEntry { name: name.to_string(), len, is_dir }
        };
        Ok(self.names.entries(dir).map(entry).collect())
    }

    pub(super) fn drop_cache(&mut self, path: &Path) {
        if let Ok(inode) = self.names.find_file(path).and_then(|id| self.inode_mut(id)) {
            inode.drop_cache();
        }
    }

    pub(super) fn set_capacity(&mut self, bytes: Option<u64>) {
        self.capacity_bytes = bytes;
    }

    pub(super) fn used_bytes(&self) -> u64 {
        let in_use = self.inodes.values().filter(|inode| inode.is_in_use());
        in_use.map(Inode::len).fold(0, u64::saturating_add)
    }

    pub(super) fn free_bytes(&self) -> u64 {
        self.capacity_bytes.map_or(UNLIMITED_BYTES, |capacity| capacity.saturating_sub(self.used_bytes()))
    }

    // ---- Handles ----

    pub(super) fn opened(&mut self, id: NodeId, path: &Path, kind: HandleKind) -> u64 {
        let handle = self.next_handle;
        self.next_handle = handle.saturating_add(1);
        self.handles.insert(handle, OpenHandle { path: path.to_path_buf(), kind });
        if let Some(inode) = self.inodes.get_mut(&id) {
            inode.opens = inode.opens.saturating_add(1);
        }
        handle
    }

    pub(super) fn closed(&mut self, id: NodeId, handle: u64) {
        let kind = self.handles.remove(&handle).map(|handle| handle.kind);
        if let Some(inode) = self.inodes.get_mut(&id) {
            inode.opens = inode.opens.saturating_sub(1);
            if kind == Some(HandleKind::Lock) {
                inode.locked = false;
            }
            if !inode.is_in_use() {
                self.sweep();
            }
        }
    }

    pub(super) fn handles(&self) -> Vec<OpenHandle> {
        self.handles.values().cloned().collect()
    }

    fn unlink(&mut self, id: NodeId) {
        if let Some(inode) = self.inodes.get_mut(&id) {
            inode.links = inode.links.saturating_sub(1);
        }
    }

    /// Forgets files that nobody can reach, neither now nor after any crash.
    fn sweep(&mut self) {
        if self.inodes.values().all(Inode::is_in_use) {
            return;
        }
        let kept = self.names.files_of_crashes();
        self.inodes.retain(|id, inode| inode.is_in_use() || kept.contains(id));
    }

    // ---- What a test does behind the engine's back: not counted, not refused, durable at once ----

    pub(super) fn put_file(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.make_dirs_durably(path.parent().unwrap_or(Path::new("")))?;
        let (place, found) = self.names.place(path)?;
        match found {
            Some(Node::Dir(_)) => return Err(io::ErrorKind::IsADirectory.into()),
            Some(Node::File(old)) => self.unlink(old),
            None => {}
        }
        let id = self.names.next_id();
        self.inodes.insert(id, Inode::durable(bytes));
        self.names.set_durably(place, Some(Node::File(id)));
        self.sweep();
        Ok(())
    }

    fn make_dirs_durably(&mut self, path: &Path) -> io::Result<()> {
        let mut dirs: Vec<&Path> = path.ancestors().collect();
        dirs.reverse();
        for dir in dirs {
            if let Ok((place, None)) = self.names.place(dir) {
                self.names.make_dir_durably(place);
            }
        }
        self.names.find_dir(path).map(|_| ())
    }

    pub(super) fn take_file(&mut self, path: &Path) -> io::Result<()> {
        let id = self.names.find_file(path)?;
        let (place, _) = self.names.place(path)?;
        self.names.set_durably(place, None);
        self.unlink(id);
        self.sweep();
        Ok(())
    }

    pub(super) fn set_len(&mut self, path: &Path, len: u64) -> io::Result<()> {
        check_len(len)?;
        let id = self.names.find_file(path)?;
        self.inode_mut(id)?.set_len_durably(len);
        Ok(())
    }

    pub(super) fn flip(&mut self, path: &Path, offset: u64, mask: u8) -> io::Result<()> {
        let id = self.names.find_file(path)?;
        self.inode_mut(id)?.tamper(offset, mask)
    }
}

/// Nobody may have cut what was written.
fn check_written(expected: u64, found: u64) -> io::Result<()> {
    if found < expected {
        let message =
            format!("the file has {found} bytes instead of {expected}: it was changed from outside");
        return Err(io::Error::other(message));
    }
    Ok(())
}

fn check_len(len: u64) -> io::Result<()> {
    if len > LEN_MAX { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(()) }
}
