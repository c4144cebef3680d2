//! The transactions, and the check that each engine did them.
//!
//! A transaction that meets a conflict is tried again with the same keys, at once, until it commits. Keys are drawn
//! evenly from all of them, so `--num` decides how often transactions meet.

use crate::data::{Values, key, number};
use crate::engine::{Attempt, Engine, Failure, Transaction};
use anyhow::{Result, bail, ensure};
use clap::ValueEnum;
use rand::RngExt;
use rand::rngs::SmallRng;

/// Money of an account at the beginning.
const BALANCE: u64 = 1000;
/// Sets of counters, each with a share of the keys.
const SETS: u64 = 4;

/// What a transaction does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Workload {
    /// Writes one key
    #[value(name = "txn_put")]
    Put,
    /// Reads two keys and writes two others
    #[value(name = "txn_readwrite")]
    Readwrite,
    /// Moves money between two accounts: reads both for update, writes both
    #[value(name = "txn_transfer")]
    Transfer,
    /// Adds the same to one counter in each of four sets, as RocksDB's randomtransaction does
    #[value(name = "txn_counters")]
    Counters,
}

impl Workload {
    /// Its name on the command line and in the table.
    pub fn name(self) -> &'static str {
        match self {
            Workload::Put => "txn_put",
            Workload::Readwrite => "txn_readwrite",
            Workload::Transfer => "txn_transfer",
            Workload::Counters => "txn_counters",
        }
    }

    /// Writes the first value of every key, in batches, and moves them to tables.
    pub fn fill(self, engine: &dyn Engine, num: u64, values: &Values, rng: &mut SmallRng) -> Result<()> {
        const BATCH: u64 = 1000;
        for first in (0..num).step_by(BATCH as usize) {
            let mut txn = done(engine.begin())?;
            for id in first..num.min(first + BATCH) {
                done(match self {
                    Workload::Put | Workload::Readwrite => txn.put(&key(id), values.next(rng)),
                    Workload::Transfer => txn.put(&key(id), &BALANCE.to_le_bytes()),
                    Workload::Counters => txn.put(&key(id), &0u64.to_le_bytes()),
                })?;
            }
            done(txn.commit())?;
        }
        engine.flush()
    }

    /// Reads every key: what all committed transactions together must have left is there.
    pub fn check(self, engine: &dyn Engine, num: u64, value_bytes: usize, added: u64) -> Result<()> {
        let mut sums = [0; SETS as usize];
        let mut value = Vec::new();
        for id in 0..num {
            ensure!(engine.read(&key(id), &mut value)?, "key {id} is gone");
            match self {
                Workload::Put | Workload::Readwrite => {
                    ensure!(value.len() == value_bytes, "key {id} was cut")
                }
                Workload::Transfer => sums[0] += whole(&value)?,
                Workload::Counters => sums[set_of(id, num)] += whole(&value)?,
            }
        }
        match self {
            Workload::Put | Workload::Readwrite => {}
            Workload::Transfer => {
                ensure!(sums[0] == num * BALANCE, "{} of money became {}", num * BALANCE, sums[0]);
            }
            Workload::Counters => {
                ensure!(sums.iter().all(|sum| *sum == added), "{added} added to each set became {sums:?}");
            }
        }
        Ok(())
    }
}

/// Keys in each set of counters.
fn set_keys(num: u64) -> u64 {
    num / SETS
}

/// The set of a counter; what does not divide evenly goes to the last and is never touched.
fn set_of(id: u64, num: u64) -> usize {
    (id / set_keys(num)).min(SETS - 1) as usize
}

fn whole(value: &[u8]) -> Result<u64> {
    match number(value) {
        Some(number) => Ok(number),
        None => bail!("a value of {} bytes is no number", value.len()),
    }
}

