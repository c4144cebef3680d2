//! Every engine passes every workload's check, and engines that lose something do not.

use crate::data::{Values, key};
use crate::engine::{Attempt, Engine, Level, Product, Transaction, Variant};
use crate::measure::{self, Outcome, Step};
use crate::report::Report;
use crate::workload::Workload;
use anyhow::Result;
use clap::ValueEnum;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

fn step(workload: Workload) -> Step {
    Step { workload, threads: 3, num: 50, value_bytes: 20, duration: Duration::from_millis(20), seed: 1 }
}

#[test]
fn every_engine_passes() {
    let dir = tempfile::tempdir().unwrap();
    for variant in Variant::all() {
        for &workload in Workload::value_variants() {
            let outcome = measure::run(step(workload), variant, dir.path());
            let outcome = outcome.unwrap_or_else(|error| panic!("{variant}, {workload:?}: {error:#}"));
            assert!(outcome.rate > 0.0, "{variant}, {workload:?}");
        }
    }
}

/// A map that applies only so many writes of each transaction.
struct Forgetful {
    map: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
    kept: usize,
}

struct Txn<'a> {
    engine: &'a Forgetful,
    writes: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Engine for Forgetful {
    fn begin(&self) -> Attempt<Box<dyn Transaction + '_>> {
        Ok(Box::new(Txn { engine: self, writes: Vec::new() }))
    }

    fn read(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool> {
        let map = self.map.lock().unwrap();
        value.clear();
        Ok(map.get(key).inspect(|found| value.extend_from_slice(found)).is_some())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

impl Transaction for Txn<'_> {
    fn get(&mut self, key: &[u8], value: &mut Vec<u8>) -> Attempt<bool> {
        Ok(self.engine.read(key, value).unwrap())
    }

    fn get_for_update(&mut self, key: &[u8], value: &mut Vec<u8>) -> Attempt<bool> {
        self.get(key, value)
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Attempt<()> {
        self.writes.push((key.to_vec(), value.to_vec()));
        Ok(())
    }

    fn commit(self: Box<Self>) -> Attempt<()> {
        // Fills come in large transactions and are kept.
        let kept = if self.writes.len() > 10 { usize::MAX } else { self.engine.kept };
        self.engine.map.lock().unwrap().extend(self.writes.into_iter().take(kept));
        Ok(())
    }
}

/// Whether the check passes after a run of one thread on an engine that keeps so many writes.
fn passes(workload: Workload, kept: usize) -> bool {
    let step = Step { threads: 1, ..step(workload) };
    let engine = Forgetful { map: Mutex::default(), kept };
    let mut rng = SmallRng::seed_from_u64(1);
    let values = Values::new(step.value_bytes, &mut rng);
    workload.fill(&engine, step.num, &values, &mut rng).unwrap();
    let (_, added) = measure::measure(step, &engine, &values).unwrap();
    workload.check(&engine, step.num, step.value_bytes, added).is_ok()
}

#[test]
fn lost_writes_are_found() {
    for (workload, writes) in [(Workload::Transfer, 2), (Workload::Counters, 4)] {
        assert!(passes(workload, writes), "{workload:?}");
        assert!(!passes(workload, writes - 1), "{workload:?}");
    }
    assert!(!passes(Workload::Counters, 0));
}

#[test]
fn a_lost_or_cut_entry_is_found() {
    let engine = Forgetful { map: Mutex::default(), kept: 0 };
    let mut rng = SmallRng::seed_from_u64(1);
    let values = Values::new(20, &mut rng);
    Workload::Put.fill(&engine, 50, &values, &mut rng).unwrap();
    let check = || Workload::Put.check(&engine, 50, 20, 0).is_ok();
    assert!(check());
    engine.map.lock().unwrap().get_mut(&key(49)[..]).unwrap().pop();
    assert!(!check());
    engine.map.lock().unwrap().remove(&key(49)[..]);
    assert!(!check());
}

#[test]
fn the_table_has_medians_and_ratios() {
    let mut report = Report::default();
    let esker = Variant { product: Product::Esker, level: Level::Serializable, optimistic: true };
    let fjall = Variant { product: Product::Fjall, ..esker };
    for (variant, rates) in [(esker, [300.0, 100.0, 200.0]), (fjall, [90.0, 110.0, 100.0])] {
        for rate in rates {
            report.add(Workload::Put, 2, variant, Outcome { rate, cpu_us: 1.0, conflicts: 0.5 });
        }
    }
    let rows: Vec<String> = report.table().lines().skip(2).map(String::from).collect();
    assert_eq!(
        rows,
        [
            "| `txn_put` | 2 | esker SERIALIZABLE (optimistic) | 200 (100 to 300) |  | 1.00 | 0.50 |",
            "| `txn_put` | 2 | fjall SERIALIZABLE (optimistic) | 100 (90 to 110) | 2.00 x | 1.00 | 0.50 |",
        ]
    );
}
