//! The manifest on disk: two copies, `MANIFEST-A` and `MANIFEST-B`, kept the same.
//!
//! An append writes and syncs A, then B, and returns after both, so whatever it acknowledged survives the loss of
//! either. Only files that this process wrote are appended to. The first append after reading, one that would make
//! the copies too long, and a heal **rewrite** them instead: both new files are written and synced under temporary
//! names, then each takes the place of its copy by a rename that is made durable before the next, the worse copy
//! first. There is no moment without a complete, synced copy of the newest acknowledged version under its name.
//!
//! Full disks: each copy has space reserved beyond the length at which it is rewritten. When a rewrite finds no
//! space, nothing has changed; edits go on into the reserve, and after that are refused with `NoSpace` before any
//! effect. An edit that frees files can thus be written on a full disk, except as the first one after an open,
//! which needs room for two new files.
//!
//! Any other failure of a write or sync is remembered: the edit may or may not be there after reopening
//! (`OutcomeUnknown`), and every later append is refused (`Poisoned`). Nothing that such an edit names or drops may
//! be deleted by this process.
//!
//! Must not know what edits mean beyond applying them; keeps no version.

use super::copy::{self, COPY_BYTES_MAX};
use super::edit::Edit;
use super::meta::Inconsistency;
use super::pair::{Side, Verdict, judge};
use super::version::Version;
use crate::base::checksum::Origin;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::types::DbId;
use crate::env::{AppendFile, AppendOptions, Env, ReadFile};
use crate::record::encoded_len;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const NAMES: [&str; 2] = ["MANIFEST-A", "MANIFEST-B"];
const TEMPORARY_NAMES: [&str; 2] = ["MANIFEST-A.tmp", "MANIFEST-B.tmp"];

/// Whether a file of this name is the manifest's own: a copy, or what a crash left of writing one. The latter needs
/// no removal by others: it is never read, and the next rewrite replaces it.
pub(crate) fn is_manifest_file(name: &str) -> bool {
    NAMES.contains(&name) || TEMPORARY_NAMES.contains(&name)
}

/// When copies are rewritten. Small in tests, so that a few edits lead there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// A copy is rewritten when it would exceed this length, and twice its snapshot.
    pub(crate) rewrite_bytes_min: u64,
    /// Space reserved beyond that length, for when there is no room to rewrite.
    pub(crate) reserve_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { rewrite_bytes_min: 64 * 1024, reserve_bytes: 64 * 1024 }
    }
}

/// Both copies as this process wrote them. They have the same bytes.
struct Files {
    handles: [Arc<dyn AppendFile>; 2],
    origin: Origin,
    len: u64,
    /// Length at which they are to be rewritten.
    rewrite_at: u64,
    /// Length up to which space is reserved.
    reserved: u64,
}

/// The writing end of the manifest. One per database; calls are serialised by its owner.
pub(crate) struct Manifest {
    env: Env,
    dir: PathBuf,
    db: DbId,
    limits: Limits,
    generation: u64,
    hash: u64,
    files: Option<Files>,
    rewrite_first: usize,
    failed: Option<Error>,
}

/// What was read.
pub(crate) struct Loaded {
    /// The newest version.
    pub(crate) version: Version,
    /// For appending to it.
    pub(crate) manifest: Manifest,
    /// What is wrong with a copy, beyond what a crash explains.
    pub(crate) damaged: Vec<Error>,
    /// Whether only one copy holds the newest version (after a crash between the two, or damage).
    pub(crate) lagging: bool,
    /// Bytes of an append that a crash cut short.
    pub(crate) dropped_bytes: u64,
}

impl Loaded {
    /// Whether [`Manifest::heal`] must come before anything that relies on both copies: before any file is deleted
    /// that an older version names, and before the version is shown to anybody. An append serves as well.
    pub(crate) fn needs_heal(&self) -> bool {
        self.lagging || !self.damaged.is_empty()
    }
}

