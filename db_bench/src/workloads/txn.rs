//! Transactions: each runs until it commits, attempts that others were in the way of included.
//!
//! `txn_put` and `txn_readwrite` draw keys from the whole range, so that conflicts are rare; `txn_transfer` moves money
//! between two accounts, after TPC-B; `txn_hot` fights over a hundred keys.

use crate::keys::uniform;
use crate::runner::Worker;
use crate::stats::Op;
use crate::store::{Attempt, Transaction};
use anyhow::Result;

/// Keys that txn_hot fights over.
const HOT_KEYS: u64 = 100;

/// Money of an account that was never touched.
const BALANCE: u64 = 1000;

/// Writes one key drawn at random.
pub fn put(worker: &mut Worker<'_>) -> Result<()> {
    let mut quota = worker.timed(worker.plan.writes);
    while quota.take(1, worker.shared) > 0 {
        worker.random_key(worker.plan.num);
        let value = worker.values.next(&mut worker.rng);
        let bytes = (worker.key.bytes().len() + value.len()) as u64;
        worker.pace_writes(bytes);
        let key = worker.key.bytes();
        let done = worker.store.transact(worker.plan.transactions, worker.mode, |txn| txn.put(key, value))?;
        worker.stats.bytes += bytes;
        count(worker, done);
    }
    Ok(())
}

/// Reads two keys and writes two others.
pub fn read_write(worker: &mut Worker<'_>) -> Result<()> {
    let num = worker.plan.num;
    two_and_two(worker, num)
}

/// The same among a hundred keys.
pub fn hot(worker: &mut Worker<'_>) -> Result<()> {
    let num = worker.plan.num.min(HOT_KEYS);
    two_and_two(worker, num)
}

fn two_and_two(worker: &mut Worker<'_>, num: u64) -> Result<()> {
    let mut quota = worker.timed(worker.plan.reads_and_writes);
    while quota.take(1, worker.shared) > 0 {
        let keys = random_keys::<4>(worker, num);
        let value = worker.values.next(&mut worker.rng);
        worker.pace_writes(2 * (keys[0].len() + value.len()) as u64);
        let body = |txn: &mut Transaction<'_>| {
            txn.get(&keys[0])?;
            txn.get(&keys[1])?;
            txn.put(&keys[2], value)?;
            txn.put(&keys[3], value)
        };
        let done = worker.store.transact(worker.plan.transactions, worker.mode, body)?;
        worker.stats.bytes += 2 * (keys[0].len() + value.len()) as u64;
        count(worker, done);
    }
    Ok(())
}

/// Moves money from one account to another: reads both, writes both.
pub fn transfer(worker: &mut Worker<'_>) -> Result<()> {
    let mut quota = worker.timed(worker.plan.reads_and_writes);
    while quota.take(1, worker.shared) > 0 {
        let [from, to] = random_keys::<2>(worker, worker.plan.num);
        let amount = uniform(&mut worker.rng, 10);
        let body = |txn: &mut Transaction<'_>| {
            let (left, right) = (balance(txn, &from)?, balance(txn, &to)?);
            if from != to && left >= amount {
                txn.put(&from, &(left - amount).to_le_bytes())?;
                txn.put(&to, &(right + amount).to_le_bytes())?;
            }
            Ok(())
        };
        let done = worker.store.transact(worker.plan.transactions, worker.mode, body)?;
        worker.stats.bytes += 2 * (from.len() + 8) as u64;
        count(worker, done);
    }
    Ok(())
}

/// What an account holds; a value of another benchmark counts as an untouched account.
fn balance(txn: &Transaction<'_>, key: &[u8]) -> Attempt<u64> {
    let value = txn.get(key)?;
    Ok(value.and_then(|value| value.as_bytes().try_into().ok()).map_or(BALANCE, u64::from_le_bytes))
}

fn random_keys<const N: usize>(worker: &mut Worker<'_>, num: u64) -> [Vec<u8>; N] {
    std::array::from_fn(|_| {
        worker.random_key(num);
        worker.key.bytes().to_vec()
    })
}

/// Counts a transaction and the attempts that failed before it.
fn count(worker: &mut Worker<'_>, failed_attempts: u64) {
    worker.stats.totals.writes += 1;
    worker.stats.totals.aborts += failed_attempts;
    worker.stats.finish(Op::Other, 1);
}
