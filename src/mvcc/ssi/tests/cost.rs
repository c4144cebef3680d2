//! What reads and commits cost. Prints, asserts nothing: run it optimised, with `--ignored --nocapture`.

use super::{KEYSPACE, RangeEnd, Ssi, Tracker, WriteKeys};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

fn key(number: u64) -> [u8; 16] {
    let mut key = *b"user000000000000";
    key[8..].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    key
}

fn begin(ssi: &Arc<Ssi>, id: u64, visible: u64) -> Tracker {
    let published = |_| Ok::<(), Infallible>(());
    ssi.begin(id, || visible, published, || ((), visible)).unwrap().1
}

fn timed(what: &str, count: u64, mut run: impl FnMut(u64)) {
    let start = Instant::now();
    for round in 0..count {
        run(round);
    }
    println!("{what}: {:.0} ns", start.elapsed().as_nanos() as f64 / count as f64);
}

#[test]
#[ignore = "a measurement"]
fn measure() {
    let ssi = Ssi::new(1 << 30);
    let tracker = begin(&ssi, 1, 10);
    timed("read of a key, 100 at a time", 10_000, |round| {
        let tracker = begin(&ssi, 2, 10);
        for number in 0..100 {
            tracker.read_key(KEYSPACE, &key(round * 100 + number));
        }
    });
    timed("read of a key, 1,000,000 in one", 1_000_000, |round| tracker.read_key(KEYSPACE, &key(round)));
    drop(tracker);
    let tracker = begin(&ssi, 1, 10);
    timed("read of a key again", 1_000_000, |round| tracker.read_key(KEYSPACE, &key(round % 64)));
    timed("step of an iterator", 1_000_000, |round| {
        tracker.read_range(KEYSPACE, b"user", RangeEnd::Through(&round.to_be_bytes()));
    });
    drop(tracker);
    timed("begin and abort", 100_000, |_| drop(begin(&ssi, 1, 10)));
    for open in [0u64, 1, 10_000] {
        let ssi = Ssi::new(1 << 30);
        let held: Vec<Tracker> = (0..open)
            .map(|id| {
                let tracker = begin(&ssi, id + 1, 10);
                tracker.read_key(KEYSPACE, &key(id));
                tracker
            })
            .collect();
        let mut seq = 10;
        timed(
            &format!("{open} readers open: transaction of 4 reads and 2 writes, whole"),
            100_000,
            |round| {
                let tracker = begin(&ssi, 1 << 20, seq);
                for number in 0..4 {
                    tracker.read_key(KEYSPACE, &key(round * 4 + number));
                }
                let keys = [key(round * 2), key(round * 2 + 1)];
                let writes = WriteKeys::collect(keys.iter().map(|key| (KEYSPACE, key.as_slice())));
                seq += 1;
                drop(ssi.check_and_record(Some(&tracker), &writes, seq, seq - 1));
            },
        );
        timed(&format!("{open} readers open: plain commit of 2 writes"), 100_000, |round| {
            let keys = [key(round * 2), key(round * 2 + 1)];
            let writes = WriteKeys::collect(keys.iter().map(|key| (KEYSPACE, key.as_slice())));
            seq += 1;
            ssi.check_and_record(None, &writes, seq, seq - 1).unwrap();
        });
        println!("{:?}", ssi.stats());
        let start = Instant::now();
        drop(held);
        println!("their ends: {:?}, {:?}", start.elapsed(), ssi.stats());
    }
}