impl Manifest {
    /// Writes both copies of a new database, made durable together with the directory's entries. `first` creates
    /// the default keyspace and whatever else the first version has.
    pub(crate) fn create(env: &Env, dir: &Path, db: DbId, first: &Edit) -> Result<(Manifest, Version)> {
        Manifest::create_with(env, dir, db, first, Limits::default())
    }

    /// [`create`](Self::create) with other limits.
    pub(crate) fn create_with(
        env: &Env,
        dir: &Path,
        db: DbId,
        first: &Edit,
        limits: Limits,
    ) -> Result<(Manifest, Version)> {
        for path in paths(dir, NAMES) {
            if env.fs.exists(&path).map_err(|error| Error::io("look for", &path, error))? {
                let message = format!("there is a manifest already: {}", path.display());
                return Err(Error::new(ErrorKind::InvalidArgument, message));
            }
        }
        let mut manifest = Manifest {
            env: env.clone(),
            dir: dir.to_path_buf(),
            db,
            limits,
            generation: 0,
            hash: 0,
            files: None,
            rewrite_first: 0,
            failed: None,
        };
        let version = manifest.append(&Version::empty(db), first)?;
        Ok((manifest, version))
    }

    /// Reads the newest version. Writes nothing. `None` if neither copy exists: whether that is an empty directory,
    /// a foreign one, or the loss of both is for the caller to see.
    ///
    /// When the database turns out not to have been closed cleanly, call [`sync_existing`](Self::sync_existing) and
    /// read again before acting on what was read.
    pub(crate) fn read(env: &Env, dir: &Path) -> Result<Option<Loaded>> {
        Manifest::read_with(env, dir, Limits::default())
    }

    /// [`read`](Self::read) with other limits.
    pub(crate) fn read_with(env: &Env, dir: &Path, limits: Limits) -> Result<Option<Loaded>> {
        let [path_a, path_b] = paths(dir, NAMES);
        let sides = [read_side(env, &path_a)?, read_side(env, &path_b)?];
        if let [Side::Missing, Side::Missing] = sides {
            return Ok(None);
        }
        let Verdict { version, hash, damaged, agree, dropped_bytes, rewrite_first } =
            judge([&path_a, &path_b], sides)?;
        let manifest = Manifest {
            env: env.clone(),
            dir: dir.to_path_buf(),
            db: version.db,
            limits,
            generation: version.generation,
            hash,
            files: None,
            rewrite_first,
            failed: None,
        };
        Ok(Some(Loaded { version, manifest, damaged, lagging: !agree, dropped_bytes }))
    }

