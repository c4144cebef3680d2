//! What the in-memory disk promises, rule by rule. `crash.rs` has the power cuts, `model.rs` random histories.

mod crash;
mod model;

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::env::{AppendFile, AppendOptions, Fs};

/// Seeds over which "can happen" and "never happens" are checked.
const SEEDS: u64 = 300;

fn path(text: &str) -> &Path {
    Path::new(text)
}

/// A disk with the durable directory `/db`.
fn disk() -> MemFs {
    let disk = MemFs::new();
    disk.create_dir_all(path("/db")).unwrap();
    disk.sync_dir(path("/")).unwrap();
    disk
}

fn create(disk: &MemFs, name: &str) -> Arc<dyn AppendFile> {
    disk.create(path(name), AppendOptions::default()).unwrap()
}

fn reserve(disk: &MemFs, name: &str, preallocate: u64) -> io::Result<Arc<dyn AppendFile>> {
    disk.create(path(name), AppendOptions { preallocate, mapped: true, uncached: false })
}

/// A file with synced content and a synced name.
fn durable(disk: &MemFs, name: &str, bytes: &[u8]) -> Arc<dyn AppendFile> {
    let file = create(disk, name);
    file.append(bytes).unwrap();
    file.sync().unwrap();
    disk.sync_dir(path("/db")).unwrap();
    file
}

/// Bytes without a zero in them, so that lost ones can be told.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index % 251) as u8 + 1).collect()
}

fn names(disk: &MemFs) -> Vec<String> {
    disk.list(path("/db")).unwrap().into_iter().map(|entry| entry.name).collect()
}

/// Everything on the disk.
fn dump(disk: &MemFs) -> Vec<(PathBuf, Vec<u8>)> {
    let bytes = |path: &PathBuf| disk.read_file(path).unwrap();
    disk.list_files().into_iter().map(|path| (path.clone(), bytes(&path))).collect()
}

fn kind<T>(result: io::Result<T>) -> io::ErrorKind {
    result.err().expect("an error").kind()
}

#[test]
fn files_are_written_listed_and_read() {
    let disk = disk();
    assert_eq!(disk.create_dir_all(path("/db")).unwrap(), path("/db"));
    assert_eq!(disk.create_dir_all(path("/db/x/y")).unwrap(), path("/db"));
    assert_eq!(disk.create_dir_all(path("rel/y")).unwrap(), path("."));
    let file = create(&disk, "/db/b");
    file.append(&pattern(10_000)).unwrap();
    create(&disk, "db/./x/../a").append(b"hello").unwrap();
    let entry = |name: &str, len, is_dir| DirEntry { name: name.to_string(), len, is_dir };
    let entries = [entry("a", 5, false), entry("b", 10_000, false), entry("x", 0, true)];
    assert_eq!(disk.list(path("/db")).unwrap(), entries);
    let reader = disk.open(path("/db/b")).unwrap();
    let mut buf = [0; 5000];
    reader.read_exact_at(4090, &mut buf).unwrap();
    assert_eq!(buf, pattern(10_000)[4090..9090]);
    assert_eq!(reader.len().unwrap(), 10_000);
    assert_eq!(kind(reader.read_exact_at(5001, &mut buf)), io::ErrorKind::UnexpectedEof);
    assert_eq!(kind(reader.read_exact_at(u64::MAX, &mut buf)), io::ErrorKind::UnexpectedEof);
    assert_eq!(disk.list_files(), [path("/db/a"), path("/db/b")]);
}

