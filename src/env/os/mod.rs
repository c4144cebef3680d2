//! The real operating system: files, clocks, threads. The only place of the library that reaches it.
//!
//! Written for Linux; other Unix systems get the same results through plain reads and writes. Files and directories
//! are their owner's alone unless told otherwise. Calls that can be interrupted are repeated.
//!
//! * `append` and `writer`: appending, through a mapped window or by writes; what a sync means after an error
//! * `read`: positional, uncached and mapped reads
//! * `guard` and `region`: mappings that fail with an error instead of `SIGBUS`
//! * `lock`: the lock against a second opener
//! * `time`, `thread`: clock and threads
//! * `sys`: the bare calls
#![expect(
    clippy::disallowed_methods,
    reason = "this module is what the rest of the library is to use instead"
)]

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{AppendFile, AppendOptions, DirEntry, Env, FileLock, Fs, ReadFile};

mod append;
mod guard;
mod lock;
mod read;
mod region;
mod sys;
#[cfg(test)]
mod tests;
mod thread;
mod time;
mod writer;

pub use thread::OsSpawner;
pub use time::OsClock;

impl Env {
    /// The real operating system.
    pub fn os() -> Env {
        Env {
            fs: Arc::new(OsFs::new()),
            clock: Arc::new(OsClock::new()),
            spawner: Arc::new(OsSpawner),
            seed: None,
        }
    }
}

/// The file system of the operating system.
#[derive(Debug, Clone)]
pub struct OsFs {
    file_mode: u32,
    directory_mode: u32,
    mapping: bool,
}

impl OsFs {
    /// Files readable and writable by their owner only (0600), directories likewise (0700).
    pub fn new() -> OsFs {
        OsFs::with_modes(0o600, 0o700)
    }

    /// Files and directories created with these permissions, from which the process's umask is taken.
    pub fn with_modes(file: u32, directory: u32) -> OsFs {
        OsFs { file_mode: file, directory_mode: directory, mapping: true }
    }

    /// Never maps a file, and so never installs a handler for `SIGBUS`: appends are plain writes, and
    /// [`ReadFile::map`] answers `Unsupported`.
    pub fn without_mapping(mut self) -> OsFs {
        self.mapping = false;
        self
    }

    fn create_new(&self, path: &Path, options: AppendOptions) -> io::Result<append::OsAppendFile> {
        // Readable too, because a mapping for writing needs it.
        let file =
            OpenOptions::new().read(true).write(true).create_new(true).mode(self.file_mode).open(path)?;
        let options = AppendOptions { mapped: options.mapped && self.mapping, ..options };
        append::OsAppendFile::new(file, options).map_err(|error| match fs::remove_file(path) {
            Ok(()) => error,
            Err(second) => io::Error::new(
                error.kind(),
                format!("{error}; and the new file could not be removed again: {second}"),
            ),
        })
    }
}

impl Default for OsFs {
    fn default() -> OsFs {
        OsFs::new()
    }
}

impl Fs for OsFs {
    fn create(&self, path: &Path, options: AppendOptions) -> io::Result<Arc<dyn AppendFile>> {
        Ok(Arc::new(self.create_new(path, options)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadFile>> {
        Ok(Arc::new(read::OsReadFile::new(File::open(path)?, self.mapping)))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<PathBuf> {
        let (existing, missing) = split_existing(path)?;
        let mut builder = DirBuilder::new();
        builder.mode(self.directory_mode);
        for directory in missing.iter().rev() {
            match builder.create(directory) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(existing)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        match fs::symlink_metadata(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let metadata = match fs::metadata(entry.path()) {
                Ok(metadata) => metadata,
                // Removed since, or a link to nothing.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let is_dir = metadata.is_dir();
            entries.push(DirEntry {
                name: entry.file_name().to_string_lossy().into_owned(),
                len: if is_dir { 0 } else { metadata.len() },
                is_dir,
            });
        }
        entries.sort();
        Ok(entries)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let directory = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(dir)?;
        match directory.sync_all() {
            // File systems that know no such thing say so, and are taken at their word.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => Ok(()),
            result => result,
        }
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_data()
    }

    fn drop_cache(&self, path: &Path) {
        if let Ok(file) = File::open(path) {
            sys::forget_pages(&file, 0, 0);
        }
    }

    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        sys::available_bytes(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        Ok(Box::new(lock::lock(path, self.file_mode)?))
    }
}

/// The closest directory above (or at) this path that exists, and those below it that do not, innermost first.
fn split_existing(path: &Path) -> io::Result<(PathBuf, Vec<&Path>)> {
    let mut missing = Vec::new();
    for directory in path.ancestors() {
        let named = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        match fs::metadata(named) {
            Ok(metadata) if metadata.is_dir() => return Ok((named.to_path_buf(), missing)),
            Ok(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::NotADirectory,
                    "a file stands where a directory is to be",
                ));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(directory),
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::NotFound.into())
}