    /// Makes durable what an earlier process wrote, and drops cached pages (best effort), so that a following read
    /// sees what a later crash cannot take back.
    pub(crate) fn sync_existing(env: &Env, dir: &Path) -> Result<()> {
        for path in paths(dir, NAMES) {
            match env.fs.sync_file(&path) {
                Ok(()) => env.fs.drop_cache(&path),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("sync", &path, error)),
            }
        }
        env.fs.sync_dir(dir).map_err(|error| Error::io("sync directory", dir, error))
    }

    /// Makes an edit of the newest version durable in both copies, and answers the version after it.
    ///
    /// `InvalidArgument`, `LimitExceeded` and `NoSpace` mean that nothing was written; after `OutcomeUnknown` the edit
    /// may or may not be there when the database is opened again.
    pub(crate) fn append(&mut self, version: &Version, edit: &Edit) -> Result<Version> {
        self.check_newest(version)?;
        let invalid = |broken: Inconsistency| Error::new(ErrorKind::InvalidArgument, broken.0);
        let next = version.apply(edit).map_err(invalid)?;
        if cfg!(debug_assertions) {
            next.check().map_err(invalid)?;
        }
        let payload = copy::edit_payload(next.generation, self.hash, edit);
        if !self.has_room(&payload, |files| files.rewrite_at) {
            match self.rewrite(&next) {
                Err(error)
                    if error.kind() == ErrorKind::NoSpace
                        && self.has_room(&payload, |files| files.reserved) => {}
                outcome => return outcome.map(|()| next),
            }
        }
        self.append_in_place(&payload)?;
        self.generation = next.generation;
        Ok(next)
    }

    /// Rewrites both copies with the newest version, as one generation more. For a manifest whose copies are damaged
    /// or disagree; `NoSpace` means that nothing changed, and the other copy still serves.
    pub(crate) fn heal(&mut self, version: &Version) -> Result<Version> {
        self.check_newest(version)?;
        let mut next = version.clone();
        next.generation = next.generation.saturating_add(1);
        self.rewrite(&next)?;
        Ok(next)
    }

    /// Gives back reserved space. A later append would write new copies.
    pub(crate) fn close(&mut self) -> Result<()> {
        let Some(files) = self.files.take() else { return Ok(()) };
        for (handle, path) in files.handles.iter().zip(paths(&self.dir, NAMES)) {
            handle.finish().map_err(|error| Error::io("finish", &path, error))?;
        }
        Ok(())
    }

    fn check_newest(&self, version: &Version) -> Result<()> {
        if let Some(first) = &self.failed {
            return Err(Error::caused(ErrorKind::Poisoned, "the manifest failed before", first.clone()));
        }
        if version.generation != self.generation || version.db != self.db {
            let message =
                format!("a change of generation {}, the newest is {}", version.generation, self.generation);
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        Ok(())
    }

    /// Whether the record stays below this bound of files that may be appended to.
    fn has_room(&self, payload: &[u8], bound: impl FnOnce(&Files) -> u64) -> bool {
        self.files.as_ref().is_some_and(|files| {
            files.len.saturating_add(encoded_len(files.len, payload.len())) <= bound(files)
        })
    }

    fn append_in_place(&mut self, payload: &[u8]) -> Result<()> {
        let Some(files) = &mut self.files else { return Ok(()) };
        let mut bytes = Vec::new();
        copy::frame(files.origin, files.len, payload, &mut bytes);
        for (handle, path) in files.handles.iter().zip(paths(&self.dir, NAMES)) {
            let outcome = write_and_sync(&**handle, &path, &bytes);
            outcome.map_err(|error| remember(&mut self.failed, error))?;
        }
        files.len = files.len.saturating_add(bytes.len() as u64);
        self.hash = copy::hash(payload);
        Ok(())
    }

    /// Replaces both copies by new ones that hold this version and nothing before.
    fn rewrite(&mut self, next: &Version) -> Result<()> {
        let payload = copy::snapshot_payload(next, self.hash);
        let bytes = copy::new_copy(self.db, next.generation, &payload);
        let len = bytes.len() as u64;
        let rewrite_at = self.limits.rewrite_bytes_min.max(len.saturating_mul(2));
        let reserved = rewrite_at.saturating_add(self.limits.reserve_bytes);
        if reserved > COPY_BYTES_MAX {
            return Err(Error::new(ErrorKind::LimitExceeded, format!("a manifest snapshot of {len} bytes")));
        }
        let handles = self.stage(&bytes, reserved)?;
        self.install()?;
        self.files = Some(Files {
            handles,
            origin: copy::origin(self.db, next.generation),
            len,
            rewrite_at,
            reserved,
        });
        (self.generation, self.hash, self.rewrite_first) = (next.generation, copy::hash(&payload), 0);
        Ok(())
    }

    /// Writes and syncs both new copies under their temporary names. On failure the present copies are as before.
    fn stage(&mut self, bytes: &[u8], reserved: u64) -> Result<[Arc<dyn AppendFile>; 2]> {
        let [path_a, path_b] = paths(&self.dir, TEMPORARY_NAMES);
        let staged = match self.stage_one(&path_a, bytes, reserved) {
            Ok(a) => self.stage_one(&path_b, bytes, reserved).map(|b| [a, b]),
            Err(error) => Err(error),
        };
        staged.map_err(|error| {
            let cleared = self.remove_if_there(&path_a).and(self.remove_if_there(&path_b));
            match cleared {
                Ok(()) => error,
                Err(left) => Error::caused(
                    error.kind(),
                    format!("{left}, after writing a manifest copy failed"),
                    error,
                ),
            }
        })
    }

    /// No space is no fault: the file is given up, and nothing depends on it. Other failures to write or sync are
    /// remembered.
    fn stage_one(&mut self, path: &Path, bytes: &[u8], reserved: u64) -> Result<Arc<dyn AppendFile>> {
        self.remove_if_there(path)?;
        let options = AppendOptions { preallocate: reserved, ..AppendOptions::default() };
        let file = self.env.fs.create(path, options).map_err(|error| Error::io("create", path, error))?;
        match write_and_sync(&*file, path, bytes) {
            Ok(()) => Ok(file),
            Err(error) if error.kind() == ErrorKind::NoSpace => Err(error),
            Err(error) => {
                self.failed.get_or_insert_with(|| error.clone());
                Err(error)
            }
        }
    }

    fn remove_if_there(&self, path: &Path) -> Result<()> {
        match self.env.fs.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, error)),
            _ => Ok(()),
        }
    }

    /// Puts the new copies in place, one durably after the other.
    fn install(&mut self) -> Result<()> {
        let mut moves: Vec<_> =
            paths(&self.dir, TEMPORARY_NAMES).into_iter().zip(paths(&self.dir, NAMES)).collect();
        moves.rotate_left(self.rewrite_first.min(1));
        for (from, to) in moves {
            let fs = &self.env.fs;
            let renamed = fs.rename(&from, &to).map_err(|error| Error::io("rename", &from, error));
            let synced = renamed.and_then(|()| {
                fs.sync_dir(&self.dir).map_err(|error| Error::io("sync directory", &self.dir, error))
            });
            synced.map_err(|error| remember(&mut self.failed, error))?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Manifest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Manifest { dir, generation, failed, .. } = self;
        f.debug_struct("Manifest")
            .field("dir", dir)
            .field("generation", generation)
            .field("failed", failed)
            .finish_non_exhaustive()
    }
}