/// Outside of the measured part nothing is in the way.
fn done<T>(attempt: Attempt<T>) -> Result<T> {
    attempt.map_err(|failure| match failure {
        Failure::Conflict => anyhow::anyhow!("a conflict while nothing else ran"),
        Failure::Broken(error) => error,
    })
}

/// One thread's run of transactions.
pub struct Worker<'a> {
    /// Where.
    pub engine: &'a dyn Engine,
    /// Keys there are.
    pub num: u64,
    /// What is written.
    pub values: &'a Values,
    /// Its own.
    pub rng: SmallRng,
    /// A value just read.
    pub read: Vec<u8>,
    /// Attempts that met a conflict.
    pub conflicts: u64,
    /// Sum of what was added to each set of counters.
    pub added: u64,
}

impl Worker<'_> {
    /// Runs one transaction until it commits.
    pub fn run(&mut self, workload: Workload) -> Result<()> {
        match workload {
            Workload::Put => self.put(),
            Workload::Readwrite => self.readwrite(),
            Workload::Transfer => self.transfer(),
            Workload::Counters => self.counters(),
        }
    }

    fn put(&mut self) -> Result<()> {
        let [key] = self.keys();
        let value = self.values.next(&mut self.rng);
        self.transact(|txn, _| txn.put(&key, value))
    }

    fn readwrite(&mut self) -> Result<()> {
        let keys: [_; 4] = self.keys();
        let value = self.values.next(&mut self.rng);
        self.transact(|txn, read| {
            txn.get(&keys[0], read)?;
            txn.get(&keys[1], read)?;
            txn.put(&keys[2], value)?;
            txn.put(&keys[3], value)
        })
    }

    fn transfer(&mut self) -> Result<()> {
        let from = self.rng.random_range(0..self.num);
        let to = (from + self.rng.random_range(1..self.num)) % self.num;
        let (from, to) = (key(from), key(to));
        let amount = self.rng.random_range(0..10);
        self.transact(|txn, read| {
            let left = read_number(txn, &from, read)?;
            let right = read_number(txn, &to, read)?;
            // What is not there is not moved; the balances are written nevertheless.
            let amount = amount.min(left);
            txn.put(&from, &(left - amount).to_le_bytes())?;
            txn.put(&to, &(right + amount).to_le_bytes())
        })
    }

    fn counters(&mut self) -> Result<()> {
        let amount = self.rng.random_range(1..100);
        let keys: [_; SETS as usize] = std::array::from_fn(|set| {
            key(set as u64 * set_keys(self.num) + self.rng.random_range(0..set_keys(self.num)))
        });
        self.transact(|txn, read| {
            for key in &keys {
                let count = read_number(txn, key, read)?;
                txn.put(key, &(count + amount).to_le_bytes())?;
            }
            Ok(())
        })?;
        self.added += amount;
        Ok(())
    }

    fn keys<const N: usize>(&mut self) -> [[u8; crate::data::KEY_BYTES]; N] {
        std::array::from_fn(|_| key(self.rng.random_range(0..self.num)))
    }

    fn transact(&mut self, body: impl Fn(&mut dyn Transaction, &mut Vec<u8>) -> Attempt<()>) -> Result<()> {
        loop {
            match self.attempt(&body) {
                Ok(()) => return Ok(()),
                Err(Failure::Conflict) => self.conflicts += 1,
                Err(Failure::Broken(error)) => return Err(error),
            }
        }
    }

    fn attempt(&mut self, body: impl Fn(&mut dyn Transaction, &mut Vec<u8>) -> Attempt<()>) -> Attempt<()> {
        let mut txn = self.engine.begin()?;
        body(&mut *txn, &mut self.read)?;
        txn.commit()
    }
}

fn read_number(txn: &mut dyn Transaction, key: &[u8], read: &mut Vec<u8>) -> Attempt<u64> {
    if !txn.get_for_update(key, read)? {
        return Err(Failure::Broken(anyhow::anyhow!("a key is gone")));
    }
    whole(read).map_err(Failure::Broken)
}
