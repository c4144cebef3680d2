//! The writer: order of calls, rotation, failures, the end.

use super::*;
use crate::base::types::SEQ_MAX;
use std::io::ErrorKind::{AlreadyExists, Other, PermissionDenied, StorageFull};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

fn path(name: &str) -> PathBuf {
    dir().join(name)
}

#[test]
fn names_round_trip_and_others_are_not_segments() {
    for number in [0, 1, 999_999, 1_000_000, u64::MAX] {
        let path = segment_path(dir(), number);
        assert_eq!(parse_segment_name(path.file_name().unwrap().to_str().unwrap()), Some(number));
    }
    assert_eq!(segment_path(dir(), 12), path("000012.wal"));
    for name in
        ["", ".wal", "12.wal", "0000012.wal", "000012.sst", "000012.wal.tmp", "+00012.wal", "-00012.wal"]
    {
        assert_eq!(parse_segment_name(name), None, "{name}");
    }
}

#[test]
fn a_new_log_creates_nothing_before_its_first_record() {
    let mut bench = Bench::new();
    assert!(bench.log.active().is_none());
    assert_eq!((bench.log.live_bytes(), bench.log.oldest_live(), bench.log.next_number()), (0, None, 1));
    assert!(!bench.log.write_proof().unwrap());
    assert_eq!(bench.log.close().unwrap(), 1);
    assert_eq!(bench.disk.take_calls(), [""; 0]);
}

#[test]
fn header_and_directory_are_durable_before_the_first_record_and_a_record_is_one_call() {
    let mut bench = Bench::new();
    assert_eq!(bench.append(1, 1, 100).unwrap(), 1);
    assert_eq!(bench.append(2, 3, 100).unwrap(), 1);
    let expected = [
        "create 000001.wal",
        "append 000001.wal", // header
        "sync 000001.wal",
        "sync_dir db",
        "append 000001.wal", // link
        "append 000001.wal",
        "append 000001.wal",
    ];
    assert_eq!(bench.disk.take_calls(), expected);
    assert_eq!(seqs(&bench.replay().unwrap()), [1, 2]);
}

#[test]
fn the_old_segment_is_durable_before_the_new_one_names_it() {
    let mut bench = Bench::new();
    bench.append(1, 1, 3000).unwrap();
    bench.disk.take_calls();
    assert_eq!(bench.append(2, 1, 3000).unwrap(), 2);
    let expected = [
        "sync 000001.wal",
        "finish 000001.wal",
        "create 000002.wal",
        "append 000002.wal",
        "sync 000002.wal",
        "sync_dir db",
        "append 000002.wal", // link
        "append 000002.wal",
    ];
    assert_eq!(bench.disk.take_calls(), expected);

    assert_eq!(bench.prepare_next(), 3);
    assert_eq!(bench.log.wants_prepared(), None);
    bench.disk.take_calls();
    assert_eq!(bench.append(3, 1, 3000).unwrap(), 3);
    let expected = ["sync 000002.wal", "finish 000002.wal", "append 000003.wal", "append 000003.wal"];
    assert_eq!(bench.disk.take_calls(), expected, "a prepared segment is used as it is");
    assert_eq!(bench.log.wants_prepared(), Some(4));
    assert_eq!(seqs(&bench.replay().unwrap()), [1, 2, 3]);
}

#[test]
fn a_segment_ends_before_its_length_and_a_huge_record_gets_its_own() {
    let mut bench = Bench::new();
    for seq in 1..=100 {
        bench.append(seq, 1, 300).unwrap();
    }
    let replay = bench.replay().unwrap();
    assert!(replay.segments.len() > 5);
    assert!(replay.segments.iter().all(|segment| segment.valid_len <= OPTIONS.segment_bytes));

    bench.append(101, 1, 100_000).unwrap();
    bench.append(102, 1, 100_000).unwrap();
    bench.append(103, 1, 10).unwrap();
    let numbers: Vec<SegmentNo> =
        bench.replay().unwrap().start.live.iter().map(|(number, _)| *number).collect();
    let first_huge = replay.segments.len() as u64 + 1;
    assert_eq!(numbers, (1..=first_huge + 2).collect::<Vec<_>>());
    assert_eq!(seqs(&bench.replay().unwrap()), (1..=103).collect::<Vec<_>>());
}