#[test]
fn errors_are_those_of_unix() {
    use io::ErrorKind::*;
    let disk = disk();
    create(&disk, "/db/a");
    let options = AppendOptions::default();
    assert_eq!(kind(disk.create(path("/db/a"), options)), AlreadyExists);
    assert_eq!(kind(disk.create(path("/db"), options)), AlreadyExists);
    assert_eq!(kind(disk.create(path("/none/a"), options)), NotFound);
    assert_eq!(kind(disk.create(path("/db/a/b"), options)), NotADirectory);
    assert_eq!(kind(disk.create_dir_all(path("/db/a/b"))), NotADirectory);
    assert_eq!(kind(disk.open(path("/db/none"))), NotFound);
    assert_eq!(kind(disk.open(path("/db"))), IsADirectory);
    assert_eq!(kind(disk.list(path("/none"))), NotFound);
    assert_eq!(kind(disk.list(path("/db/a"))), NotADirectory);
    assert_eq!(kind(disk.remove(path("/db/none"))), NotFound);
    assert_eq!(kind(disk.remove(path("/db"))), IsADirectory);
    assert_eq!(kind(disk.rename(path("/db/none"), path("/db/x"))), NotFound);
    assert_eq!(kind(disk.rename(path("/db/a"), path("/db"))), IsADirectory);
    assert_eq!(kind(disk.sync_dir(path("/none"))), NotFound);
    assert_eq!(kind(disk.sync_file(path("/db/none"))), NotFound);
    assert_eq!(kind(disk.free_space(path("/none"))), NotFound);
    assert_eq!(kind(disk.truncate(path("/db/a"), u64::MAX)), FileTooLarge);
    let exists = ["/db/a", "/db", "/", "/db/none", "/none/a"].map(|name| disk.exists(path(name)).unwrap());
    assert_eq!(exists, [true, true, true, false, false]);
    assert_eq!(kind(disk.exists(path("/db/a/b"))), NotADirectory);
    disk.rename(path("/db/a"), path("/db/./a")).unwrap();
    assert_eq!(names(&disk), ["a"]);
}

#[test]
fn handles_keep_their_file_whatever_becomes_of_the_name() {
    let disk = disk();
    let file = durable(&disk, "/db/a", b"one");
    let reader = disk.open(path("/db/a")).unwrap();
    disk.rename(path("/db/a"), path("/db/b")).unwrap();
    file.append(b"two").unwrap();
    file.sync().unwrap();
    assert_eq!(disk.read_file(path("/db/b")).unwrap(), b"onetwo");
    disk.remove(path("/db/b")).unwrap();
    disk.sync_dir(path("/db")).unwrap();
    file.append(b"three").unwrap();
    file.sync().unwrap();
    let mut buf = [0; 11];
    reader.read_exact_at(0, &mut buf).unwrap();
    assert_eq!(&buf, b"onetwothree");
    assert_eq!((disk.list_files().len(), disk.used_bytes()), (0, 11));
    drop((reader, file));
    assert_eq!(disk.used_bytes(), 0);
    assert!(disk.disk.lock().names().files_of_crashes().is_empty());
}

#[test]
fn open_handles_are_counted() {
    let disk = disk();
    let file = create(&disk, "/db/a");
    file.append(b"hello").unwrap();
    let reader = disk.open(path("/db/a")).unwrap();
    let map = reader.map(5).unwrap();
    let lock = disk.lock(path("/db/LOCK")).unwrap();
    let kinds: Vec<HandleKind> = disk.open_handles().into_iter().map(|handle| handle.kind).collect();
    assert_eq!(kinds, [HandleKind::Append, HandleKind::Read, HandleKind::Map, HandleKind::Lock]);
    assert_eq!(disk.open_handles()[3].path, path("/db/LOCK"));
    drop((file, reader, lock));
    assert_eq!(disk.open_handles(), [OpenHandle { path: "/db/a".into(), kind: HandleKind::Map }]);
    drop(map);
    assert_eq!(disk.open_handles(), []);
    assert_eq!(kind(disk.open(path("/db/none"))), io::ErrorKind::NotFound);
    assert_eq!(disk.open_handles(), []);
}

#[test]
fn a_lock_is_exclusive_and_ends_with_its_handle_or_a_crash() {
    let disk = disk();
    let lock = disk.lock(path("/db/LOCK")).unwrap();
    assert_eq!(kind(disk.lock(path("/db/LOCK"))), io::ErrorKind::WouldBlock);
    let after = disk.crash_clone(1, CrashMode::ProcessKill);
    let other = after.lock(path("/db/LOCK")).unwrap();
    assert!(lock.is_intact());
    drop(lock);
    let lock = disk.lock(path("/db/LOCK")).unwrap();
    disk.remove_file(path("/db/LOCK")).unwrap();
    assert!(!lock.is_intact());
    disk.write_file(path("/db/LOCK"), b"").unwrap();
    assert!(!lock.is_intact());
    assert!(other.is_intact());
}

