//! Random histories of few transactions over few keys, judged by the serialization graph.

use super::{Kind, Txn, World, model};
use crate::base::random::{SplitMix64, test_seed};
use std::collections::BTreeSet;

/// What a history is made of.
#[derive(Debug, Clone, Copy)]
struct Mix {
    keys: u64,
    transactions: u64,
    bytes_max: usize,
    /// In percent.
    declared: u64,
    plain: u64,
    prepare: u64,
}

const MIX: Mix = Mix { keys: 4, transactions: 5, bytes_max: 1 << 20, declared: 15, plain: 10, prepare: 0 };

struct Run {
    world: World,
    random: SplitMix64,
    mix: Mix,
    open: Vec<Txn>,
    commits: u64,
}

impl Run {
    fn percent(&mut self, share: u64) -> bool {
        self.random.below(100) < share
    }

    fn key(&mut self) -> u8 {
        self.random.below(self.mix.keys) as u8
    }

    fn begin(&mut self) {
        if self.percent(self.mix.plain) {
            let keys: BTreeSet<u8> = (0..=self.random.below(2)).map(|_| self.key()).collect();
            // Fails only because of a prepared transaction.
            let outcome = self.world.plain(keys);
            assert!(outcome.is_ok() || !self.world.prepared.is_empty(), "{outcome:?}");
            return;
        }
        let kind = if self.percent(self.mix.declared) { Kind::Declared } else { Kind::Tracked };
        let txn = self.world.begin(kind);
        self.open.push(txn);
    }

    /// One operation of one open transaction.
    fn step(&mut self) {
        let index = self.random.below(self.open.len() as u64) as usize;
        let key = self.key();
        let is_writer = self.open[index].tracker.is_some() && !self.open[index].id.is_multiple_of(4);
        match self.random.below(10) {
            0..=2 => self.world.get(&mut self.open[index], key),
            3 => {
                let upto = key + 1 + self.random.below(self.mix.keys - u64::from(key)) as u8;
                let backwards = self.percent(50);
                self.world.scan(&mut self.open[index], key, upto, backwards);
            }
            4..=6 if is_writer => {
                self.world.put(&mut self.open[index], key);
            }
            4..=6 => self.world.get(&mut self.open[index], key),
            7 => self.world.publish_upto(self.world.visible.get() + 1),
            _ => self.end(index),
        }
    }

    fn end(&mut self, index: usize) {
        let txn = self.open.swap_remove(index);
        if let Some(tracker) = &txn.tracker
            && self.random.below(2) == 0
        {
            tracker.review();
        }
        if self.percent(8) {
            return self.world.rollback(txn);
        }
        if txn.tracker.is_some() && !txn.writes.is_empty() && self.percent(self.mix.prepare) {
            drop(self.world.prepare(txn));
            return;
        }
        let is_declared = txn.tracker.is_none();
        let outcome = self.world.commit(txn);
        assert!(outcome.is_ok() || !is_declared);
        self.commits += u64::from(outcome.is_ok());
        let last = self.world.unpublished.last().and_then(|commit| commit.txn.as_ref());
        if let Some(tracker) = last.and_then(|txn| txn.tracker.as_ref())
            && self.random.below(2) == 0
        {
            tracker.settle();
        }
        if self.percent(60) {
            self.world.publish_upto(u64::MAX);
        }
    }

    fn decide_prepared(&mut self) {
        let ids: Vec<u64> = self.world.prepared.keys().copied().collect();
        for id in ids {
            if self.percent(15) {
                self.world.commit_prepared(id);
            } else if self.percent(5) {
                self.world.rollback_prepared(id);
            }
        }
    }

    fn history(mut self) -> Run {
        let mut left = self.mix.transactions;
        while left > 0 || !self.open.is_empty() {
            if left > 0 && (self.open.is_empty() || self.percent(25)) {
                left -= 1;
                self.begin();
            } else {
                self.step();
            }
            self.decide_prepared();
        }
        self.world.close();
        self
    }
}