#[test]
fn seal_begins_a_new_segment_once() {
    let mut bench = Bench::new();
    bench.log.seal();
    bench.append_all([1]);
    bench.log.seal();
    bench.log.seal();
    assert_eq!(bench.append(2, 1, 10).unwrap(), 2);
    assert_eq!(bench.append(3, 1, 10).unwrap(), 2);
}

#[test]
fn only_rising_sequences_of_batches_are_taken() {
    let mut bench = Bench::new();
    bench.append(10, 5, 100).unwrap();
    let cases = [
        (RecordKind::Batch, 14, 1),
        (RecordKind::Batch, 1, 1),
        (RecordKind::Batch, 20, 0),
        (RecordKind::Batch, SEQ_MAX, 2),
        (RecordKind::Batch, u64::MAX, 1),
        (RecordKind::Link, 20, 1),
        (RecordKind::SyncProof, 20, 1),
        (RecordKind::Edit, 20, 1),
    ];
    for (kind, first_seq, count) in cases {
        let error = bench.log.append(kind, first_seq, count, &[0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{kind:?} {first_seq} {count}");
    }
    bench.append(15, 1, 10).unwrap();
    bench.append(100, 1, 10).unwrap();
    bench.append(SEQ_MAX, 1, 10).unwrap();
    let replay = bench.replay().unwrap();
    assert_eq!(seqs(&replay), [10, 15, 100, SEQ_MAX], "gaps are of commits that are not logged");
    assert_eq!(replay.last_seq, SEQ_MAX);
}

#[test]
fn a_failed_append_seals_the_segment_at_the_length_before_it() {
    let record = payload(2, 1, 100).len() + 32;
    for written in [0, 1, 20, 40, record - 1, record] {
        let mut bench = Bench::new();
        bench.append_all([1]);
        let valid_len = bench.log.active().unwrap().len();
        bench.disk.fail("append", StorageFull, written);
        assert_eq!(bench.append(2, 1, 100).unwrap_err().kind(), ErrorKind::NoSpace);
        assert_eq!(bench.sync(), 1, "what is before it can still be made durable");

        let crashed = replay_all(&bench.disk).unwrap();
        if written < record {
            assert_eq!(seqs(&crashed), [1]);
            assert_eq!(crashed.start.predecessor.unwrap().valid_len, valid_len);
        }
        // The sequence number was not used, so another commit takes it.
        assert_eq!(bench.append(2, 2, 200).unwrap(), 2);
        assert!(!bench.disk.take_calls().contains(&"finish 000001.wal".to_string()), "its tail is undefined");
        let replay = bench.replay().unwrap();
        assert_eq!(seqs(&replay), [1, 2]);
        assert_eq!(replay.segments[1].batches.batches[0].count, 2);
        assert_eq!(replay.start.live[0], (1, valid_len));
        assert_eq!(replay.dropped_bytes, 0);
    }
}

#[test]
fn a_failed_creation_uses_up_its_number_and_is_not_fatal() {
    for (call, error) in [("create", ErrorKind::NoSpace), ("append", ErrorKind::NoSpace)] {
        let mut bench = Bench::new();
        bench.append_all([1]);
        bench.log.seal();
        bench.disk.fail(call, StorageFull, 10);
        assert_eq!(bench.append(2, 1, 100).unwrap_err().kind(), error);
        assert_eq!(bench.disk.names(), ["000001.wal"], "{call}");
        assert!(bench.log.active().is_none());
        assert_eq!(bench.append(2, 1, 100).unwrap(), 3);
        assert_eq!(seqs(&bench.replay().unwrap()), [1, 2]);
    }
}

#[test]
fn a_leftover_of_a_failed_creation_is_named_and_harmless() {
    let mut bench = Bench::new();
    bench.append_all([1]);
    bench.log.seal();
    bench.disk.fail("append", StorageFull, 10);
    bench.disk.fail("remove", PermissionDenied, 0);
    let error = bench.append(2, 1, 100).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    assert!(error.to_string().contains("000002.wal stays behind"), "{error}");
    assert_eq!(seqs(&bench.replay().unwrap()), [1], "as the last segment");
    bench.append_all([2]);
    let replay = bench.replay().unwrap();
    assert_eq!((seqs(&replay), replay.unused), (vec![1, 2], vec![2]), "between segments");
}

#[test]
fn a_number_that_is_taken_is_passed_over() {
    let mut bench = Bench::new();
    bench.append_all([1]);
    // A background thread has created the next segment but not yet handed it over when the log rotates.
    let late = prepare(&bench.disk.env(), dir(), DB, 2, &OPTIONS).unwrap();
    bench.log.seal();
    assert_eq!(bench.append(2, 1, 100).unwrap(), 3);
    bench.log.offer_prepared(late);
    assert_eq!(bench.log.wants_prepared(), Some(4));
    assert_eq!(bench.log.forget_before(0), [path("000002.wal")]);

    let error = prepare(&bench.disk.env(), dir(), DB, 3, &OPTIONS).unwrap_err();
    assert_eq!(error.io_fault().unwrap().error.kind(), AlreadyExists);
    assert_eq!(seqs(&bench.replay().unwrap()), [1, 2], "the file that was there is untouched");
}

#[test]
fn a_failed_link_leaves_its_segment_out_of_the_chain() {
    let link = 64;
    for written in [0, 10, link] {
        let mut bench = Bench::new();
        bench.append_all([1, 2]);
        bench.prepare_next();
        bench.log.seal();
        bench.disk.fail("append", Other, written);
        assert_eq!(bench.append(3, 1, 100).unwrap_err().kind(), ErrorKind::Io);
        assert_eq!(seqs(&bench.replay().unwrap()), [1, 2], "{written}");
        assert_eq!(bench.append(3, 1, 100).unwrap(), 3);
        let replay = bench.replay().unwrap();
        assert_eq!(seqs(&replay), [1, 2, 3], "{written}");
        assert_eq!((replay.unused, replay.dropped_bytes), (vec![2], 0));
        assert_eq!(bench.log.forget_before(0), [path("000002.wal")]);
    }
}

#[test]
fn the_first_segment_of_a_log_can_fail_too() {
    let mut bench = Bench::new();
    bench.disk.fail("append", StorageFull, 10);
    bench.append(1, 1, 100).unwrap_err();
    bench.prepare_next();
    bench.disk.fail("append", StorageFull, 10);
    bench.append(1, 1, 100).unwrap_err();
    bench.append_all([1]);
    let replay = bench.replay().unwrap();
    assert_eq!((seqs(&replay), replay.unused), (vec![1], vec![2]));
}

/// A failure after which the log must not be written, and stays so.
fn check_poisoned(name: &str, bench: Bench, error: Error) {
    assert_eq!(error.kind(), ErrorKind::Poisoned, "{name}: {error}");
    check_final(name, bench);
}

fn check_final(name: &str, mut bench: Bench) {
    bench.disk.take_calls();
    assert_eq!(bench.append(100, 1, 10).unwrap_err().kind(), ErrorKind::Poisoned, "{name}");
    assert_eq!(bench.log.write_proof().unwrap_err().kind(), ErrorKind::Poisoned, "{name}");
    assert_eq!(bench.log.close().unwrap_err().kind(), ErrorKind::Poisoned, "{name}");
    assert_eq!(bench.disk.take_calls(), [""; 0], "{name}: nothing is tried again");
}

#[test]
fn a_failed_sync_is_final() {
    let mut bench = Bench::new();
    bench.append_all([1]);
    let segment = bench.log.active().unwrap();
    bench.disk.fail("sync", Other, 0);
    let error = segment.sync().unwrap_err();
    bench.disk.take_calls();
    assert_eq!(segment.sync().unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(bench.disk.take_calls(), [""; 0], "no second try that would succeed");
    assert_eq!(segment.synced_upto(), 64);
    check_poisoned("sync", bench, error);
}

#[test]
fn failures_of_durability_during_a_change_of_segments_are_final() {
    // Of the calls of a rotation: the n-th of this name fails.
    for call in ["sync", "finish", "sync_dir"] {
        let mut bench = Bench::new();
        bench.append_all([1]);
        bench.log.seal();
        bench.disk.fail(call, Other, 0);
        let error = bench.append(2, 1, 10).unwrap_err();
        let names = bench.disk.names();
        assert_eq!(names, ["000001.wal"], "{call}: a half-made segment is removed");
        assert_eq!(seqs(&bench.replay().unwrap()), [1]);
        check_poisoned(call, bench, error);
    }
    let mut bench = Bench::new();
    bench.append_all([1]);
    bench.sync();
    bench.log.seal();
    bench.disk.fail("sync", Other, 0);
    let error = bench.append(2, 1, 10).unwrap_err();
    assert_eq!(bench.disk.names(), ["000001.wal"]);
    check_poisoned("sync of the new header", bench, error);
}

#[test]
fn a_failed_store_into_the_mapped_window_is_final() {
    let mut bench = Bench::new();
    bench.append_all([1]);
    bench.disk.poison("000001.wal");
    let error = bench.append(2, 1, 10).unwrap_err();
    assert_eq!(bench.log.active().unwrap().last_seq(), 1);
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    check_final("found by the append", bench);

    let mut bench = Bench::new();
    bench.append_all([1]);
    bench.disk.poison("000001.wal");
    let segment = bench.log.active().unwrap();
    let error = segment.sync().unwrap_err();
    assert_eq!(segment.synced_upto(), 64);
    check_poisoned("found by the sync", bench, error);
}

#[test]
fn a_sync_claims_only_what_was_appended_before_it() {
    let bench = Bench::new();
    let disk = bench.disk.clone();
    let bench = Arc::new(Mutex::new(bench));
    bench.lock().unwrap().append_all([1, 2]);
    let segment = bench.lock().unwrap().log.active().unwrap();
    let len = segment.len();
    let during = Arc::clone(&bench);
    disk.during_next_sync(move || during.lock().unwrap().append_all([3]));
    assert_eq!(segment.sync().unwrap(), 2);
    assert_eq!(segment.synced_upto(), len);
    assert!(segment.len() > len);
    assert_eq!(seqs(&replay_all(&disk.crash()).unwrap()), [1, 2]);
    assert_eq!(segment.sync().unwrap(), 3);
    assert_eq!(seqs(&replay_all(&disk.crash()).unwrap()), [1, 2, 3]);
    disk.take_calls();
    assert_eq!(segment.sync().unwrap(), 3);
    assert_eq!(disk.take_calls(), [""; 0], "nothing new, nothing to do");
}

#[test]
fn threads_that_sync_while_one_appends_never_claim_too_much() {
    let mut bench = Bench::with(
        Disk::new(),
        LogOptions { segment_bytes: 1 << 20, mapped: false },
        LogStart { next: 1, ..LogStart::default() },
    );
    bench.append_all([1]);
    let segment = bench.log.active().unwrap();
    let disk = bench.disk.clone();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (segment, disk) = (Arc::clone(&segment), disk.clone());
            scope.spawn(move || {
                loop {
                    let claimed = segment.sync().unwrap();
                    let durable = replay_all(&disk.crash()).unwrap().last_seq;
                    assert!(durable >= claimed, "claimed {claimed}, durable {durable}");
                    if claimed == 400 {
                        break;
                    }
                }
            });
        }
        bench.append_all(2..=400);
    });
}

