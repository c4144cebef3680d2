//! Damage at every place of a small log: what was durable is never lost silently, what was not is dropped.
//!
//! The log has two segments. In each, three sync groups; the last group of the second segment is unproven unless the
//! log was closed.

use super::*;
use crate::record::{FILE_HEADER_BYTES, used_len};

/// A record of the last segment: its end, whether it has a batch, and the durable offset it tells.
struct Mark {
    end: u64,
    seqs: Vec<SeqNo>,
    synced_upto: u64,
}

/// The log, the first sequence numbers in segment 1, and the records of segment 2.
struct Sample {
    disk: Disk,
    first: Vec<SeqNo>,
    second: Vec<Mark>,
}

/// End of the link of segment 2, which names segment 1.
const LINK_END: u64 = 64 + 32 + 24;

fn sample(is_closed: bool) -> Sample {
    let mut bench = Bench::new();
    for seq in 1..=6 {
        bench.append(seq, 1, 20).unwrap();
        if seq % 2 == 0 {
            bench.sync();
        }
    }
    bench.log.seal();
    bench.append(10, 2, 30).unwrap();
    let segment = bench.log.active().unwrap();
    let mut second = vec![
        Mark { end: LINK_END, seqs: vec![], synced_upto: 64 },
        Mark { end: segment.len(), seqs: vec![10], synced_upto: 64 },
    ];
    for seq in 12..=16 {
        let synced_upto = segment.synced_upto();
        bench.append(seq, 1, 20).unwrap();
        second.push(Mark { end: segment.len(), seqs: vec![seq], synced_upto });
        if seq % 2 == 0 {
            bench.sync();
        }
    }
    if is_closed {
        let synced_upto = segment.len();
        bench.log.close().unwrap();
        second.push(Mark { end: segment.len(), seqs: vec![], synced_upto });
    }
    Sample { disk: bench.disk, first: (1..=6).collect(), second }
}

impl Sample {
    /// What is left with this many records of segment 2.
    fn prefix(&self, records: usize) -> Vec<SeqNo> {
        let second = self.second.iter().take(records).flat_map(|mark| mark.seqs.iter());
        self.first.iter().chain(second).copied().collect()
    }

    /// Bytes of segment 2 before this record.
    fn start(&self, record: usize) -> u64 {
        if record == 0 { FILE_HEADER_BYTES as u64 } else { self.second[record - 1].end }
    }

    fn is_proven(&self, record: usize) -> bool {
        self.second[record + 1..].iter().any(|mark| mark.synced_upto > self.start(record))
    }

    fn record_at(&self, offset: usize) -> usize {
        self.second.iter().take_while(|mark| mark.end <= offset as u64).count()
    }
}

fn check_flips(sample: &Sample, bit: u32) {
    for name in ["000001.wal", "000002.wal"] {
        for at in 0..sample.disk.bytes(name).len() {
            let disk = sample.disk.copy();
            disk.damage(name, |bytes| bytes[at] ^= 1u8.rotate_left(bit + at as u32));
            let found = replay_all(&disk);
            let record = sample.record_at(at);
            if name == "000001.wal" || at < FILE_HEADER_BYTES || sample.is_proven(record) {
                assert_eq!(damaged_file(&found.unwrap_err()), name, "flip at {at} of {name}");
                continue;
            }
            let replay = found.unwrap();
            assert_eq!(seqs(&replay), sample.prefix(record), "flip at {at} of {name}");
            let bytes = disk.bytes(name);
            let dropped = used_len(&bytes[sample.start(record) as usize..]) as u64;
            assert_eq!(replay.dropped_bytes, dropped, "flip at {at} of {name}");
            assert_eq!(replay.start.next, 3);
            // Without its link the segment does not count at all.
            assert_eq!(replay.unused, if record == 0 { vec![2] } else { vec![] });
        }
    }
}

#[test]
fn one_flipped_bit_at_every_byte() {
    let open = sample(false);
    for bit in 0..8 {
        check_flips(&open, bit);
    }
    let last_proven = (0..open.second.len()).filter(|record| open.is_proven(*record)).count();
    assert_eq!(last_proven, 5, "of link, 10, 12 to 16: all before the last group are proven");
}

