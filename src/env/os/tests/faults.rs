//! Files cut under their mappings: errors of that file, and nothing else happens.

use std::fs;

use super::super::append::OsAppendFile;
use super::super::writer::WINDOW_BYTES;
use super::*;
use crate::env::MappedFile;

const LEN: usize = 64 * 1024;

fn cut(path: &Path, len: u64) {
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
}

fn map(path: &Path) -> Arc<dyn MappedFile> {
    let file = OsFs::new().open(path).unwrap();
    file.map(file.len().unwrap()).unwrap()
}

fn check_readable(map: &dyn MappedFile) {
    let mut buf = vec![0; LEN];
    map.copy_out(0, &mut buf).unwrap();
    assert!(buf == pattern(LEN));
}

fn check_lost(map: &dyn MappedFile, offset: u64) {
    let error = map.copy_out(offset, &mut [0; 100]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Other);
    assert!(error.to_string().contains("could not be read"), "{error}");
}

#[test]
fn a_file_cut_under_its_mapping_is_an_error_of_that_file() {
    let dir = directory();
    let (good, bad) = (dir.path().join("good"), dir.path().join("bad"));
    put(&good, &pattern(LEN));
    let untouched = map(&good);
    for round in 0..500 {
        put(&bad, &pattern(LEN));
        let lost = map(&bad);
        check_readable(&*lost);
        cut(&bad, if round % 2 == 0 { 0 } else { 20_000 });
        check_lost(&*lost, 40_000);
        // For good, also where the file still has bytes, and when it is long again.
        check_lost(&*lost, 0);
        cut(&bad, LEN as u64);
        check_lost(&*lost, 40_000);
        check_readable(&*untouched);
        // A mapping made afterwards takes the place in the guard's table, and starts clean.
        drop(lost);
        check_readable(&*map(&good));
        fs::remove_file(&bad).unwrap();
    }
}

#[test]
fn a_cut_within_a_page_gives_zeros_that_only_a_checksum_sees() {
    let dir = directory();
    let path = dir.path().join("x");
    put(&path, &pattern(LEN));
    let map = map(&path);
    cut(&path, 100);
    let mut buf = [1; 200];
    map.copy_out(0, &mut buf).unwrap();
    assert_eq!(buf[..100], pattern(100));
    assert_eq!(buf[100..], [0; 100]);
}

#[test]
fn faults_on_many_threads_hit_only_their_own_files() {
    let dir = directory();
    let good = dir.path().join("good");
    put(&good, &pattern(LEN));
    let untouched = map(&good);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (dir, good, untouched) = (dir.path(), &good, &untouched);
            scope.spawn(move || {
                for round in 0..200 {
                    let bad = dir.join(format!("{thread}-{round}"));
                    put(&bad, &pattern(LEN));
                    let lost = map(&bad);
                    cut(&bad, 0);
                    check_readable(&*map(good));
                    check_lost(&*lost, (round % 16) * 4096);
                    check_readable(&**untouched);
                    fs::remove_file(&bad).unwrap();
                }
            });
        }
    });
}

#[test]
fn several_threads_may_fault_in_one_mapping() {
    let dir = directory();
    for round in 0..50 {
        let path = dir.path().join(round.to_string());
        put(&path, &pattern(LEN));
        let map = map(&path);
        cut(&path, 0);
        std::thread::scope(|scope| {
            for offset in [0, 4096, 8192, 60_000] {
                let map = &map;
                scope.spawn(move || check_lost(&**map, offset));
            }
        });
    }
}

#[test]
fn a_reader_racing_with_the_cut_sees_the_bytes_or_an_error_or_zeros_of_the_last_page() {
    let dir = directory();
    let expected = pattern(LEN);
    for round in 0..100 {
        let path = dir.path().join(round.to_string());
        put(&path, &expected);
        let map = map(&path);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut buf = vec![0; LEN];
                while map.copy_out(0, &mut buf).is_ok() {
                    assert!(buf == expected);
                }
            });
            // At a page, so that there is no last page with zeros.
            cut(&path, 8192);
        });
        check_lost(&*map, 0);
    }
}

#[test]
fn the_table_of_regions_grows_and_finds_each_one() {
    let dir = directory();
    let paths: Vec<_> = (0..300).map(|i| dir.path().join(i.to_string())).collect();
    paths.iter().for_each(|path| put(path, &pattern(LEN)));
    let maps: Vec<_> = paths.iter().map(|path| map(path)).collect();
    paths.iter().step_by(7).for_each(|path| cut(path, 0));
    for (i, map) in maps.iter().enumerate() {
        if i % 7 == 0 { check_lost(&**map, 12_345) } else { check_readable(&**map) }
    }
}

fn mapped_file(path: &Path) -> OsAppendFile {
    let options = AppendOptions { preallocate: 4 * WINDOW_BYTES, mapped: true, uncached: false };
    OsFs::new().create_new(path, options).unwrap()
}

/// A file whose mapped window lost its ground.
fn check_poisoned(file: &OsAppendFile, len: u64) {
    assert!(file.append(&[7; 140]).is_err());
    assert!(file.is_poisoned());
    assert_eq!(file.len(), len, "nothing counts as appended by the failed call");
    assert!(file.append(b"x").is_err());
    assert!(file.sync().is_err());
    assert!(file.finish().is_err());
    assert!(file.is_poisoned());
}

#[test]
fn a_log_cut_under_its_window_is_poisoned() {
    let dir = directory();
    for round in 0..200 {
        let path = dir.path().join("x");
        let file = mapped_file(&path);
        if !file.is_mapped() {
            return;
        }
        for _ in 0..round {
            file.append(&[7; 140]).unwrap();
        }
        if round % 20 == 0 {
            file.sync().unwrap();
        }
        cut(&path, 0);
        check_poisoned(&file, 140 * round);
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_log_cut_before_its_next_window_is_poisoned() {
    let dir = directory();
    let path = dir.path().join("x");
    let file = mapped_file(&path);
    if !file.is_mapped() {
        return;
    }
    file.append(&pattern(100)).unwrap();
    file.append(&pattern(WINDOW_BYTES as usize - 100)).unwrap();
    cut(&path, WINDOW_BYTES);
    check_poisoned(&file, WINDOW_BYTES);
}

#[test]
fn a_log_cut_and_not_written_since_fails_its_sync() {
    let dir = directory();
    let path = dir.path().join("x");
    let file = mapped_file(&path);
    file.append(&pattern(10_000)).unwrap();
    cut(&path, 5_000);
    assert!(file.sync().is_err());
    assert!(file.append(b"x").is_err());
}
