//! Replay: which segments are read, what is dropped, what is refused.

use super::*;
use crate::record::FILE_HEADER_BYTES;
use crate::wal::link::Predecessor;

/// A log of three segments with the batches 1 to 3, and one prepared segment.
fn three_segments() -> Disk {
    let mut bench = Bench::new();
    for seq in 1..=3 {
        bench.append(seq, 1, 3000).unwrap();
    }
    bench.sync();
    bench.prepare_next();
    bench.disk
}

#[test]
fn an_empty_directory_is_an_empty_log() {
    let disk = Disk::new();
    disk.write("MANIFEST-A", vec![1, 2, 3]);
    disk.write("junk.wal", vec![1, 2, 3]);
    let replay = replay(&disk.env(), dir(), DB, 7, None).unwrap();
    assert_eq!((replay.last_seq, replay.dropped_bytes, replay.segments.len()), (0, 0, 0));
    assert_eq!(replay.start, LogStart { next: 7, predecessor: None, live: vec![] });
}

#[test]
fn replay_touches_nothing_and_says_how_to_go_on() {
    let disk = three_segments();
    disk.take_calls();
    let replay = replay_all(&disk).unwrap();
    assert!(disk.take_calls().iter().all(|call| call.starts_with("open ")));
    assert_eq!(seqs(&replay), [1, 2, 3]);
    assert_eq!((replay.last_seq, replay.dropped_bytes), (3, 0));
    assert_eq!((&replay.unused[..], &replay.obsolete[..]), (&[4][..], &[][..]));
    let bytes = |name| disk.bytes(name).len() as u64;
    let live = vec![(1, bytes("000001.wal")), (2, bytes("000002.wal")), (3, bytes("000003.wal"))];
    let predecessor = Predecessor { number: 3, valid_len: bytes("000003.wal"), last_seq: 3 };
    assert_eq!(replay.start, LogStart { next: 5, predecessor: Some(predecessor), live });
}

#[test]
fn segments_before_the_first_needed_are_not_read() {
    let disk = three_segments();
    disk.damage("000001.wal", |bytes| bytes.fill(9));
    let replay = replay(&disk.env(), dir(), DB, 2, None).unwrap();
    assert_eq!((seqs(&replay), replay.obsolete), (vec![2, 3], vec![1]));
    disk.delete("000001.wal");
    let replay = super::replay(&disk.env(), dir(), DB, 3, None).unwrap();
    assert_eq!((seqs(&replay), replay.obsolete), (vec![3], vec![2]));
    let replay = super::replay(&disk.env(), dir(), DB, 4, None).unwrap();
    assert_eq!((seqs(&replay), replay.last_seq, replay.start.next), (vec![], 0, 5));
    let replay = super::replay(&disk.env(), dir(), DB, 9, None).unwrap();
    assert_eq!((replay.obsolete, replay.start.next), (vec![2, 3, 4], 9));
}

#[test]
fn the_last_sequence_is_known_from_the_link_alone() {
    let mut bench = Bench::new();
    bench.append_all([1, 2]);
    bench.log.seal();
    bench.append_all([3]);
    let disk = bench.disk;
    disk.damage("000002.wal", |bytes| bytes.truncate(FILE_HEADER_BYTES + 32 + 24));
    let replay = replay(&disk.env(), dir(), DB, 2, None).unwrap();
    assert_eq!((seqs(&replay), replay.last_seq), (vec![], 2));
}

#[test]
fn a_pool_gives_the_same_as_one_thread() {
    let mut bench = Bench::new();
    bench.append_all(1..=1000);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    let alone = bench.replay().unwrap();
    let together = replay(&bench.disk.env(), dir(), DB, 1, Some(&pool)).unwrap();
    assert_eq!(seqs(&together), (1..=1000).collect::<Vec<_>>());
    assert_eq!(together.start, alone.start);
    for (left, right) in alone.segments.iter().zip(&together.segments) {
        assert_eq!(left.batches, right.batches);
    }
    // Two damaged segments: the first error in order, whichever thread is faster.
    for name in ["000004.wal", "000009.wal"] {
        bench.disk.damage(name, |bytes| bytes[200] ^= 1);
    }
    for _ in 0..20 {
        let error = replay(&bench.disk.env(), dir(), DB, 1, Some(&pool)).unwrap_err();
        assert_eq!(damaged_file(&error), "000004.wal");
    }
}

