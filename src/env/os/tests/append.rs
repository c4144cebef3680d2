//! Appending, in all ways it can be done.

use std::fs;
use std::os::unix::fs::FileExt;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::append::OsAppendFile;
use super::super::sys;
use super::super::writer::{DIRECT_BYTES, GROWTH_BYTES, WINDOW_BYTES};
use super::*;

const MAPPED: AppendOptions = AppendOptions { preallocate: 4 * WINDOW_BYTES, mapped: true, uncached: false };

fn create(path: &Path, options: AppendOptions) -> OsAppendFile {
    OsFs::new().create_new(path, options).unwrap()
}

/// Appends pieces of these sizes and looks at the file while it is written, and after it was finished.
fn check(options: AppendOptions, sizes: &[usize]) {
    let dir = directory();
    let path = dir.path().join("x");
    let total: usize = sizes.iter().sum();
    let expected = pattern(total);
    let file = create(&path, options);
    assert!(file.is_empty());
    let mut at = 0;
    for size in sizes {
        file.append(&expected[at..at + size]).unwrap();
        at += size;
        assert_eq!(file.len(), at as u64);
    }
    let written = fs::read(&path).unwrap();
    assert!(written.starts_with(&expected), "{options:?} {sizes:?}: what was appended is in the file");
    assert!(written[total..].iter().all(|byte| *byte == 0), "{options:?}: the reserved tail is zeros");
    file.sync().unwrap();
    file.finish().unwrap();
    file.finish().unwrap();
    file.sync().unwrap();
    assert_eq!(fs::read(&path).unwrap(), expected, "{options:?} {sizes:?}");
    assert!(!file.is_poisoned());
    assert!(file.append(b"x").is_err(), "a finished file takes no more");
}

#[test]
fn what_is_appended_is_in_the_file_whatever_the_way() {
    let window = WINDOW_BYTES as usize;
    let growth = GROWTH_BYTES as usize;
    let sizes: [&[usize]; 9] = [
        &[],
        &[0, 1, 0, 140],
        &[window - 1, 1, 1],
        &[window - 100, 200, 1, window, 140],
        &[window + 1, 140],
        &[DIRECT_BYTES, 140, DIRECT_BYTES - 1, 140, DIRECT_BYTES, 3],
        &[3 * window + 7, 140, 140],
        &[100, growth + 5, 140, growth, 1],
        &[140; 3000],
    ];
    for sizes in sizes {
        for preallocate in [0, 1, 1000, WINDOW_BYTES, WINDOW_BYTES + 4096 + 17, 2 * GROWTH_BYTES] {
            for (mapped, uncached) in [(false, false), (false, true), (true, false), (true, true)] {
                check(AppendOptions { preallocate, mapped, uncached }, sizes);
            }
        }
    }
}

#[test]
fn random_sizes_end_up_in_order() {
    let seed = std::env::var("ESKER_SEED")
        .ok()
        .map_or_else(|| OsClock::new().unix_micros(), |text| text.parse().unwrap());
    println!("ESKER_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    for _ in 0..30 {
        let limit = [200, 5000, 300_000][rng.random_range(0..3)];
        let sizes: Vec<usize> = (0..rng.random_range(1..40)).map(|_| rng.random_range(0..limit)).collect();
        let options = AppendOptions {
            preallocate: rng.random_range(0..3 * WINDOW_BYTES),
            mapped: rng.random_bool(0.7),
            uncached: rng.random_bool(0.3),
        };
        check(options, &sizes);
    }
}

#[test]
fn mapping_is_used_where_the_file_system_writes_in_place() {
    let mut directories = vec![directory()];
    directories.extend(tempfile::tempdir_in("/dev/shm"));
    for dir in directories {
        let path = dir.path().join("x");
        let file = create(&path, MAPPED);
        let in_place = sys::overwrites_in_place(&fs::File::open(&path).unwrap());
        assert_eq!(file.is_mapped(), in_place);
        for _ in 0..10_000 {
            file.append(&[7; 140]).unwrap();
        }
        assert_eq!(file.is_mapped(), in_place);
        let plain = OsFs::new().without_mapping().create_new(&dir.path().join("y"), MAPPED).unwrap();
        assert!(!plain.is_mapped());
    }
}

/// Write calls of this thread so far, if the system counts them.
fn write_calls() -> Option<u64> {
    let text = fs::read_to_string("/proc/thread-self/io").ok()?;
    text.lines().find_map(|line| line.strip_prefix("syscw: "))?.parse().ok()
}

