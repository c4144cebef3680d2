//! A disk in memory for the log's tests: keeps what was synced apart from what was not, records the order of calls,
//! and fails where it is told to.

use crate::env::{
    AppendFile, AppendOptions, Clock, DirEntry, Env, FileLock, Fs, JoinHandle, MappedFile, ReadFile, Spawner,
};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

type Hook = Box<dyn FnOnce() + Send>;

/// The disk. Clones are the same disk.
#[derive(Clone, Default)]
pub(super) struct Disk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<PathBuf, FileState>,
    calls: Vec<String>,
    faults: Vec<Fault>,
    /// Runs once, inside the next sync, after it has taken its picture of the file and before it returns.
    during_sync: Option<Hook>,
}

#[derive(Clone, Default)]
struct FileState {
    bytes: Vec<u8>,
    synced: Vec<u8>,
    reserved: u64,
    finished: bool,
    poisoned: bool,
}

/// The next call of this name fails with this error; an append writes this many bytes before.
struct Fault {
    call: &'static str,
    kind: io::ErrorKind,
    written: usize,
}

impl Disk {
    pub(super) fn new() -> Disk {
        Disk::default()
    }

    pub(super) fn env(&self) -> Env {
        Env {
            fs: Arc::new(self.clone()),
            clock: Arc::new(NoClock),
            spawner: Arc::new(NoSpawner),
            seed: Some(1),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// A disk of its own with the same files.
    pub(super) fn copy(&self) -> Disk {
        let files = self.state().files.clone();
        Disk { state: Arc::new(Mutex::new(State { files, ..State::default() })) }
    }

    /// What a power cut that takes everything unsynced leaves.
    pub(super) fn crash(&self) -> Disk {
        let copy = self.copy();
        for file in copy.state().files.values_mut() {
            file.bytes.clone_from(&file.synced);
        }
        copy
    }

    /// Makes the next call of this name fail; an append then has written this many bytes.
    pub(super) fn fail(&self, call: &'static str, kind: io::ErrorKind, written: usize) {
        self.state().faults.push(Fault { call, kind, written });
    }

    pub(super) fn during_next_sync(&self, hook: impl FnOnce() + Send + 'static) {
        self.state().during_sync = Some(Box::new(hook));
    }

    /// Marks a store into a mapped file as failed.
    pub(super) fn poison(&self, name: &str) {
        self.edit(name, |file| file.poisoned = true);
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.state()
            .files
            .keys()
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_string())
            .collect()
    }

    pub(super) fn bytes(&self, name: &str) -> Vec<u8> {
        self.state().files[&super::dir().join(name)].bytes.clone()
    }

    pub(super) fn write(&self, name: &str, bytes: Vec<u8>) {
        let file = FileState { synced: bytes.clone(), bytes, ..FileState::default() };
        self.state().files.insert(super::dir().join(name), file);
    }

    pub(super) fn damage(&self, name: &str, damage: impl FnOnce(&mut Vec<u8>)) {
        self.edit(name, |file| damage(&mut file.bytes));
    }

    /// Makes the file, reserved tail included, this long.
    pub(super) fn cut(&self, name: &str, len: usize) {
        self.edit(name, |file| {
            file.bytes.resize(len, 0);
            file.reserved = 0;
        });
    }

    pub(super) fn delete(&self, name: &str) {
        self.state().files.remove(&super::dir().join(name)).unwrap();
    }

    fn edit(&self, name: &str, edit: impl FnOnce(&mut FileState)) {
        edit(self.state().files.get_mut(&super::dir().join(name)).unwrap());
    }

    /// The calls since the last time, in order.
    pub(super) fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut self.state().calls)
    }
}

impl State {
    /// Notes a call and answers its fault.
    fn call(&mut self, call: &'static str, path: &Path) -> Result<(), (io::Error, usize)> {
        self.calls.push(format!("{call} {}", path.file_name().unwrap().to_str().unwrap()));
        match self.faults.iter().position(|fault| fault.call == call) {
            Some(index) => {
                let fault = self.faults.remove(index);
                Err((fault.kind.into(), fault.written))
            }
            None => Ok(()),
        }
    }

