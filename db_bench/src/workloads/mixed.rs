//! Reads and writes together.

use super::read;
use crate::runner::Worker;
use crate::stats::Op;
use anyhow::Result;
use rand::RngExt;

/// Random reads, while one thread more overwrites until they are done.
pub fn read_while_writing(worker: &mut Worker<'_>) -> Result<()> {
    if !worker.is_extra_writer() {
        return read::random(worker);
    }
    let mut quota = worker.counted(u64::MAX);
    while worker.shared.measured_running() && quota.take(1, worker.shared) > 0 {
        worker.random_key(worker.plan.num);
        worker.write()?;
    }
    Ok(())
}

/// Reads a random key, then writes it.
pub fn update_random(worker: &mut Worker<'_>) -> Result<()> {
    let mut quota = worker.timed(worker.plan.reads_and_writes);
    while quota.take(1, worker.shared) > 0 {
        worker.random_key(worker.plan.num);
        worker.lookup()?;
        worker.write()?;
        worker.stats.totals.writes += 1;
        worker.stats.finish(Op::Update, 1);
    }
    Ok(())
}

/// Reads or writes a random key.
pub fn read_random_write_random(worker: &mut Worker<'_>) -> Result<()> {
    let mut quota = worker.timed(worker.plan.reads_and_writes);
    while quota.take(1, worker.shared) > 0 {
        worker.random_key(worker.plan.num);
        if worker.rng.random_range(0..100) < worker.plan.read_percent {
            worker.pace_reads(1);
            worker.lookup()?;
            worker.stats.finish(Op::Read, 1);
        } else {
            worker.write()?;
            worker.stats.totals.writes += 1;
            worker.stats.finish(Op::Write, 1);
        }
    }
    Ok(())
}