#[test]
fn payloads_share_the_bytes_of_the_segment_unless_they_cross_a_block() {
    let options = LogOptions { segment_bytes: 1 << 20, mapped: false };
    let mut bench = Bench::with(Disk::new(), options, LogStart { next: 1, ..LogStart::default() });
    for seq in 1..=40 {
        bench.append(seq, 1, 2000).unwrap();
    }
    let replay = bench.replay().unwrap();
    let segment = &replay.segments[0];
    let shared = segment.batches.batches.iter().filter(|batch| batch.shared_at.is_some()).count();
    assert_eq!((seqs(&replay).len(), shared), (40, 38));
}

#[test]
fn the_reserved_tail_of_a_mapped_segment_is_a_clean_end() {
    for segment_bytes in [4096, 40_000, 1 << 20] {
        let options = LogOptions { segment_bytes, mapped: true };
        let mut bench = Bench::with(Disk::new(), options, LogStart { next: 1, ..LogStart::default() });
        bench.append_all([1]);
        // A batch whose last bytes are zeros: they are not part of the tail.
        bench.log.append(RecordKind::Batch, 256, 1, &payload(256, 1, 500)).unwrap();
        let prepared = prepare(&bench.disk.env(), dir(), DB, 2, &options).unwrap();
        bench.log.offer_prepared(prepared);
        let replay = bench.replay().unwrap();
        assert_eq!(seqs(&replay), [1, 256]);
        assert_eq!((replay.dropped_bytes, replay.unused), (0, vec![2]));
        assert!(replay.segments[0].len <= 32 * 1024, "memory only for what is used");
    }
}

/// Puts a file of these bytes beside or instead of those of [`three_segments`] and reads.
fn check_chain(name: &str, change: impl FnOnce(&Disk), expected: Result<(&[SeqNo], &[SegmentNo]), &str>) {
    let disk = three_segments();
    change(&disk);
    match (replay_all(&disk), expected) {
        (Ok(replay), Ok((expected, unused))) => {
            assert_eq!((&seqs(&replay)[..], &replay.unused[..]), (expected, unused), "{name}");
        }
        (Err(error), Err(file)) => assert_eq!(damaged_file(&error), file, "{name}: {error}"),
        (found, _) => panic!("{name}: {found:?}"),
    }
}

#[test]
fn the_chain_is_whole_or_refused() {
    let zeros = |name: &'static str| move |disk: &Disk| disk.damage(name, |bytes| bytes.fill(0));
    let no_header = |name: &'static str| move |disk: &Disk| disk.damage(name, |bytes| bytes[..64].fill(0));
    let header_only = |name: &'static str| move |disk: &Disk| disk.damage(name, |bytes| bytes.truncate(64));
    let gone = |name: &'static str| move |disk: &Disk| disk.delete(name);
    let write = |name: &'static str, bytes: Vec<u8>| move |disk: &Disk| disk.write(name, bytes);
    let (one, two, three) = ("000001.wal", "000002.wal", "000003.wal");

    check_chain("nothing", |_| (), Ok((&[1, 2, 3], &[4])));
    check_chain("first missing", gone(one), Err(one));
    check_chain("middle missing", gone(two), Err(two));
    check_chain("first zeroed", zeros(one), Err(one));
    check_chain("middle zeroed", zeros(two), Err(two));
    check_chain("middle without records", header_only(two), Err(two));
    check_chain("middle without header", no_header(two), Err(two));
    check_chain("last without header", no_header(three), Err(three));
    check_chain("prepared without header", no_header("000004.wal"), Ok((&[1, 2, 3], &[4])));
    check_chain("prepared empty", |disk| disk.damage("000004.wal", Vec::clear), Ok((&[1, 2, 3], &[4])));
    check_chain("prepared missing", gone("000004.wal"), Ok((&[1, 2, 3], &[])));
    // Nothing knows of a last segment that vanished whole.
    check_chain("last missing", gone(three), Ok((&[1, 2], &[4])));
    check_chain("last without records", header_only(three), Ok((&[1, 2], &[3, 4])));

    let header = |number| crate::record::FileHeader::new(crate::base::checksum::FileTag::Log, DB, number);
    let numbered = |number| header(number).encode().to_vec();
    let junk = |number| [numbered(number), vec![7; 100]].concat();
    check_chain("two prepared", write("000005.wal", numbered(5)), Ok((&[1, 2, 3], &[4, 5])));
    check_chain(
        "a half-made one among prepared",
        write("000005.wal", vec![0; 30]),
        Ok((&[1, 2, 3], &[4, 5])),
    );
    check_chain("a torn link", write("000005.wal", junk(5)), Ok((&[1, 2, 3], &[4, 5])));
    check_chain("header of another segment", write("000005.wal", numbered(6)), Err("000005.wal"));
    check_chain("an old file", write("000000.wal", junk(0)), Ok((&[1, 2, 3], &[4])));
}