    fn file(&mut self, path: &Path) -> io::Result<&mut FileState> {
        self.files.get_mut(path).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

struct Handle {
    disk: Disk,
    path: PathBuf,
}

impl AppendFile for Handle {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        let fault = state.call("append", &self.path);
        let file = state.file(&self.path)?;
        assert!(!file.finished, "append after finish");
        match fault {
            Ok(()) => file.bytes.extend_from_slice(bytes),
            Err((error, written)) => {
                file.bytes.extend_from_slice(&bytes[..written.min(bytes.len())]);
                return Err(error);
            }
        }
        Ok(())
    }

    fn len(&self) -> u64 {
        self.disk.state().file(&self.path).unwrap().bytes.len() as u64
    }

    fn reserved(&self) -> u64 {
        self.disk.state().file(&self.path).unwrap().reserved
    }

    fn sync(&self) -> io::Result<()> {
        let (picture, hook) = {
            let mut state = self.disk.state();
            state.call("sync", &self.path).map_err(|(error, _)| error)?;
            let file = state.file(&self.path)?;
            assert!(!file.finished, "sync after finish");
            (file.bytes.clone(), state.during_sync.take())
        };
        if let Some(hook) = hook {
            hook();
        }
        self.disk.state().file(&self.path)?.synced = picture;
        Ok(())
    }

    fn start_writeback(&self) {
        let _ = self.disk.state().call("writeback", &self.path);
    }

    fn is_poisoned(&self) -> bool {
        self.disk.state().file(&self.path).is_ok_and(|file| file.poisoned)
    }

    fn finish(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.call("finish", &self.path).map_err(|(error, _)| error)?;
        let file = state.file(&self.path)?;
        (file.finished, file.reserved) = (true, 0);
        Ok(())
    }
}

struct Content(Vec<u8>);

impl ReadFile for Content {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let from = self.0.get(offset as usize..offset as usize + buf.len());
        buf.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn map(&self, _: u64) -> io::Result<Arc<dyn MappedFile>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Fs for Disk {
    fn create(&self, path: &Path, options: AppendOptions) -> io::Result<Arc<dyn AppendFile>> {
        let mut state = self.state();
        state.call("create", path).map_err(|(error, _)| error)?;
        if state.files.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let reserved = if options.mapped { options.preallocate } else { 0 };
        state.files.insert(path.to_path_buf(), FileState { reserved, ..FileState::default() });
        Ok(Arc::new(Handle { disk: self.clone(), path: path.to_path_buf() }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadFile>> {
        let mut state = self.state();
        state.call("open", path).map_err(|(error, _)| error)?;
        let file = state.file(path)?;
        let mut bytes = file.bytes.clone();
        bytes.resize(bytes.len().max(file.reserved as usize), 0);
        Ok(Arc::new(Content(bytes)))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_path_buf())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.state().files.contains_key(path))
    }

    fn list(&self, _: &Path) -> io::Result<Vec<DirEntry>> {
        let state = self.state();
        let entry = |(path, file): (&PathBuf, &FileState)| DirEntry {
            name: path.file_name().unwrap().to_str().unwrap().to_string(),
            len: file.bytes.len() as u64,
            is_dir: false,
        };
        Ok(state.files.iter().map(entry).collect())
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.call("remove", path).map_err(|(error, _)| error)?;
        state.files.remove(path).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.state().call("sync_dir", dir).map_err(|(error, _)| error)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.call("sync_file", path).map_err(|(error, _)| error)?;
        let file = state.file(path)?;
        file.synced.clone_from(&file.bytes);
        Ok(())
    }

    fn drop_cache(&self, path: &Path) {
        let _ = self.state().call("drop_cache", path);
    }

    fn free_space(&self, _: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn lock(&self, _: &Path) -> io::Result<Box<dyn FileLock>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

struct NoClock;

impl Clock for NoClock {
    fn now(&self) -> Duration {
        Duration::ZERO
    }
    fn sleep(&self, _: Duration) {}
    fn unix_micros(&self) -> u64 {
        0
    }
}

struct NoSpawner;

impl Spawner for NoSpawner {
    fn spawn(&self, _: String, _: Box<dyn FnOnce() + Send>) -> io::Result<Option<Box<dyn JoinHandle>>> {
        Ok(None)
    }
}
