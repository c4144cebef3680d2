//! Segments longer than what is read at once, with records longer than that.

use super::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const SEGMENT: &str = "000001.wal";

/// A segment of about 5 MiB: its disk, and the end and sequence number of each batch. Synced once, after the first
/// third.
fn long_segment(random: &mut StdRng) -> (Disk, Vec<(usize, SeqNo)>) {
    let options = LogOptions { segment_bytes: 64 << 20, mapped: false };
    let mut bench = Bench::with(Disk::new(), options, LogStart { next: 1, ..LogStart::default() });
    let mut ends = Vec::new();
    let mut is_synced = false;
    // Every 256th batch has a value of zeros, as the reserved tail has.
    for seq in (240..).step_by(8) {
        let bytes = match random.random_range(0..20) {
            0 => random.random_range(0..3 << 20),
            1..4 => random.random_range(0..1 << 20),
            _ => random.random_range(1..70_000),
        };
        bench.append(seq, 1, bytes).unwrap();
        let end = bench.log.active().unwrap().len() as usize;
        ends.push((end, seq));
        if end > 2 << 20 && !is_synced {
            bench.sync();
            is_synced = true;
        }
        if end > 5 << 20 {
            break;
        }
    }
    (bench.disk, ends)
}

#[test]
fn a_segment_longer_than_a_piece_is_read_whole() {
    let mut random = StdRng::seed_from_u64(seed());
    for _ in 0..5 {
        let (disk, ends) = long_segment(&mut random);
        let expected: Vec<_> = ends.iter().map(|(_, seq)| *seq).collect();
        assert_eq!(seqs(&replay_all(&disk).unwrap()), expected);
    }
}

/// Tails of zeros and of noise, from cuts near the pieces' ends and anywhere: what is whole before them is read, unless
/// it was synced.
#[test]
fn a_torn_tail_of_a_long_segment_is_dropped_wherever_it_starts() {
    let mut random = StdRng::seed_from_u64(seed());
    let (disk, ends) = long_segment(&mut random);
    let synced = ends.iter().map(|(end, _)| *end).find(|end| *end > 2 << 20).unwrap();
    let len = ends.last().unwrap().0;
    let near = (1..len >> 20)
        .flat_map(|piece| (-40..40i64).step_by(20).map(move |by| ((piece << 20) as i64 + by) as usize));
    let anywhere: Vec<usize> = (0..10).map(|_| random.random_range(100..len)).collect();
    for cut in near.chain(anywhere).chain([len]) {
        for noise in [false, true] {
            let disk = disk.copy();
            disk.damage(SEGMENT, |bytes| {
                let tail = &mut bytes[cut..];
                tail.fill_with(|| if noise { random.random::<u8>() | 1 } else { 0 });
            });
            let whole: Vec<_> = ends.iter().filter(|(end, _)| *end <= cut).map(|(_, seq)| *seq).collect();
            let replay = replay_all(&disk).unwrap();
            assert_eq!(seqs(&replay), whole, "cut at {cut} of {len}, synced up to {synced}");
        }
    }
}

/// The proof that a record was synced stands pieces after it.
#[test]
fn damage_in_a_long_segment_is_told_from_a_torn_tail() {
    let mut random = StdRng::seed_from_u64(seed());
    let (disk, ends) = long_segment(&mut random);
    let synced = ends.iter().position(|(end, _)| *end > 2 << 20).unwrap();
    for (index, (end, seq)) in ends.iter().enumerate() {
        let disk = disk.copy();
        disk.damage(SEGMENT, |bytes| bytes[end - 1] ^= 1);
        match replay_all(&disk) {
            Err(error) if index <= synced => assert_eq!(damaged_file(&error), SEGMENT),
            Ok(replay) if index > synced => {
                let before: Vec<_> = ends[..index].iter().map(|(_, seq)| *seq).collect();
                assert_eq!(seqs(&replay), before);
            }
            other => {
                panic!("batch {seq}, {index} of {synced} synced: {:?}", other.map(|replay| seqs(&replay)))
            }
        }
    }
}
