//! What the rest of the engine relies on, against the real file system.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::env::{Clock, Spawner};

mod append;
mod children;
mod faults;
mod read;

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Writes a finished file.
fn put(path: &Path, bytes: &[u8]) {
    let file = OsFs::new().create(path, AppendOptions::default()).unwrap();
    file.append(bytes).unwrap();
    file.finish().unwrap();
}

/// Bytes that differ from place to place.
fn pattern(len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8 | 1).collect()
}

fn kind<T>(result: io::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn files_and_directories_are_their_owners_alone() {
    let dir = directory();
    let (file, lock, sub) = (dir.path().join("file"), dir.path().join("lock"), dir.path().join("a/b"));
    let os = OsFs::new();
    os.create(&file, AppendOptions::default()).unwrap();
    os.lock(&lock).unwrap();
    os.create_dir_all(&sub).unwrap();
    assert_eq!(
        [mode(&file), mode(&lock), mode(&sub), mode(&dir.path().join("a"))],
        [0o600, 0o600, 0o700, 0o700]
    );
}

#[test]
fn other_modes_are_taken_less_the_umask() {
    let dir = directory();
    let expected = dir.path().join("expected");
    fs::OpenOptions::new().write(true).create_new(true).mode(0o640).open(&expected).unwrap();
    let (file, sub) = (dir.path().join("file"), dir.path().join("sub"));
    let os = OsFs::with_modes(0o640, 0o740);
    os.create(&file, AppendOptions::default()).unwrap();
    os.create_dir_all(&sub).unwrap();
    assert_eq!(mode(&file), mode(&expected));
    assert_eq!(mode(&sub), mode(&expected) | 0o100);
}

#[test]
fn creation_refuses_a_taken_name() {
    let dir = directory();
    let path = dir.path().join("x");
    put(&path, b"first");
    assert_eq!(kind(OsFs::new().create(&path, AppendOptions::default())), Some(ErrorKind::AlreadyExists));
    assert_eq!(fs::read(&path).unwrap(), b"first");
}

#[test]
fn create_dir_all_names_the_directory_whose_listing_changed() {
    let dir = directory();
    let os = OsFs::new();
    let top = dir.path();
    assert_eq!(os.create_dir_all(&top.join("a/b/c")).unwrap(), top);
    assert_eq!(os.create_dir_all(&top.join("a/b/c")).unwrap(), top.join("a/b/c"));
    assert_eq!(os.create_dir_all(&top.join("a/b/d")).unwrap(), top.join("a/b"));
    assert_eq!(split_existing(Path::new("no-such-directory/x")).unwrap().0, Path::new("."));
    put(&top.join("file"), b"");
    assert_eq!(kind(os.create_dir_all(&top.join("file"))), Some(ErrorKind::NotADirectory));
    assert!(os.create_dir_all(&top.join("file/x")).is_err());
}

#[test]
fn listings_are_sorted_and_tell_files_from_directories() {
    let dir = directory();
    let os = OsFs::new();
    for name in ["b", "a", "c10", "c9"] {
        put(&dir.path().join(name), name.as_bytes());
    }
    os.create_dir_all(&dir.path().join("b2")).unwrap();
    symlink("nowhere", dir.path().join("dangling")).unwrap();
    let found: Vec<_> =
        os.list(dir.path()).unwrap().into_iter().map(|entry| (entry.name, entry.len, entry.is_dir)).collect();
    let expected = [("a", 1, false), ("b", 1, false), ("b2", 0, true), ("c10", 3, false), ("c9", 2, false)];
    assert_eq!(found, expected.map(|(name, len, is_dir)| (name.to_owned(), len, is_dir)));
    assert_eq!(kind(os.list(&dir.path().join("none"))), Some(ErrorKind::NotFound));
}

#[test]
fn exists_means_the_name_not_what_it_leads_to() {
    let dir = directory();
    let os = OsFs::new();
    put(&dir.path().join("file"), b"");
    symlink("nowhere", dir.path().join("dangling")).unwrap();
    for (name, expected) in [("file", true), ("dangling", true), ("none", false), (".", true)] {
        assert_eq!(os.exists(&dir.path().join(name)).unwrap(), expected, "{name}");
    }
    // Not knowing is not the same as not existing.
    assert!(os.exists(&dir.path().join("file/x")).is_err());
}

#[test]
fn names_change_and_open_files_stay_readable() {
    let dir = directory();
    let os = OsFs::new();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    put(&a, b"new");
    put(&b, b"old");
    let old = os.open(&b).unwrap();
    os.rename(&a, &b).unwrap();
    os.sync_dir(dir.path()).unwrap();
    assert_eq!(fs::read(&b).unwrap(), b"new");
    assert!(!os.exists(&a).unwrap());
    os.remove(&b).unwrap();
    assert_eq!(kind(os.remove(&b)), Some(ErrorKind::NotFound));
    let mut buf = [0; 3];
    old.read_exact_at(0, &mut buf).unwrap();
    assert_eq!(&buf, b"old");
}

#[test]
fn syncing_what_does_not_exist_is_an_error() {
    let dir = directory();
    let os = OsFs::new();
    let file = dir.path().join("file");
    put(&file, b"x");
    os.sync_file(&file).unwrap();
    os.sync_dir(dir.path()).unwrap();
    assert_eq!(kind(os.sync_dir(&file)), Some(ErrorKind::NotADirectory));
    assert_eq!(kind(os.sync_dir(&dir.path().join("none"))), Some(ErrorKind::NotFound));
    assert_eq!(kind(os.sync_file(&dir.path().join("none"))), Some(ErrorKind::NotFound));
}

#[test]
fn free_space_is_that_of_the_file_system() {
    let dir = directory();
    let os = OsFs::new();
    assert!(os.free_space(dir.path()).unwrap() > 0);
    assert_eq!(kind(os.free_space(&dir.path().join("none"))), Some(ErrorKind::NotFound));
}

#[test]
fn dropping_the_cache_loses_nothing() {
    let dir = directory();
    let os = OsFs::new();
    let path = dir.path().join("x");
    put(&path, b"kept");
    os.sync_file(&path).unwrap();
    os.drop_cache(&path);
    os.drop_cache(&dir.path().join("none"));
    assert_eq!(fs::read(&path).unwrap(), b"kept");
}

#[test]
fn a_second_lock_in_this_process_is_refused() {
    let dir = directory();
    let os = OsFs::new();
    let path = dir.path().join("LOCK");
    symlink("LOCK", dir.path().join("alias")).unwrap();
    let lock = os.lock(&path).unwrap();
    assert_eq!(kind(os.lock(&path)), Some(ErrorKind::WouldBlock));
    assert_eq!(kind(os.lock(&dir.path().join("alias"))), Some(ErrorKind::WouldBlock));
    drop(lock);
    os.lock(&path).unwrap();
    assert_eq!(kind(os.lock(&dir.path().join("none/LOCK"))), Some(ErrorKind::NotFound));
}

#[test]
fn a_removed_or_replaced_lock_file_is_noticed() {
    let dir = directory();
    let os = OsFs::new();
    let path = dir.path().join("LOCK");
    let lock = os.lock(&path).unwrap();
    assert!(lock.is_intact());
    os.remove(&path).unwrap();
    assert!(!lock.is_intact());
    // Whoever removed the file can lock the new one; that is why the old holder has to look.
    let second = os.lock(&path).unwrap();
    assert!(!lock.is_intact());
    assert!(second.is_intact());
    drop(lock);
    assert_eq!(kind(os.lock(&path)), Some(ErrorKind::WouldBlock));
}

#[test]
fn only_one_of_many_threads_gets_the_lock() {
    let dir = directory();
    let path = dir.path().join("LOCK");
    for _ in 0..50 {
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| OsFs::new().lock(&path))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let held = results.iter().filter(|result| result.is_ok()).count();
        assert_eq!(held, 1, "{results:?}");
        assert!(
            results.into_iter().all(|result| kind(result).is_none_or(|kind| kind == ErrorKind::WouldBlock))
        );
    }
}