#[test]
fn a_mapping_sees_the_file_as_it_is_now() {
    let disk = disk();
    durable(&disk, "/db/a", &pattern(10_000));
    let reader = disk.open(path("/db/a")).unwrap();
    assert_eq!(kind(reader.map(10_001)), io::ErrorKind::UnexpectedEof);
    let map = reader.map(10_000).unwrap();
    let mut buf = [0; 100];
    map.copy_out(9_900, &mut buf).unwrap();
    assert_eq!(buf, pattern(10_000)[9_900..]);
    assert_eq!(kind(map.copy_out(9_901, &mut buf)), io::ErrorKind::UnexpectedEof);
    assert_eq!(kind(map.copy_out(u64::MAX, &mut buf)), io::ErrorKind::UnexpectedEof);
    disk.flip(path("/db/a"), 0, 0xff).unwrap();
    map.copy_out(0, &mut buf).unwrap();
    assert_eq!(buf[0], pattern(1)[0] ^ 0xff);

    // Cut within a page: zeros, without a signal.
    disk.truncate(path("/db/a"), 5_000).unwrap();
    map.copy_out(4_950, &mut buf).unwrap();
    assert_eq!(buf[..50], pattern(5_000)[4_950..]);
    assert_eq!(buf[50..], [0; 50]);
    // A page beyond the end: an error, and from then on for every read of this mapping.
    assert_eq!(kind(map.copy_out(8_192, &mut buf)), io::ErrorKind::Other);
    assert!(map.copy_out(0, &mut buf).is_err());
    reader.map(5_000).unwrap().copy_out(0, &mut buf).unwrap();
}

#[test]
fn a_reserved_tail_is_part_of_the_file_until_it_is_finished() {
    let disk = disk();
    let file = reserve(&disk, "/db/a", 8192).unwrap();
    assert_eq!((file.len(), disk.list(path("/db")).unwrap()[0].len), (0, 8192));
    file.append(&pattern(100)).unwrap();
    let reader = disk.open(path("/db/a")).unwrap();
    let mut tail = [1; 8092];
    reader.read_exact_at(100, &mut tail).unwrap();
    assert_eq!((reader.len().unwrap(), tail), (8192, [0; 8092]));
    file.append(&pattern(8192)).unwrap();
    assert_eq!((file.len(), reader.len().unwrap()), (8292, 8292));
    let other = reserve(&disk, "/db/b", 8192).unwrap();
    other.append(&pattern(100)).unwrap();
    other.finish().unwrap();
    assert_eq!(disk.read_file(path("/db/b")).unwrap(), pattern(100));
    let before = disk.mutations();
    other.finish().unwrap();
    assert_eq!(disk.mutations(), before, "nothing to cut");
    disk.truncate(path("/db/b"), 99).unwrap();
    assert_eq!(kind(other.finish()), io::ErrorKind::Other, "cut from outside");
    assert_eq!(kind(other.sync()), io::ErrorKind::Other, "cut from outside");
    assert_eq!(kind(other.append(b"x")), io::ErrorKind::Other, "finished");
}

#[test]
fn capacity_bounds_appends_and_reserved_space() {
    let disk = disk();
    disk.set_capacity(Some(1000));
    assert_eq!(disk.free_space(path("/db")).unwrap(), 1000);
    assert_eq!(kind(reserve(&disk, "/db/a", 1001)), io::ErrorKind::StorageFull);
    assert_eq!(names(&disk), [""; 0]);
    let file = reserve(&disk, "/db/a", 600).unwrap();
    assert_eq!((disk.used_bytes(), disk.free_space(path("/db")).unwrap()), (600, 400));
    file.append(&pattern(600)).unwrap();
    assert_eq!(disk.used_bytes(), 600, "written into what was reserved");
    file.append(&pattern(300)).unwrap();
    assert_eq!(kind(file.append(&pattern(300))), io::ErrorKind::StorageFull);
    assert_eq!((file.len(), disk.used_bytes()), (900, 1000), "what fits is written, and undefined");
    assert_eq!(kind(file.append(b"x")), io::ErrorKind::StorageFull, "never again after a failure");
    file.finish().unwrap();
    assert_eq!(disk.free_space(path("/db")).unwrap(), 100);

    disk.remove(path("/db/a")).unwrap();
    assert_eq!(disk.free_space(path("/db")).unwrap(), 100, "still open");
    drop(file);
    assert_eq!(disk.free_space(path("/db")).unwrap(), 1000);
    let after = disk.crash_clone(1, CrashMode::ProcessKill);
    assert_eq!(after.free_space(path("/")).unwrap(), 1000, "a disk keeps its size");
    disk.set_capacity(None);
    reserve(&disk, "/db/b", 1 << 30).unwrap();
}

