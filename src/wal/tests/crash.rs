//! Random work, power cuts and reopenings in a row: what a sync claimed is there, what is there is a prefix, and what
//! an open has shown stays.

use super::*;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

const SECTOR_BYTES: usize = 512;

/// How a power cut treats the sectors of a file that were not synced.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// All are lost, and the file is short.
    Short,
    /// Written up to some byte.
    InOrder,
    /// Each is there, zero or garbage.
    AnySubset,
}

/// What a power cut leaves of a file.
fn tear(random: &mut StdRng, cut: Cut, synced: &[u8], bytes: &[u8]) -> Vec<u8> {
    let keep = synced.len();
    match cut {
        Cut::Short => synced.to_vec(),
        Cut::InOrder => bytes[..random.random_range(keep..=bytes.len())].to_vec(),
        Cut::AnySubset => {
            let mut left = bytes.to_vec();
            let mut from = keep;
            while from < left.len() {
                let to = ((from / SECTOR_BYTES + 1) * SECTOR_BYTES).min(left.len());
                match random.random_range(0..3) {
                    0 => left[from..to].fill(0),
                    1 => random.fill_bytes(&mut left[from..to]),
                    _ => {}
                }
                from = to;
            }
            left
        }
    }
}

fn crash(random: &mut StdRng, disk: &Disk) -> Disk {
    let cut = [Cut::Short, Cut::InOrder, Cut::AnySubset][random.random_range(0..3)];
    let (synced, after) = (disk.crash(), Disk::new());
    for name in disk.names() {
        after.write(&name, tear(random, cut, &synced.bytes(&name), &disk.bytes(&name)));
    }
    after
}

/// What the test knows of the log.
#[derive(Default)]
struct Model {
    /// First sequence number of each commit that was appended.
    logged: Vec<SeqNo>,
    /// How many of them a sync has claimed or an open has shown.
    durable: usize,
    last_seq: SeqNo,
}

fn step(random: &mut StdRng, bench: &mut Bench, model: &mut Model) {
    match random.random_range(0..20) {
        0 => bench.log.seal(),
        1 if bench.log.wants_prepared().is_some() => drop(bench.prepare_next()),
        2 => drop(bench.log.write_proof().unwrap()),
        3 => {
            bench.disk.fail("append", std::io::ErrorKind::StorageFull, random.random_range(0..40));
            bench.append(model.last_seq + 1, 1, 100).unwrap_err();
        }
        4..7 => {
            if let Some(segment) = bench.log.active() {
                let claimed = segment.sync().unwrap();
                model.durable = model.logged.partition_point(|seq| *seq <= claimed);
            }
        }
        _ => {
            let first_seq = model.last_seq + random.random_range(1..4);
            let count = random.random_range(1..5);
            let bytes = if random.random_range(0..30) == 0 { 70_000 } else { random.random_range(0..900) };
            bench.append(first_seq, count, bytes).unwrap();
            model.logged.push(first_seq);
            model.last_seq = first_seq + u64::from(count) - 1;
        }
    }
}

/// Reads the log after a power cut and holds it against the model, which then continues from what was found.
fn recover(disk: &Disk, model: &mut Model) -> Replay {
    sync_segments(&disk.env(), dir(), 1).unwrap();
    let replay = replay_all(disk).unwrap();
    let found = seqs(&replay);
    assert!(found.len() >= model.durable, "{} of {} durable commits", found.len(), model.durable);
    assert_eq!(found, model.logged[..found.len()], "a prefix");
    assert_eq!(seqs(&replay_all(disk).unwrap()), found, "again the same");
    model.durable = found.len();
    model.logged.truncate(found.len());
    replay
}

#[test]
fn power_cuts_in_a_row_take_only_what_was_not_durable() {
    let mut random = StdRng::seed_from_u64(seed());
    for _ in 0..40 {
        let mut model = Model::default();
        let mut bench = Bench::new();
        for _ in 0..12 {
            for _ in 0..random.random_range(0..40) {
                step(&mut random, &mut bench, &mut model);
            }
            let disk = crash(&mut random, &bench.disk);
            let replay = recover(&disk, &mut model);
            if random.random_range(0..2) == 0 {
                replay.unused.iter().for_each(|number| disk.delete(&format!("{number:06}.wal")));
            }
            model.last_seq = model.last_seq.max(replay.last_seq);
            bench = Bench::with(disk, OPTIONS, replay.start);
        }
    }
}
