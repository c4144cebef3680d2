//! The core workloads of YCSB (Cooper et al., "Benchmarking cloud serving systems with YCSB", 2010), with the sizes of
//! keys and values of this run instead of YCSB's one kilobyte.

use super::scan::read_on;
use crate::keys::Zipfian;
use crate::runner::Worker;
use crate::stats::Op;
use anyhow::Result;
use rand::RngExt;
use std::sync::atomic::Ordering;

/// Longest scan of workload E; all lengths from 1 are equally likely.
const SCAN_ENTRIES_MAX: u64 = 100;

/// Half reads, half updates.
pub fn a(worker: &mut Worker<'_>) -> Result<()> {
    point_operations(worker, 50, update)
}

/// Mostly reads.
pub fn b(worker: &mut Worker<'_>) -> Result<()> {
    point_operations(worker, 95, update)
}

/// Only reads.
pub fn c(worker: &mut Worker<'_>) -> Result<()> {
    point_operations(worker, 100, update)
}

/// Reads of what was inserted last, and inserts.
pub fn d(worker: &mut Worker<'_>) -> Result<()> {
    let mut quota = worker.timed(worker.plan.reads_and_writes);
    while quota.take(1, worker.shared) > 0 {
        if percent(worker) >= 95 {
            insert(worker)?;
            continue;
        }
        let keys = worker.shared.keys.load(Ordering::Relaxed);
        let id = keys - 1 - Zipfian::new(keys)?.rank(&mut worker.rng);
        read(worker, id)?;
    }
    Ok(())
}

/// Short scans, and inserts.
pub fn e(worker: &mut Worker<'_>) -> Result<()> {
    let popular = Zipfian::new(worker.shared.keys.load(Ordering::Relaxed))?;
    let mut quota = worker.timed(worker.plan.reads_and_writes);
    while quota.take(1, worker.shared) > 0 {
        if percent(worker) >= 95 {
            insert(worker)?;
            continue;
        }
        worker.pace_reads(1);
        worker.key.set(popular.scattered(&mut worker.rng));
        let entries = worker.rng.random_range(1..=SCAN_ENTRIES_MAX);
        let mut scan = worker.store.scan()?;
        scan.seek(worker.key.bytes())?;
        worker.stats.bytes += read_on(&mut scan, entries)?;
        worker.stats.totals.scans += 1;
        worker.stats.finish(Op::Scan, 1);
    }
    Ok(())
}

/// Half reads, half reads followed by a write of the same key.
pub fn f(worker: &mut Worker<'_>) -> Result<()> {
    point_operations(worker, 50, |worker| {
        worker.lookup()?;
        update(worker)
    })
}

fn point_operations(
    worker: &mut Worker<'_>,
    read_percent: u32,
    otherwise: fn(&mut Worker<'_>) -> Result<()>,
) -> Result<()> {
    let popular = Zipfian::new(worker.shared.keys.load(Ordering::Relaxed))?;
    let mut quota = worker.timed(worker.plan.reads_and_writes);
    while quota.take(1, worker.shared) > 0 {
        let id = popular.scattered(&mut worker.rng);
        if percent(worker) < read_percent {
            read(worker, id)?;
        } else {
            worker.key.set(id);
            otherwise(worker)?;
        }
    }
    Ok(())
}

fn percent(worker: &mut Worker<'_>) -> u32 {
    worker.rng.random_range(0..100)
}

fn read(worker: &mut Worker<'_>, id: u64) -> Result<()> {
    worker.pace_reads(1);
    worker.key.set(id);
    worker.lookup()?;
    worker.stats.finish(Op::Read, 1);
    Ok(())
}

fn update(worker: &mut Worker<'_>) -> Result<()> {
    worker.write()?;
    worker.stats.totals.writes += 1;
    worker.stats.finish(Op::Update, 1);
    Ok(())
}

/// Writes a key that did not exist. It is counted before it is written, so a reader of another thread may look for it
/// a moment too early and not find it.
fn insert(worker: &mut Worker<'_>) -> Result<()> {
    let id = worker.shared.keys.fetch_add(1, Ordering::Relaxed);
    worker.key.set(id);
    worker.write()?;
    worker.stats.totals.inserts += 1;
    worker.stats.finish(Op::Insert, 1);
    Ok(())
}