#[test]
fn tampering_is_durable_at_once_and_not_counted() {
    let disk = disk();
    let before = disk.mutations();
    disk.write_file(path("/new/dir/a"), b"hello").unwrap();
    disk.write_file(path("/db/gone"), b"x").unwrap();
    disk.flip(path("/new/dir/a"), 1, 0x04).unwrap();
    disk.truncate(path("/new/dir/a"), 4).unwrap();
    disk.truncate(path("/new/dir/a"), 6).unwrap();
    disk.remove_file(path("/db/gone")).unwrap();
    assert_eq!(disk.mutations(), before);
    assert_eq!(kind(disk.flip(path("/new/dir/a"), 6, 1)), io::ErrorKind::UnexpectedEof);
    let after = disk.crash_clone(1, CrashMode::SyncedOnly);
    assert_eq!(dump(&after), [(PathBuf::from("/new/dir/a"), b"hall\0\0".to_vec())]);

    // In the place of a file that is open and pending.
    let file = create(&disk, "/db/a");
    file.append(b"old").unwrap();
    disk.write_file(path("/db/a"), b"new").unwrap();
    file.append(b"er").unwrap();
    for seed in 0..SEEDS {
        let after = disk.crash_clone(seed, CrashMode::Random);
        assert_eq!(after.read_file(path("/db/a")).unwrap(), b"new");
    }
}

#[test]
fn is_durable_says_what_a_power_cut_would_leave() {
    let disk = disk();
    let file = create(&disk, "/db/a");
    let check = |name: &str, expect: bool| assert_eq!(disk.is_durable(path(name)).unwrap(), expect, "{name}");
    check("/db/a", false);
    disk.sync_dir(path("/db")).unwrap();
    check("/db/a", true);
    file.append(b"x").unwrap();
    check("/db/a", false);
    file.sync().unwrap();
    check("/db/a", true);
    disk.rename(path("/db/a"), path("/db/b")).unwrap();
    check("/db/b", false);
    disk.sync_dir(path("/db")).unwrap();
    check("/db/b", true);
    assert_eq!(kind(disk.is_durable(path("/db/a"))), io::ErrorKind::NotFound);
}

#[test]
fn sparse_content_is_what_an_array_would_be() {
    use super::content::Content;
    use crate::base::random::{SplitMix64, test_seed};
    const BYTES: u64 = 20_000;
    let mut random = SplitMix64::new(test_seed(1));
    let mut content = Content::default();
    let mut model = vec![0u8; BYTES as usize];
    for _ in 0..500 {
        let from = random.below(BYTES);
        let until = from + random.below(BYTES - from) / (1 + random.below(40));
        let range = from as usize..until as usize;
        let shared = (content.clone(), model.clone());
        match random.below(8) {
            0 => {
                content.truncate(from);
                model[from as usize..].fill(0);
            }
            1 | 2 => {
                content.zero(from..until);
                model[range].fill(0);
            }
            _ => {
                let mut bytes = vec![0; range.len()];
                random.fill(&mut bytes);
                content.write(from, &bytes);
                model[range].copy_from_slice(&bytes);
            }
        }
        for (content, model) in [(&content, &model), (&shared.0, &shared.1)] {
            let mut all = vec![1; BYTES as usize];
            content.read(0, &mut all);
            assert!(all == *model);
        }
    }
}