fn paths(dir: &Path, names: [&str; 2]) -> [PathBuf; 2] {
    names.map(|name| dir.join(name))
}

/// Keeps the first failure; the answer is that the outcome of this one is open.
fn remember(failed: &mut Option<Error>, error: Error) -> Error {
    failed.get_or_insert_with(|| error.clone());
    Error::caused(ErrorKind::OutcomeUnknown, "the manifest may or may not hold the last edit", error)
}

fn write_and_sync(file: &dyn AppendFile, path: &Path, bytes: &[u8]) -> Result<()> {
    file.append(bytes).map_err(|error| Error::io("write", path, error))?;
    file.sync().map_err(|error| Error::io("sync", path, error))
}

/// Reads one copy. An error is one that says nothing about the copy (no handle to be had, no permission), or that it
/// is a later version's.
fn read_side(env: &Env, path: &Path) -> Result<Side> {
    let file = match env.fs.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Side::Missing),
        Err(error) => return Err(Error::io("open", path, error)),
    };
    let decoded = match read_bytes(&*file, path) {
        Ok(bytes) => copy::decode(path, &bytes),
        Err(error) => Err(error.into()),
    };
    match decoded {
        Ok(history) => Ok(Side::Usable(Box::new(history))),
        Err(damage) if damage.error.kind() == ErrorKind::VersionUnsupported => Err(damage.error),
        Err(damage) => Ok(Side::Damaged(damage)),
    }
}

fn read_bytes(file: &dyn ReadFile, path: &Path) -> Result<Vec<u8>> {
    let len = file.len().map_err(|error| Error::io("read length of", path, error))?;
    let Some(len) = usize::try_from(len).ok().filter(|_| len <= COPY_BYTES_MAX) else {
        let expected = format!("a manifest copy of at most {COPY_BYTES_MAX} bytes");
        return Err(Error::corrupt(path, None, expected, format!("{len} bytes")));
    };
    let mut bytes = vec![0; len];
    file.read_exact_at(0, &mut bytes).map_err(|error| Error::io("read", path, error))?;
    Ok(bytes)
}
