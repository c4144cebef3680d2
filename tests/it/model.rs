//! The model test: random operations of every kind on a database and on a reference that is too simple to be wrong,
//! which must agree after every step.
//!
//! A run is a fixed number of steps on a fresh database whose options, keys and operations all follow from its seed.
//! `ESKER_MODEL_OPS` says how many steps are taken in all; the failing run is repeated by the seed in the message.
//! On the simulated disk, without threads, it then fails in the same step again.

mod concurrent;
mod draw;
mod held;
mod reads;
mod reference;
mod rig;

use crate::support::{seed, setting};
use esker::env::Env;
use esker::{KeyspaceOptions, Options};
use rig::{Rig, World};

/// Steps of one run.
const RUN_STEPS: u64 = 20_000;

fn runs(default_steps: u64, world: impl Fn(u64) -> World) {
    let steps = setting("ESKER_MODEL_OPS", default_steps);
    let first = seed(1);
    println!("ESKER_SEED={first} ESKER_MODEL_OPS={steps}");
    for index in 0..steps.div_ceil(RUN_STEPS) {
        let seed = first.wrapping_add(index);
        Rig::new(seed, world(seed)).run(RUN_STEPS.min(steps - index * RUN_STEPS));
    }
}

#[test]
fn the_model_agrees_in_simulation() {
    runs(60_000, World::memory);
}

#[test]
fn the_model_agrees_on_a_real_disk() {
    runs(20_000, |_| World::disk());
}

#[test]
fn concurrent_readers_see_whole_batches_in_order() {
    let (steps, first) = (setting("ESKER_MODEL_OPS", 20_000), seed(1));
    println!("ESKER_SEED={first} ESKER_MODEL_OPS={steps}");
    // A round of a writer is about 30 operations.
    let rounds = steps / 100;
    let per_run = 400;
    for index in 0..rounds.div_ceil(per_run) {
        concurrent::run(first.wrapping_add(index), per_run.min(rounds));
    }
}

/// A log that is over its budget only by what needs no flush any more keeps nobody waiting.
#[test]
fn a_batch_larger_than_the_log_budget_does_not_stop_later_writes() {
    for default_writes in 0..3 {
        let (env, _) = Env::memory(1);
        let options =
            Options::tiny().wal_segment_bytes(4096).wal_bytes_max(8192).background_threads(0).env(env);
        let db = options.open("/db").expect("create");
        let other = db.keyspace("other").expect("create a keyspace");
        other.put("huge", vec![1; 100_000]).expect("write");
        // The segment that is being written, or one before it.
        for number in 0..default_writes {
            db.put([number], "v").expect("write");
        }
        db.flush().expect("flush");
        for number in 0..100 {
            db.put([number], "w").expect("write");
        }
    }
}

/// Memory that is full of memtables none of which is full is freed like any other.
#[test]
fn many_filling_memtables_do_not_stop_writes() {
    let (env, _) = Env::memory(1);
    let options =
        Options::tiny().memory_budget(1 << 20).wal_bytes_max(64 << 20).background_threads(0).env(env);
    let db = options.open("/db").expect("create");
    let keyspace = KeyspaceOptions::new().write_buffer_bytes(128 << 10);
    let names = ["a", "b", "c", "d", "e", "f"];
    let keyspaces = names.map(|name| db.keyspace_with(name, &keyspace).expect("create a keyspace"));
    for number in 0..2000u32 {
        for keyspace in &keyspaces {
            keyspace.put(number.to_be_bytes(), [7; 100]).expect("write");
        }
    }
    let stats = db.stats();
    assert!(stats.memtable_bytes < 1 << 20, "{stats}");
    for keyspace in &keyspaces {
        assert_eq!(keyspace.iter().count(), 2000);
    }
}