#[test]
fn after_a_close_only_the_proof_itself_is_unproven() {
    let closed = sample(true);
    check_flips(&closed, 3);
    let unproven: Vec<usize> = (0..closed.second.len()).filter(|record| !closed.is_proven(*record)).collect();
    assert_eq!(unproven, [closed.second.len() - 1]);
    assert_eq!(closed.prefix(closed.second.len() - 1), closed.prefix(closed.second.len()));
}

#[test]
fn cut_at_every_length() {
    let sample = sample(true);
    for zeros in [0, 3000] {
        for name in ["000001.wal", "000002.wal"] {
            let whole = sample.disk.bytes(name).len();
            for cut in 0..whole {
                let disk = sample.disk.copy();
                disk.damage(name, |bytes| {
                    bytes.truncate(cut);
                    bytes.resize(cut + zeros, 0);
                });
                let found = replay_all(&disk);
                if name == "000001.wal" {
                    let error = found.unwrap_err();
                    assert_eq!(damaged_file(&error), name, "cut of {name} at {cut}");
                    continue;
                }
                // Nothing later knows better: each whole record counts. The end of one may be zeros.
                let bytes = disk.bytes(name);
                let original = sample.disk.bytes(name);
                let same = bytes.iter().zip(&original).take_while(|(left, right)| left == right).count();
                let records = if same < 64 { 0 } else { sample.record_at(same) };
                let replay = found.unwrap_or_else(|error| panic!("cut of {name} at {cut}: {error}"));
                assert_eq!(seqs(&replay), sample.prefix(records), "cut of {name} at {cut}, {zeros} zeros");
                let dropped = if cut < 64 { 0 } else { used_len(&bytes[sample.start(records) as usize..]) };
                assert_eq!(replay.dropped_bytes, dropped as u64, "cut of {name} at {cut}");
            }
        }
    }
}

#[test]
fn a_zeroed_sector_is_judged_by_what_follows() {
    let sample = sample(false);
    let bytes = sample.disk.bytes("000002.wal");
    for from in (FILE_HEADER_BYTES..bytes.len()).step_by(5) {
        let disk = sample.disk.copy();
        let to = (from + 64).min(bytes.len());
        disk.damage("000002.wal", |bytes| bytes[from..to].fill(0));
        let record = sample.record_at(from);
        let last = sample.record_at(to - 1);
        // The records that the zeros spare can still prove that the first one they hit was durable.
        let start = sample.start(record);
        let is_proven = sample.second[last + 1..].iter().any(|mark| mark.synced_upto > start)
            || disk.bytes("000002.wal")[..sample.second[last].end as usize]
                == bytes[..sample.second[last].end as usize];
        match replay_all(&disk) {
            Ok(replay) => {
                assert!(!is_proven, "zeros from {from}");
                assert_eq!(seqs(&replay), sample.prefix(record), "zeros from {from}");
            }
            Err(error) => {
                assert!(is_proven, "zeros from {from}: {error}");
                assert_eq!(damaged_file(&error), "000002.wal");
            }
        }
    }
}

#[test]
fn stale_bytes_of_an_older_segment_are_not_records() {
    let sample = sample(false);
    let (older, newer) = (sample.disk.bytes("000001.wal"), sample.disk.bytes("000002.wal"));
    for record in 1..=sample.second.len() {
        let end = sample.start(record) as usize;
        for tail in [&older[64..], &older[LINK_END as usize..], &older[..], &newer[64..], &newer[end - 10..]]
        {
            let disk = sample.disk.copy();
            disk.damage("000002.wal", |bytes| {
                bytes.truncate(end);
                bytes.extend_from_slice(tail);
            });
            let replay = replay_all(&disk).unwrap();
            assert_eq!(seqs(&replay), sample.prefix(record));
            assert_eq!(replay.dropped_bytes, used_len(tail) as u64);
        }
    }
    // The whole older file under the newer name, and the other way round.
    for (name, bytes) in [("000002.wal", older), ("000001.wal", newer)] {
        let disk = sample.disk.copy();
        disk.write(name, bytes);
        assert_eq!(damaged_file(&replay_all(&disk).unwrap_err()), name);
    }
}

#[test]
fn what_follows_the_valid_length_of_an_earlier_segment_does_not_count() {
    let sample = sample(false);
    let whole = sample.disk.bytes("000001.wal");
    for junk in [vec![0; 100], vec![9; 100], whole[64..].to_vec()] {
        let disk = sample.disk.copy();
        disk.damage("000001.wal", |bytes| bytes.extend_from_slice(&junk));
        let replay = replay_all(&disk).unwrap();
        assert_eq!(seqs(&replay), sample.prefix(sample.second.len()));
        assert_eq!(replay.start.live[0], (1, whole.len() as u64));
    }
}