#[test]
fn a_segment_can_be_synced_after_the_log_has_left_it() {
    let mut bench = Bench::new();
    bench.append_all([1]);
    let segment = bench.log.active().unwrap();
    bench.log.seal();
    bench.append_all([2]);
    bench.disk.take_calls();
    assert_eq!(segment.sync().unwrap(), 1);
    assert_eq!(bench.disk.take_calls(), [""; 0], "the rotation has done it");
}

#[test]
fn a_proof_is_written_once_and_only_when_it_tells_something_new() {
    let mut bench = Bench::new();
    bench.append_all([1, 2]);
    assert!(!bench.log.write_proof().unwrap(), "nothing is known durable");
    bench.sync();
    assert!(bench.log.write_proof().unwrap());
    bench.sync();
    assert!(!bench.log.write_proof().unwrap(), "only the proof itself is unproven");
    bench.append_all([3]);
    bench.append_all([4]);
    assert!(!bench.log.write_proof().unwrap(), "what is synced is proven by the batch");
    bench.sync();
    bench.append_all([5]);
    assert!(!bench.log.write_proof().unwrap(), "batch 5 proves what is durable");
    bench.sync();
    assert!(bench.log.write_proof().unwrap());
    let replay = bench.replay().unwrap();
    assert_eq!(seqs(&replay), [1, 2, 3, 4, 5]);
    assert_eq!(replay.last_seq, 5);
}

