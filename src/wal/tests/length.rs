//! The length of a segment's file: reserved before the first record, said by the header, given back only behind a
//! record that ends the segment. So a file cut between two records is told from a log that ended there.

use super::*;
use crate::record::FILE_HEADER_BYTES;
use std::io::ErrorKind::StorageFull;

const RESERVING: LogOptions = LogOptions { mapped: true, ..OPTIONS };
const LAST: &str = "000002.wal";

fn bench() -> Bench {
    Bench::with(Disk::new(), RESERVING, LogStart { next: 1, ..LogStart::default() })
}

/// A log of two segments, the second of which is durable and proven but for its last commits.
fn sample() -> Bench {
    let mut bench = bench();
    bench.append(1, 1, 3000).unwrap();
    bench.append(2, 1, 2000).unwrap();
    bench.sync();
    bench.append_all([3, 4]);
    bench
}

/// Cuts the last segment to every length below `len`. Without any record it counts as one that was never used.
fn check_cuts(bench: &Bench, len: usize) {
    for cut in 0..len {
        let disk = bench.disk.copy();
        disk.cut(LAST, cut);
        match replay_all(&disk) {
            Ok(replay) => {
                assert!(cut <= FILE_HEADER_BYTES, "cut to {cut}");
                assert_eq!((seqs(&replay), replay.unused), (vec![1], vec![2]), "cut to {cut}");
            }
            Err(error) => assert_eq!(damaged_file(&error), LAST, "cut to {cut}"),
        }
    }
}

#[test]
fn a_cut_of_an_open_segment_is_found_at_every_length() {
    let bench = sample();
    assert_eq!(seqs(&bench.replay().unwrap()), [1, 2, 3, 4]);
    check_cuts(&bench, RESERVING.segment_bytes as usize);
}

#[test]
fn a_cut_of_a_closed_segment_is_found_at_every_length() {
    let mut bench = sample();
    bench.log.close().unwrap();
    let len = bench.disk.bytes(LAST).len();
    assert!(len < RESERVING.segment_bytes as usize, "the reserved tail is given back");
    assert_eq!(seqs(&bench.replay().unwrap()), [1, 2, 3, 4]);
    check_cuts(&bench, len);
}

#[test]
fn a_segment_is_ended_and_synced_before_it_is_cut() {
    let mut bench = bench();
    bench.append(1, 1, 3000).unwrap();
    bench.disk.take_calls();
    bench.append(2, 1, 3000).unwrap();
    let expected = ["append 000001.wal", "sync 000001.wal", "finish 000001.wal", "create 000002.wal"];
    assert_eq!(bench.disk.take_calls()[..4], expected);
    bench.log.close().unwrap();
    let expected = ["sync 000002.wal", "append 000002.wal", "sync 000002.wal", "finish 000002.wal"];
    assert_eq!(bench.disk.take_calls(), expected);
}

#[test]
fn a_log_that_stops_between_two_segments_is_whole() {
    let mut bench = bench();
    bench.append(1, 1, 3000).unwrap();
    bench.disk.fail("create", StorageFull, 0);
    bench.append(2, 1, 3000).unwrap_err();
    assert!(bench.disk.bytes("000001.wal").len() < RESERVING.segment_bytes as usize);
    assert_eq!(seqs(&replay_all(&bench.disk.crash()).unwrap()), [1]);
    bench.append(2, 1, 3000).unwrap();
    assert_eq!(seqs(&bench.replay().unwrap()), [1, 2]);
}

#[test]
fn a_record_that_cannot_be_ended_leaves_the_file_as_it_is() {
    let mut bench = bench();
    bench.append(1, 1, 3000).unwrap();
    bench.disk.fail("append", StorageFull, 20);
    bench.append(2, 1, 3000).unwrap_err();
    assert_eq!(seqs(&replay_all(&bench.disk.copy()).unwrap()), [1]);
    bench.append(2, 1, 3000).unwrap();
    assert!(!bench.disk.take_calls().contains(&"finish 000001.wal".to_string()), "its tail is undefined");
    assert_eq!(seqs(&bench.replay().unwrap()), [1, 2]);
}

#[test]
fn the_end_has_its_room_and_a_segment_beyond_its_length_needs_none() {
    for bytes in [1, 40, 333, 1000] {
        let mut bench = bench();
        for seq in 1..=40 {
            bench.append(seq, 1, bytes).unwrap();
        }
        for name in bench.disk.names() {
            assert!(bench.disk.bytes(&name).len() <= RESERVING.segment_bytes as usize, "{name}");
        }
        assert_eq!(seqs(&bench.replay().unwrap()), (1..=40).collect::<Vec<_>>());
    }
    let mut bench = bench();
    bench.append(1, 1, 10_000).unwrap();
    bench.log.close().unwrap();
    assert_eq!(seqs(&bench.replay().unwrap()), [1]);
}

#[test]
fn nothing_follows_the_end() {
    use crate::base::checksum::{FileTag, Origin};
    let mut bench = sample();
    bench.log.close().unwrap();
    bench.disk.damage(LAST, |bytes| {
        let (first_seq, count, synced_upto) = (5, 1, bytes.len() as u64);
        let meta = crate::record::RecordMeta { kind: RecordKind::Batch, first_seq, count, synced_upto };
        let payload = payload(5, 1, 10);
        crate::record::encode(Origin::new(DB, FileTag::Log, 2), bytes.len() as u64, &meta, &payload, bytes);
    });
    assert_eq!(damaged_file(&bench.replay().unwrap_err()), LAST);
}