#[test]
fn a_file_of_another_database_or_a_later_version_is_refused() {
    let disk = three_segments();
    let error = replay(&disk.env(), dir(), DB + 1, 1, None).unwrap_err();
    assert_eq!(damaged_file(&error), "000001.wal");

    disk.damage("000004.wal", |bytes| {
        bytes[8] = 2;
        let sum = crate::base::checksum::plain(&bytes[..56]);
        bytes[56..64].copy_from_slice(&sum.to_le_bytes());
    });
    assert_eq!(replay_all(&disk).unwrap_err().kind(), ErrorKind::VersionUnsupported);
}

#[test]
fn leftovers_between_segments_hold_no_commits() {
    // A segment that was given up after a failed link, and one that was removed and came back.
    let mut bench = Bench::new();
    bench.append_all([1]);
    bench.log.seal();
    bench.append_all([2]);
    let fork = bench.disk.copy();
    let two = bench.disk.bytes("000002.wal");

    // The log goes on from 1 as if 2 had never been: with only a link in 2 that is a leftover, with a commit a hole.
    for (bytes, expected) in [(64, Ok(())), (64 + 56, Ok(())), (two.len(), Err("000002.wal"))] {
        let disk = fork.copy();
        disk.delete("000002.wal");
        let mut start = replay_all(&disk).unwrap().start;
        start.next = 3;
        Bench::with(disk.clone(), OPTIONS, start).append_all([2, 3]);
        disk.write("000002.wal", two[..bytes].to_vec());
        match replay_all(&disk) {
            Ok(replay) => assert_eq!((seqs(&replay), Ok(())), (vec![1, 2, 3], expected)),
            Err(error) => assert_eq!(Err(&damaged_file(&error)[..]), expected),
        }
    }
}

#[test]
fn errors_of_the_disk_are_not_absence() {
    let disk = three_segments();
    disk.fail("open", std::io::ErrorKind::Other, 0);
    assert_eq!(replay_all(&disk).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(seqs(&replay_all(&disk).unwrap()), [1, 2, 3]);
}

#[test]
fn segments_are_synced_and_dropped_from_the_cache_before_an_unclean_replay() {
    let disk = three_segments();
    disk.take_calls();
    sync_segments(&disk.env(), dir(), 3).unwrap();
    let expected =
        ["sync_file 000003.wal", "drop_cache 000003.wal", "sync_file 000004.wal", "drop_cache 000004.wal"];
    assert_eq!(disk.take_calls(), expected);
    disk.fail("sync_file", std::io::ErrorKind::Other, 0);
    assert_eq!(sync_segments(&disk.env(), dir(), 3).unwrap_err().kind(), ErrorKind::Io);
}
