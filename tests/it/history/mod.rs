//! Random histories: clients do at random what clients do, write down what they were told, and a checker says whether
//! that is what their isolation levels promise.
//!
//! `model` is what a history is, `notation` writes small ones as text, `chains`, `reads`, `graph`, `cycles`, `ending` and
//! `check` are the checker, `known` checks it. `plan`, `client` and `world` make histories. `second_opinion` asks another
//! checker. `ESKER_TXN_HISTORIES` says how many transactions are checked; the failing round is repeated by the seed in
//! the message: exactly if it was stepped, as far as threads allow if not.

mod anomaly;
mod chains;
mod check;
mod client;
mod cycles;
mod ending;
mod graph;
mod known;
mod model;
mod notation;
mod plan;
mod reads;
mod second_opinion;
mod world;

use crate::support::{seed, setting};
use anomaly::{Kind, kinds};
use check::{anomalies_found, check};
use model::{History, Level, Status};
use plan::{Mix, Workload};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use world::{ROUND, Round, Turns, World};

/// What was checked in how much time.
#[derive(Debug, Default)]
struct Tally {
    committed: u64,
    aborted: u64,
    unknown: u64,
    checking: Duration,
}

impl Tally {
    fn count(&mut self, history: &History) {
        for one in &history.transactions {
            match one.status {
                Status::Committed(_) => self.committed += 1,
                Status::Aborted => self.aborted += 1,
                Status::Unknown => self.unknown += 1,
            }
        }
    }
}

/// Rounds on one database before the next seed begins with another.
const CHAIN: u64 = 4;

#[test]
fn random_histories_are_what_their_levels_promise() {
    let wanted = setting("ESKER_TXN_HISTORIES", 40_000);
    let first = seed(1);
    println!("ESKER_SEED={first} ESKER_TXN_HISTORIES={wanted}");
    let per_round = (wanted / 20).clamp(1000, ROUND);
    let mut tally = Tally::default();
    let started = Instant::now();
    for index in 0.. {
        let seed = first.wrapping_add(index);
        let mut world = World::new(seed);
        for number in 0..CHAIN {
            let round = Round::draw(&mut world.random, per_round);
            let history = world.run(&round);
            let begun = Instant::now();
            let found = check(&history);
            tally.checking += begun.elapsed();
            assert!(found.is_empty(), "ESKER_SEED={seed} round {number} {round:?}:\n{}", lines(&found));
            tally.count(&history);
        }
        if tally.committed >= wanted {
            break;
        }
    }
    println!("{tally:?} in {:?}", started.elapsed());
}

fn lines<T: ToString>(found: &[T]) -> String {
    found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// A stepped run at one level in which everybody is in everybody's way, but nobody is made to wait.
fn crowd(level: Level, workloads: &'static [Workload]) -> Round {
    let mix =
        Mix { level: Some(level), registers: 3, plain: 0, optimistic: 0, aborted: 20, disk: 3, workloads };
    Round { turns: Turns::Stepped(5), mix, transactions: 3000, crash: None }
}

/// A level that is secretly stronger is not tested: each one must show what it allows.
#[test]
fn each_weaker_level_shows_what_it_allows() {
    use Kind::*;
    let allowed: [(Level, &[Kind]); 3] = [
        (Level::ReadUncommitted, &[G1a, G1b, G1c, Otv, Torn, Pmp, P4, GSingle, G2Item, G2]),
        (Level::ReadCommitted, &[Pmp, P4, GSingle, GSi, G2Item, G2]),
        (Level::RepeatableRead, &[G2Item, G2]),
    ];
    for (level, expect) in allowed {
        let mut found: BTreeSet<Kind> = BTreeSet::new();
        for seed in 0..4 {
            let history = World::new(seed).run(&crowd(level, &[Workload::Registers]));
            let anomalies = anomalies_found(&history);
            let forbidden: Vec<_> =
                anomalies.iter().filter(|one| one.kind.forbidden_from() <= level).collect();
            assert!(forbidden.is_empty(), "{level:?}, seed {seed}:\n{}", lines(&forbidden));
            found.extend(kinds(&anomalies));
        }
        let missing: Vec<_> = expect.iter().filter(|kind| !found.contains(kind)).collect();
        assert!(missing.is_empty(), "{level:?} did not show {missing:?}, but {found:?}");
    }
}

#[test]
fn serializable_shows_nothing_by_any_name() {
    for seed in 0..4 {
        let history = World::new(seed).run(&crowd(Level::Serializable, Workload::ALL));
        let found = anomalies_found(&history);
        assert!(found.is_empty(), "seed {seed}:\n{}", lines(&found));
        assert!(
            history.transactions.iter().any(|one| one.status == Status::Aborted),
            "nobody was in the way"
        );
    }
}

/// A stepped run is a function of its seed.
#[test]
fn a_stepped_round_happens_again_from_its_seed() {
    let once = || {
        let mut world = World::new(5);
        let round =
            Round { crash: Some(esker::env::CrashMode::Torn), ..crowd(Level::RepeatableRead, Workload::ALL) };
        let history = world.run(&round);
        format!("{:?} {:?} {:?}", history.ops, history.found, history.end)
    };
    assert_eq!(once(), once());
}

/// What another checker finds in histories of lists, ours finds as well, and where it is needed it does find something.
#[test]
fn a_second_checker_agrees() {
    let mut found_by_both = 0;
    for level in Level::ALL {
        for seed in 0..3 {
            let round = Round { transactions: 1500, ..crowd(level, &[Workload::Lists]) };
            let history = World::new(seed).run(&round);
            for held_to in Level::ALL {
                let ours = check(&history.at(held_to));
                let theirs = second_opinion::anomalies(&history, second_opinion::model(held_to));
                assert!(
                    theirs.is_empty() || !ours.is_empty(),
                    "{level:?} as {held_to:?}, seed {seed}: {theirs:?}"
                );
                assert!(held_to > level || theirs.is_empty(), "{level:?}, seed {seed}: {theirs:?}");
                found_by_both += u64::from(!theirs.is_empty());
            }
        }
    }
    assert!(found_by_both >= 6, "only {found_by_both}: it sees nothing");
}
