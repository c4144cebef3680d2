//! Reading, in all ways it can be done.

use super::super::sys;
use super::*;

type Read = fn(&dyn ReadFile, u64, &mut [u8]) -> io::Result<()>;

fn mapped(file: &dyn ReadFile, offset: u64, buf: &mut [u8]) -> io::Result<()> {
    file.map(file.len()?)?.copy_out(offset, buf)
}

const WAYS: [(&str, Read); 3] = [
    ("read", |file, offset, buf| file.read_exact_at(offset, buf)),
    ("uncached", |file, offset, buf| file.read_exact_at_uncached(offset, buf)),
    ("mapped", mapped),
];

#[test]
fn all_ways_of_reading_give_the_same() {
    let dir = directory();
    let path = dir.path().join("x");
    let bytes = pattern(1_000_003);
    put(&path, &bytes);
    let file = OsFs::new().open(&path).unwrap();
    let end = bytes.len();
    let ranges = [(0, 0), (0, 1), (0, end), (4095, 4098), (end - 1, end), (end, end), (500_000, 900_001)];
    for (name, read) in WAYS {
        for (from, to) in ranges {
            let mut buf = vec![0; to - from];
            read(&*file, from as u64, &mut buf).unwrap();
            assert!(buf == bytes[from..to], "{name} {from}..{to}");
        }
    }
}

#[test]
fn buffers_of_all_sizes_are_zeros_that_can_be_read_into() {
    let dir = directory();
    let path = dir.path().join("x");
    let bytes = pattern(9_000_001);
    put(&path, &bytes);
    let file = OsFs::new().open(&path).unwrap();
    for len in [0, 1, 4097, bytes.len()] {
        let mut buffer = file.buffer(len);
        assert!(buffer.len() == len && buffer.iter().all(|byte| *byte == 0));
        file.read_exact_at(0, Arc::get_mut(&mut buffer).unwrap()).unwrap();
        assert!(*buffer == bytes[..len]);
    }
}

#[test]
fn reading_beyond_the_end_is_an_error_in_all_ways() {
    let dir = directory();
    for len in [0, 1, 5000] {
        let path = dir.path().join(len.to_string());
        put(&path, &pattern(len));
        let file = OsFs::new().open(&path).unwrap();
        let len = len as u64;
        for (name, read) in WAYS {
            for (offset, size) in [(len, 1), (len + 1, 1), (0, len as usize + 1), (1 << 40, 10)] {
                let result = read(&*file, offset, &mut vec![0; size]);
                assert_eq!(kind(result), Some(ErrorKind::UnexpectedEof), "{name} of {len} at {offset}");
            }
            assert!(read(&*file, u64::MAX, &mut [0]).is_err(), "{name}");
        }
    }
}

#[test]
fn a_mapping_is_as_long_as_asked_for() {
    let dir = directory();
    let path = dir.path().join("x");
    put(&path, &pattern(100));
    let file = OsFs::new().open(&path).unwrap();
    assert_eq!(file.len().unwrap(), 100);
    assert!(!file.is_empty().unwrap());
    let map = file.map(60).unwrap();
    map.copy_out(59, &mut [0]).unwrap();
    assert_eq!(kind(map.copy_out(59, &mut [0; 2])), Some(ErrorKind::UnexpectedEof));
    assert_eq!(kind(file.map(101)), Some(ErrorKind::UnexpectedEof));
    file.map(0).unwrap().copy_out(0, &mut []).unwrap();
}

#[test]
fn without_mapping_there_are_no_maps() {
    let dir = directory();
    let path = dir.path().join("x");
    put(&path, b"abc");
    let file = OsFs::new().without_mapping().open(&path).unwrap();
    assert_eq!(kind(file.map(3)), Some(ErrorKind::Unsupported));
    let mut buf = [0; 3];
    file.read_exact_at(0, &mut buf).unwrap();
    assert_eq!(&buf, b"abc");
}

#[test]
fn a_mapping_outlives_its_file_and_its_name() {
    let dir = directory();
    let path = dir.path().join("x");
    put(&path, &pattern(10_000));
    let map = OsFs::new().open(&path).unwrap().map(10_000).unwrap();
    fs::remove_file(&path).unwrap();
    let mut buf = vec![0; 10_000];
    map.copy_out(0, &mut buf).unwrap();
    assert_eq!(buf, pattern(10_000));
}

#[test]
fn opening_what_does_not_exist_says_so() {
    let dir = directory();
    assert_eq!(kind(OsFs::new().open(&dir.path().join("none"))), Some(ErrorKind::NotFound));
}

/// Pages of the file in the page cache.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "mincore has no safe form")]
fn cached_pages(path: &Path) -> usize {
    let file = fs::File::open(path).unwrap();
    let map = memmap2::MmapOptions::new().map_raw_read_only(&file).unwrap();
    let mut pages = vec![0_u8; map.len().div_ceil(sys::page_bytes())];
    // SAFETY: the mapping covers `map.len()` bytes and the vector has a byte for each of its pages.
    let answer = unsafe { libc::mincore(map.as_mut_ptr().cast(), map.len(), pages.as_mut_ptr()) };
    assert_eq!(answer, 0);
    pages.iter().filter(|page| *page & 1 == 1).count()
}

/// Whether the page cache is all there is of a file.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "statfs has no safe form")]
fn lives_in_memory(file: &fs::File) -> bool {
    use std::os::fd::AsRawFd;
    // SAFETY: a zeroed structure is valid, and filled by the call.
    let (answer, kind) = unsafe {
        let mut found: libc::statfs = std::mem::zeroed();
        (libc::fstatfs(file.as_raw_fd(), &raw mut found), found.f_type)
    };
    assert_eq!(answer, 0);
    kind == libc::TMPFS_MAGIC
}

#[test]
#[cfg(target_os = "linux")]
fn uncached_output_and_dropped_files_leave_the_page_cache() {
    let dir = directory();
    let os = OsFs::new();
    let path = dir.path().join("x");
    let bytes = pattern(1 << 20);
    let write = |uncached| {
        let file = os.create(&path, AppendOptions { uncached, ..AppendOptions::default() }).unwrap();
        for piece in bytes.chunks(4096).cycle().take(16 * 256) {
            file.append(piece).unwrap();
        }
        file.sync().unwrap();
        file.finish().unwrap();
        cached_pages(&path)
    };
    let pages = (16 << 20) / sys::page_bytes();
    let cached = write(false);
    os.drop_cache(&path);
    let dropped = cached_pages(&path);
    os.remove(&path).unwrap();
    let uncached = write(true);
    if !lives_in_memory(&fs::File::open(&path).unwrap()) {
        // Not all of them: the system may have needed memory since.
        assert!(cached > pages / 2, "{cached} of {pages} pages cached of ordinary output");
        assert!(dropped < pages / 8, "{dropped} of {pages} pages still cached after dropping");
        assert!(uncached < pages / 8, "{uncached} of {pages} pages still cached of uncached output");
    }
    let mut buf = vec![0; 1 << 20];
    os.open(&path).unwrap().read_exact_at_uncached(15 << 20, &mut buf).unwrap();
    assert!(buf == bytes);
}