#[test]
fn the_clock_goes_forward_and_knows_the_year() {
    let clock = OsClock::new();
    let before = clock.now();
    clock.sleep(Duration::from_millis(2));
    assert!(clock.now() >= before + Duration::from_millis(2));
    let year_2020 = 1_577_836_800_000_000;
    assert!(clock.unix_micros() > year_2020);
}

#[test]
fn threads_run_under_their_name_and_panics_come_back_as_text() {
    let ran = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&ran);
    let body = Box::new(move || seen.store(std::thread::current().name() == Some("flush"), Ordering::SeqCst));
    OsSpawner.spawn("flush".to_owned(), body).unwrap().unwrap().join().unwrap();
    assert!(ran.load(Ordering::SeqCst));

    let text_of = |body: Box<dyn FnOnce() + Send>| {
        OsSpawner.spawn("fails".to_owned(), body).unwrap().unwrap().join().unwrap_err()
    };
    assert_eq!(text_of(Box::new(|| panic!("broken"))), "broken");
    assert_eq!(text_of(Box::new(|| panic!("broken {}", 7))), "broken 7");
    assert_eq!(text_of(Box::new(|| std::panic::panic_any(7))), "panic without a text");
    assert_eq!(kind(OsSpawner.spawn("a\0b".to_owned(), Box::new(|| ()))), Some(ErrorKind::InvalidInput));
}

#[test]
fn an_environment_of_the_system_reaches_all_of_it() {
    let dir = directory();
    let env = Env::os();
    let path = dir.path().join("x");
    env.fs.create(&path, AppendOptions::default()).unwrap().append(b"1").unwrap();
    assert_eq!(env.fs.open(&path).unwrap().len().unwrap(), 1);
    assert!(env.spawner.spawn("none".to_owned(), Box::new(|| ())).unwrap().is_some());
    assert!(env.clock.unix_micros() > 0);
    assert_eq!(path.file_name(), Some(OsStr::new("x")));
    assert_eq!(fs::metadata(&path).unwrap().nlink(), 1);
}
