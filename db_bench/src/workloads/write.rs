//! Writing and deleting, one by one or in batches.

use crate::keys::{Permutation, uniform};
use crate::runner::{Quota, Worker};
use crate::stats::Op;
use anyhow::Result;

/// In which order keys are visited.
enum Order {
    /// 0, 1, 2, …
    Sequential { next: u64 },
    /// Each drawn anew.
    Random,
    /// A share of a permutation.
    Unique { order: Permutation, next: u64 },
}

impl Order {
    #[inline]
    fn next(&mut self, worker: &mut Worker<'_>) -> u64 {
        match self {
            Order::Sequential { next } => {
                *next += 1;
                *next - 1
            }
            Order::Random => uniform(&mut worker.rng, worker.plan.num),
            Order::Unique { order, next } => {
                *next += 1;
                order.at(*next - 1)
            }
        }
    }
}

/// Writes keys in order.
pub fn sequential(worker: &mut Worker<'_>) -> Result<()> {
    let quota = worker.counted(worker.plan.writes);
    fill(worker, Order::Sequential { next: 0 }, quota)
}

/// Writes keys drawn at random.
pub fn random(worker: &mut Worker<'_>) -> Result<()> {
    let quota = worker.timed(worker.plan.writes);
    fill(worker, Order::Random, quota)
}

/// Writes every key once; the threads share the range.
pub fn unique(worker: &mut Worker<'_>) -> Result<()> {
    let (num, threads, index) = (worker.plan.num, worker.plan.threads as u64, worker.index as u64);
    let share = num.div_ceil(threads);
    let first = (share * index).min(num);
    let quota = worker.counted(share.min(num - first));
    fill(worker, Order::Unique { order: Permutation::new(num, worker.plan.order_seed), next: first }, quota)
}

/// Deletes keys in order.
pub fn delete_sequential(worker: &mut Worker<'_>) -> Result<()> {
    let quota = worker.counted(worker.plan.writes);
    delete(worker, Order::Sequential { next: 0 }, quota)
}

/// Deletes keys drawn at random.
pub fn delete_random(worker: &mut Worker<'_>) -> Result<()> {
    let quota = worker.timed(worker.plan.writes);
    delete(worker, Order::Random, quota)
}

fn fill(worker: &mut Worker<'_>, mut order: Order, mut quota: Quota) -> Result<()> {
    loop {
        match quota.take(worker.plan.batch, worker.shared) {
            0 => return Ok(()),
            1 => {
                let id = order.next(worker);
                worker.key.set(id);
                worker.write()?;
                worker.stats.finish(Op::Write, 1);
            }
            count => {
                fill_batch(worker, &mut order, count)?;
                worker.stats.finish(Op::Write, count);
            }
        }
    }
}

fn fill_batch(worker: &mut Worker<'_>, order: &mut Order, count: u64) -> Result<()> {
    let mut batch = worker.store.batch();
    let mut bytes = 0;
    for _ in 0..count {
        let id = order.next(worker);
        let key = worker.key.set(id);
        let value = worker.values.next(&mut worker.rng);
        batch.put(key, value)?;
        bytes += (key.len() + value.len()) as u64;
    }
    worker.pace_writes(bytes);
    batch.commit(worker.mode)?;
    worker.stats.bytes += bytes;
    Ok(())
}

fn delete(worker: &mut Worker<'_>, mut order: Order, mut quota: Quota) -> Result<()> {
    loop {
        match quota.take(worker.plan.batch, worker.shared) {
            0 => return Ok(()),
            1 => {
                let id = order.next(worker);
                worker.pace_writes(worker.plan.key_size as u64);
                worker.store.delete(worker.key.set(id), worker.mode)?;
                worker.stats.finish(Op::Delete, 1);
            }
            count => {
                let mut batch = worker.store.batch();
                for _ in 0..count {
                    let id = order.next(worker);
                    batch.delete(worker.key.set(id))?;
                }
                worker.pace_writes(count * worker.plan.key_size as u64);
                batch.commit(worker.mode)?;
                worker.stats.finish(Op::Delete, count);
            }
        }
    }
}
