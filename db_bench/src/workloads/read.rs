//! Point reads.

use crate::keys::{Key, uniform};
use crate::runner::Worker;
use crate::stats::Op;
use anyhow::Result;

/// Reads keys drawn from all of them.
pub fn random(worker: &mut Worker<'_>) -> Result<()> {
    read_below(worker, worker.plan.num)
}

/// Reads keys drawn from the first hundredth.
pub fn hot(worker: &mut Worker<'_>) -> Result<()> {
    read_below(worker, worker.plan.num.div_ceil(100))
}

fn read_below(worker: &mut Worker<'_>, n: u64) -> Result<()> {
    let mut quota = worker.timed(worker.plan.reads);
    while quota.take(1, worker.shared) > 0 {
        worker.pace_reads(1);
        worker.random_key(n);
        worker.lookup()?;
        worker.stats.finish(Op::Read, 1);
    }
    Ok(())
}

/// Reads several random keys with one call.
pub fn multi(worker: &mut Worker<'_>) -> Result<()> {
    let mut quota = worker.timed(worker.plan.reads);
    let mut keys = vec![Key::new(worker.plan.key_shape, worker.plan.key_size); worker.plan.batch as usize];
    loop {
        let count = quota.take(worker.plan.batch, worker.shared);
        if count == 0 {
            return Ok(());
        }
        worker.pace_reads(count);
        let keys = &mut keys[..count as usize];
        for key in keys.iter_mut() {
            key.set(uniform(&mut worker.rng, worker.plan.num));
        }
        let values = worker.store.multi_get(keys)?;
        worker.stats.totals.reads += count;
        for value in values.iter().flatten() {
            worker.stats.totals.found += 1;
            worker.stats.bytes += (worker.plan.key_size + value.len()) as u64;
        }
        worker.stats.finish(Op::Read, count);
    }
}