#[test]
fn appending_through_the_window_makes_no_write_calls() {
    let dir = directory();
    let mapped = create(&dir.path().join("mapped"), MAPPED);
    let plain = create(&dir.path().join("plain"), AppendOptions { mapped: false, ..MAPPED });
    let calls = |file: &OsAppendFile| {
        let before = write_calls()?;
        for _ in 0..2000 {
            file.append(&[7; 140]).unwrap();
        }
        Some(write_calls()? - before)
    };
    let (through_window, plainly) = (calls(&mapped), calls(&plain));
    if mapped.is_mapped() && plainly.is_some() {
        assert_eq!((through_window, plainly), (Some(0), Some(2000)));
    }
}

#[test]
fn the_reservation_shows_in_the_length_until_the_file_is_finished() {
    for mapped in [false, true] {
        let dir = directory();
        let path = dir.path().join("x");
        let file = create(&path, AppendOptions { preallocate: 100_000, mapped, uncached: false });
        file.append(b"abc").unwrap();
        let listed = OsFs::new().list(dir.path()).unwrap();
        let read = OsFs::new().open(&path).unwrap();
        assert_eq!((file.len(), listed[0].len, read.len().unwrap()), (3, 100_000, 100_000));
        // The blocks are there, and none of them was written by us.
        assert!(fs::metadata(&path).unwrap().blocks() * 512 >= 100_000);
        file.finish().unwrap();
        assert_eq!(read.len().unwrap(), 3);
    }
}

#[test]
fn a_dropped_file_keeps_what_was_appended() {
    let dir = directory();
    for mapped in [false, true] {
        let path = dir.path().join(mapped.to_string());
        let file = create(&path, AppendOptions { mapped, ..MAPPED });
        file.append(b"abc").unwrap();
        drop(file);
        assert!(fs::read(&path).unwrap().starts_with(b"abc\0"));
    }
}

#[test]
fn syncs_and_hints_on_other_threads_do_not_disturb_appends() {
    for mapped in [false, true] {
        let dir = directory();
        let path = dir.path().join("x");
        let expected = pattern(3_000_000);
        let file = create(&path, AppendOptions { mapped, ..MAPPED });
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let syncer = || {
                while !done.load(Ordering::Relaxed) {
                    file.start_writeback();
                    let promised = file.len() as usize;
                    file.sync().unwrap();
                    assert!(fs::read(&path).unwrap().starts_with(&expected[..promised]));
                }
            };
            scope.spawn(syncer);
            scope.spawn(syncer);
            for piece in expected.chunks(333) {
                file.append(piece).unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
        file.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), expected);
    }
}

#[test]
fn a_failed_sync_fails_all_later_ones_and_appends() {
    let dir = directory();
    let path = dir.path().join("x");
    let file = create(&path, AppendOptions::default());
    file.append(&pattern(100)).unwrap();
    file.sync().unwrap();
    let other = fs::OpenOptions::new().write(true).open(&path).unwrap();
    other.set_len(10).unwrap();
    assert_eq!(
        file.sync().unwrap_err().to_string(),
        "the file has 10 bytes instead of 100: it was changed from outside"
    );
    // Whatever it looks like afterwards.
    other.write_all_at(&pattern(100), 0).unwrap();
    let second = file.sync().unwrap_err();
    assert!(
        second.to_string().starts_with("an earlier sync of this file failed: the file has 10"),
        "{second}"
    );
    assert!(file.append(b"x").is_err());
    assert_eq!(file.len(), 100);
}

#[test]
fn finishing_notices_that_the_file_was_cut() {
    for (mapped, preallocate, cut) in [(false, 0, 50), (false, 1000, 500), (true, 1 << 20, 4096)] {
        let dir = directory();
        let path = dir.path().join("x");
        let file = create(&path, AppendOptions { preallocate, mapped, uncached: false });
        file.append(&pattern(100)).unwrap();
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(cut).unwrap();
        assert!(file.finish().is_err(), "cut to {cut}");
    }
}

#[test]
fn a_failed_append_ends_appending_and_keeps_the_length() {
    let dir = directory();
    let path = dir.path().join("x");
    // A file opened for reading only takes no writes.
    put(&path, b"");
    let file = OsAppendFile::new(fs::File::open(&path).unwrap(), AppendOptions::default()).unwrap();
    let first = file.append(b"abc").unwrap_err();
    let second = file.append(b"").unwrap_err();
    assert_eq!(second.to_string(), format!("an earlier append of this file failed: {first}"));
    assert_eq!(file.len(), 0);
    // What was appended before could still be made durable: the file is not poisoned.
    file.sync().unwrap();
    file.finish().unwrap();
    assert!(file.append(b"").is_err());
}
