//! A disk in memory with a manifest on it, and a script of edits whose outcome is known.

use super::*;
use crate::base::error::Result;
use crate::env::{AppendOptions, Env, Fs, MemFs};
use crate::manifest::log::{Limits, Loaded};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) const DB: u128 = 0xe54e_0001;
pub(super) const A: &str = "/db/MANIFEST-A";
pub(super) const B: &str = "/db/MANIFEST-B";

/// Limits that a few edits reach.
pub(super) const TINY: Limits = Limits { rewrite_bytes_min: 700, reserve_bytes: 400 };

pub(super) fn dir() -> &'static Path {
    Path::new("/db")
}

/// An empty disk with the database's directory.
pub(super) fn world() -> (Env, Arc<MemFs>) {
    let (env, disk) = Env::memory(1);
    env.fs.create_dir_all(dir()).unwrap();
    env.fs.sync_dir(Path::new("/")).unwrap();
    (env, disk)
}

/// The same disk for another process.
pub(super) fn env_of(disk: &Arc<MemFs>) -> Env {
    let fs: Arc<dyn Fs> = disk.clone();
    Env::simulated(fs, 1)
}

/// Edit `index` of the script; 0 creates.
pub(super) fn edit(index: usize) -> Edit {
    let text = match index {
        0 => "create 0 \"default\" bits_per_key=10\nfiles 1000".to_owned(),
        2 => "create 1 \"users\" l0_runs=4\nlog 2".to_owned(),
        5 => "remove 0 L0 #1 1\nremove 0 L0 #3 3\nadd 0 L1 #3 50:[a..z]@1-30".to_owned(),
        8 => "drop 1\nclean 9".to_owned(),
        _ => {
            format!("add 0 L0 #{index} {index}:[a..m]@{index}0-{index}9\nflushed 0 {index}9\nlog {index}")
        }
    };
    Edit::parse(&text)
}

/// The first `count` versions of the script, generations left out: entry `n` is the state after `n` edits.
pub(super) fn states(count: usize) -> Vec<Version> {
    let mut states = vec![Version::empty(DB)];
    for index in 0..count {
        let next = states[index].apply(&edit(index)).unwrap();
        states.push(next);
    }
    states.iter().map(state).collect()
}

/// A version without its generation: heals count as generations too.
pub(super) fn state(version: &Version) -> Version {
    Version { generation: 0, ..version.clone() }
}

pub(super) fn create(env: &Env) -> Result<(Manifest, Version)> {
    Manifest::create_with(env, dir(), DB, &edit(0), TINY)
}

pub(super) fn read(env: &Env) -> Result<Option<Loaded>> {
    Manifest::read_with(env, dir(), TINY)
}

/// What an engine does after an unclean stop.
pub(super) fn open(env: &Env) -> Result<Option<(Manifest, Version)>> {
    Manifest::sync_existing(env, dir())?;
    let Some(mut loaded) = read(env)? else { return Ok(None) };
    if loaded.needs_heal() {
        loaded.version = loaded.manifest.heal(&loaded.version)?;
    }
    Ok(Some((loaded.manifest, loaded.version)))
}

/// A manifest with the first `count` edits of the script, written by one process; `keep` sees both files after each.
pub(super) fn written(count: usize, limits: Limits, mut keep: impl FnMut(Vec<u8>)) -> (Env, Arc<MemFs>) {
    let (env, disk) = world();
    let (mut manifest, mut version) = Manifest::create_with(&env, dir(), DB, &edit(0), limits).unwrap();
    for index in 1..=count {
        keep(bytes(&disk, A));
        assert_eq!(bytes(&disk, A), bytes(&disk, B));
        if index < count {
            version = manifest.append(&version, &edit(index)).unwrap();
        }
    }
    (env, disk)
}

pub(super) fn bytes(disk: &MemFs, path: &str) -> Vec<u8> {
    disk.read_file(Path::new(path)).unwrap()
}

/// Puts a file in place of this one, or removes it.
pub(super) fn put(disk: &MemFs, path: &str, content: Option<&[u8]>) {
    match content {
        Some(bytes) => disk.write_file(Path::new(path), bytes).unwrap(),
        None => disk.remove_file(Path::new(path)).unwrap(),
    }
}

/// What lies in the directory besides the two copies.
pub(super) fn litter(disk: &MemFs) -> Vec<PathBuf> {
    disk.list_files().into_iter().filter(|path| path != Path::new(A) && path != Path::new(B)).collect()
}

/// Leaves a file as a crash might.
pub(super) fn leave(env: &Env, path: &str) {
    let file = env.fs.create(Path::new(path), AppendOptions::default()).unwrap();
    file.append(b"half a manifest").unwrap();
}