#[test]
fn bookkeeping_follows_the_segments() {
    let mut bench = Bench::new();
    for seq in 1..=4 {
        bench.append(seq, 1, 3000).unwrap();
    }
    let total: usize = bench.disk.names().iter().map(|name| bench.disk.bytes(name).len()).sum();
    assert_eq!(bench.log.live_bytes(), total as u64);
    assert_eq!(bench.log.oldest_live(), Some(1));
    assert_eq!(bench.log.forget_before(3), [path("000001.wal"), path("000002.wal")]);
    assert!(bench.log.forget_before(3).is_empty());
    assert_eq!(bench.log.oldest_live(), Some(3));
    assert_eq!(bench.log.forget_before(100), [path("000003.wal")], "never the active one");
    assert_eq!(bench.log.oldest_live(), Some(4));
    assert_eq!(bench.log.live_bytes(), bench.disk.bytes("000004.wal").len() as u64);
    assert_eq!(bench.log.next_number(), 5);
}

#[test]
fn close_proves_and_finishes_and_leaves_no_prepared_segment() {
    let mut bench = Bench::new();
    bench.append_all([1]);
    assert_eq!(bench.prepare_next(), 2);
    bench.disk.take_calls();
    assert_eq!(bench.log.close().unwrap(), 3, "a number is not used again");
    let expected = [
        "sync 000001.wal",
        "append 000001.wal", // proof
        "sync 000001.wal",
        "finish 000001.wal",
        "remove 000002.wal",
    ];
    assert_eq!(bench.disk.take_calls(), expected);
    assert_eq!(bench.log.close().unwrap(), 3);
    assert_eq!(bench.append(2, 1, 10).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(bench.log.wants_prepared(), None);
    let late = prepare(&bench.disk.env(), dir(), DB, 9, &OPTIONS).unwrap();
    bench.log.offer_prepared(late);
    assert_eq!(bench.log.forget_before(0), [path("000009.wal")]);
}

#[test]
fn close_after_a_failed_append_writes_down_where_the_records_end() {
    let mut bench = Bench::new();
    bench.append_all([1]);
    let record = payload(2, 1, 100).len() + 32;
    bench.disk.fail("append", StorageFull, record);
    bench.append(2, 1, 100).unwrap_err();
    assert_eq!(bench.log.close().unwrap(), 3);
    assert_eq!(seqs(&bench.replay().unwrap()), [1], "the refused commit does not appear");
}

#[test]
fn a_log_goes_on_after_replay() {
    let mut bench = Bench::new();
    bench.append_all(1..=60);
    let replay = bench.replay().unwrap();
    let (start, last) = (replay.start.clone(), replay.segments.len() as u64);
    assert_eq!(start.next, last + 1);
    let mut bench = Bench::with(bench.disk, OPTIONS, start);
    assert_eq!(bench.log.oldest_live(), Some(1));
    assert_eq!(bench.append(60, 1, 10).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(bench.append(61, 1, 10).unwrap(), last + 1);
    assert_eq!(seqs(&bench.replay().unwrap()), (1..=61).collect::<Vec<_>>());
}

#[test]
fn the_device_is_told_to_write_after_every_mebibyte() {
    let options = LogOptions { segment_bytes: 64 << 20, mapped: false };
    let mut bench = Bench::with(Disk::new(), options, LogStart { next: 1, ..LogStart::default() });
    for seq in 1..=33 {
        bench.append(seq, 1, 100_000).unwrap();
    }
    let hints = bench.disk.take_calls().iter().filter(|call| call.starts_with("writeback")).count();
    assert_eq!(hints, 3);
}