/// Runs histories; every one must be serializable and leave nothing behind.
fn check(name: &str, mix: Mix, histories: u64) {
    let mut seeds = SplitMix64::new(test_seed(20_261_120));
    let (mut commits, mut aborts, mut wrong, mut waits) = (0, 0, 0, 0);
    for _ in 0..histories {
        let seed = seeds.next_u64();
        let transactions = 3 + seed % (mix.transactions - 2);
        let run = Run {
            world: World::new(mix.bytes_max),
            random: SplitMix64::new(seed),
            mix: Mix { transactions, ..mix },
            open: Vec::new(),
            commits: 0,
        };
        let run = run.history();
        if let Some(cycle) = model::cycle(&run.world.history) {
            panic!("seed {seed}, {mix:?}: cycle {cycle:?} in {:#?}", run.world.history);
        }
        commits += run.commits;
        aborts += run.world.aborts;
        wrong += run.world.false_aborts;
        waits += run.world.waits;
    }
    println!(
        "{name}: {histories} histories, {commits} commits, {aborts} aborts, {wrong} of them without a cycle yet, \
         {waits} waits at begin"
    );
    assert!(commits > histories / 2, "next to nothing commits");
    assert!(aborts > 0, "nothing was ever in danger");
}

#[test]
fn histories_are_serializable() {
    check("few keys", MIX, 40_000);
    check("two keys", Mix { keys: 2, transactions: 6, ..MIX }, 20_000);
    check("more keys", Mix { keys: 8, transactions: 8, ..MIX }, 10_000);
    check("no declared readers", Mix { declared: 0, plain: 0, ..MIX }, 20_000);
}

#[test]
fn histories_with_prepared_transactions_are_serializable() {
    check("prepared", Mix { prepare: 40, transactions: 6, ..MIX }, 40_000);
    check("all prepared", Mix { prepare: 100, transactions: 6, ..MIX }, 10_000);
}

#[test]
fn histories_with_hardly_any_memory_are_serializable() {
    for bytes_max in [0, 300, 700, 1_500] {
        let mix = Mix { keys: 6, transactions: 8, bytes_max, prepare: 5, ..MIX };
        check(&format!("{bytes_max} bytes"), mix, 8_000);
    }
}

#[test]
fn serial_histories_never_abort() {
    let mut random = SplitMix64::new(test_seed(3));
    let mut world = World::new(1 << 20);
    for _ in 0..2_000 {
        let kind = if random.below(5) == 0 { Kind::Declared } else { Kind::Tracked };
        let mut txn = world.begin(kind);
        for _ in 0..random.below(6) {
            let key = random.below(6) as u8;
            match random.below(3) {
                0 => world.scan(&mut txn, 0, key, random.below(2) == 0),
                1 if txn.tracker.is_some() => assert!(world.put(&mut txn, key)),
                _ => world.get(&mut txn, key),
            }
        }
        world.commit(txn).unwrap();
        world.publish_upto(u64::MAX);
    }
    world.close();
}

#[test]
fn transactions_over_disjoint_keys_never_abort() {
    let mut random = SplitMix64::new(test_seed(4));
    let mut world = World::new(1 << 20);
    let mut open: Vec<Option<Txn>> = (0..8).map(|_| None).collect();
    for _ in 0..20_000 {
        let slot = random.below(8) as usize;
        let first = slot as u8 * 10;
        let mut txn = open[slot].take().unwrap_or_else(|| world.begin(Kind::Tracked));
        match random.below(4) {
            0 => world.scan(&mut txn, first, first + 10, random.below(2) == 0),
            1 => assert!(world.put(&mut txn, first + random.below(10) as u8)),
            2 => world.get(&mut txn, first + random.below(10) as u8),
            _ => {
                world.commit(txn).unwrap();
                world.publish_upto(u64::MAX);
                world.history.clear();
                continue;
            }
        }
        open[slot] = Some(txn);
    }
    assert_eq!(world.aborts, 0);
}