/// Writes a segment with a record that no right writer writes, and expects it refused.
fn check_wrong_record(name: &str, kind: RecordKind, first_seq: SeqNo, count: u32, payload: &[u8]) {
    use crate::base::checksum::{FileTag, Origin};
    let sample = sample(false);
    sample.disk.damage("000002.wal", |bytes| {
        let meta = crate::record::RecordMeta { kind, first_seq, count, synced_upto: 64 };
        crate::record::encode(Origin::new(DB, FileTag::Log, 2), bytes.len() as u64, &meta, payload, bytes);
    });
    assert_eq!(damaged_file(&replay_all(&sample.disk).unwrap_err()), "000002.wal", "{name}");
}

#[test]
fn records_that_do_not_belong_are_refused() {
    use crate::base::types::SEQ_MAX;
    check_wrong_record("the same sequence number again", RecordKind::Batch, 16, 1, &[0]);
    check_wrong_record("going back", RecordKind::Batch, 9, 1, &[0]);
    check_wrong_record("overlap", RecordKind::Batch, 15, 5, &[0]);
    check_wrong_record("no operation", RecordKind::Batch, 17, 0, &[0]);
    check_wrong_record("beyond the largest sequence number", RecordKind::Batch, SEQ_MAX, 2, &[0]);
    check_wrong_record("overflow", RecordKind::Batch, u64::MAX, 2, &[0]);
    check_wrong_record("a second link", RecordKind::Link, 0, 0, &[0; 24]);
    check_wrong_record("a manifest edit", RecordKind::Edit, 0, 0, &[]);
}

#[test]
fn wrong_links_are_refused() {
    use crate::base::checksum::{FileTag, Origin};
    let link = |number: u64, valid_len: u64, last_seq: u64| {
        [number.to_le_bytes(), valid_len.to_le_bytes(), last_seq.to_le_bytes()].concat()
    };
    let sample = sample(false);
    let len = sample.disk.bytes("000001.wal").len() as u64;
    type Case = (&'static str, RecordKind, Vec<u8>, Result<(), &'static str>);
    let cases: Vec<Case> = vec![
        ("right", RecordKind::Link, link(1, len, 6), Ok(())),
        ("shorter", RecordKind::Link, link(1, len - 1, 6), Err("000001.wal")),
        ("nothing but its link", RecordKind::Link, link(1, 96, 0), Ok(())),
        ("nothing but its link, and a sequence", RecordKind::Link, link(1, 96, 6), Err("000001.wal")),
        ("longer", RecordKind::Link, link(1, len + 1, 6), Err("000001.wal")),
        ("huge", RecordKind::Link, link(1, u64::MAX, 6), Err("000001.wal")),
        ("nothing of it", RecordKind::Link, link(1, 0, 6), Err("000001.wal")),
        ("another sequence", RecordKind::Link, link(1, len, 7), Err("000001.wal")),
        ("no sequence", RecordKind::Link, link(1, len, u64::MAX), Err("000002.wal")),
        ("itself", RecordKind::Link, link(2, len, 6), Err("000002.wal")),
        ("a later one", RecordKind::Link, link(3, len, 6), Err("000002.wal")),
        ("none", RecordKind::Link, vec![], Err("000001.wal")),
        ("too short", RecordKind::Link, vec![0; 23], Err("000002.wal")),
        ("too long", RecordKind::Link, vec![0; 25], Err("000002.wal")),
        ("not a link", RecordKind::Batch, link(1, len, 6), Err("000002.wal")),
    ];
    for (name, kind, payload, expected) in cases {
        let disk = sample.disk.copy();
        disk.damage("000002.wal", |bytes| {
            bytes.truncate(64);
            let meta = crate::record::RecordMeta { kind, first_seq: 0, count: 0, synced_upto: 64 };
            crate::record::encode(Origin::new(DB, FileTag::Log, 2), 64, &meta, &payload, bytes);
        });
        match replay_all(&disk) {
            Ok(_) => assert_eq!(Ok(()), expected, "{name}"),
            Err(error) => assert_eq!(Err(&damaged_file(&error)[..]), expected, "{name}: {error}"),
        }
    }
}
