//! Reading in order, and seeks.

use crate::runner::Worker;
use crate::stats::Op;
use crate::store::Scan;
use anyhow::Result;

/// Reads from the first key on.
pub fn forward(worker: &mut Worker<'_>) -> Result<()> {
    walk(worker, Scan::seek_to_first, Scan::next)
}

/// Reads from the last key back.
pub fn backward(worker: &mut Worker<'_>) -> Result<()> {
    walk(worker, Scan::seek_to_last, Scan::prev)
}

fn walk(
    worker: &mut Worker<'_>,
    start: impl Fn(&mut Scan) -> Result<()>,
    step: impl Fn(&mut Scan) -> Result<()>,
) -> Result<()> {
    let mut quota = worker.counted(worker.plan.reads);
    let mut scan = worker.store.scan()?;
    start(&mut scan)?;
    while scan.valid() && quota.take(1, worker.shared) > 0 {
        worker.pace_reads(1);
        worker.stats.bytes += scan.entry_bytes();
        step(&mut scan)?;
        worker.stats.finish(Op::Read, 1);
    }
    Ok(())
}

/// Seeks to random keys with a new cursor each, and reads on from there.
pub fn seek_random(worker: &mut Worker<'_>) -> Result<()> {
    let mut quota = worker.timed(worker.plan.reads);
    while quota.take(1, worker.shared) > 0 {
        worker.pace_reads(1);
        worker.random_key(worker.plan.num);
        let mut scan = worker.store.scan()?;
        scan.seek(worker.key.bytes())?;
        worker.stats.totals.reads += 1;
        if scan.valid() && scan.key() == worker.key.bytes() {
            worker.stats.totals.found += 1;
        }
        worker.stats.bytes += read_on(&mut scan, worker.plan.seek_nexts)?;
        worker.stats.finish(Op::Seek, 1);
    }
    Ok(())
}

/// Reads up to `count` entries from the one at hand on; says how many bytes they have.
pub fn read_on(scan: &mut Scan, count: u64) -> Result<u64> {
    let mut bytes = 0;
    for _ in 0..count {
        if !scan.valid() {
            break;
        }
        bytes += scan.entry_bytes();
        scan.next()?;
    }
    Ok(bytes)
}
