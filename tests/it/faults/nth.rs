//! Every operation of the disk fails once, and for good from there on, in a workload that goes through everything.
//!
//! Whatever fails: no panic, no wrong answer, no error that blames the data; after the disk is sound again and the
//! database reopened, everything acknowledged is there, nothing refused is, and no file is left over.
//!
//! `ESKER_FAULT_STRIDE` sets how far apart the visited operations are on average; 1 visits every one.

use super::world::{DIR, KEYSPACES, Ledger, World, Write, state, tiny};
use crate::support::{Random, seed, setting};
use esker::env::{CrashMode, Fault, FaultRule, Op, OpSet, When};
use esker::{Db, Durability, Error, ErrorKind, ReadMode};
use std::io;
use std::sync::Arc;

/// The writes of the `n`th commit.
fn nth_writes(n: u64) -> Vec<Write> {
    let mut random = Random::new(n);
    let one = |random: &mut Random| {
        let keyspace = random.below(KEYSPACES.len() as u64) as usize;
        let key = format!("key{:02}", random.below(30)).into_bytes();
        let len = random.below(250) as usize;
        (keyspace, key, (!random.chance(20)).then(|| random.bytes(len)))
    };
    (0..1 + random.below(3)).map(|_| one(&mut random)).collect()
}

/// The kinds of error that a failing disk may lead to.
fn check_kind(error: &Error, what: &str) {
    use ErrorKind::*;
    let fair = [Io, NoSpace, OutcomeUnknown, Poisoned, Stalled];
    assert!(fair.contains(&error.kind()), "{what}: {:?}: {error}", error.kind());
}

/// A run of the workload on a disk that fails by these rules.
struct Run {
    world: World,
    ledger: Ledger,
    what: String,
}

impl Run {
    /// Runs until the end or until the database cannot be opened.
    fn work(&mut self) {
        for session in 0..2 {
            match self.options(session).open(DIR) {
                Ok(db) => self.session(db, session),
                Err(error) => return check_kind(&error, &self.what),
            }
        }
    }

    fn options(&self, session: u64) -> esker::Options {
        let mode = if session == 0 { ReadMode::Mmap } else { ReadMode::Pread };
        self.world.options().wal_mapped(session == 0).read_mode(mode)
    }

    fn session(&mut self, db: Db, session: u64) {
        match state(&db) {
            Ok(shown) => assert!(self.ledger.resolve(&shown), "{}: reopened on the failing disk", self.what),
            Err(error) => return check_kind(&error, &self.what),
        }
        self.note(db.keyspace_with("second", &tiny()).map(|_| ()));
        self.note(db.keyspace_with("temporary", &tiny()).and_then(|one| one.put("key", "value")));
        let snapshot = db.snapshot();
        for n in 0..40 {
            let durability = if n % 4 == 1 { Durability::Disk } else { Durability::Os };
            let committed = self.ledger.commit(&db, nth_writes(session << 32 | n), durability);
            if let Err(error) = committed
                && error.kind() != ErrorKind::NotFound
            {
                check_kind(&error, &self.what);
            }
            match n {
                9 | 24 => self.note(db.flush()),
                14 => {
                    let synced = db.sync();
                    if synced.is_ok() {
                        self.ledger.durable = self.ledger.commits.len();
                    }
                    self.note(synced);
                }
                19 => self.note(db.compact()),
                29 => self.drop_temporary(&db),
                _ if n % 5 == 0 => {
                    db.run_background_job();
                }
                _ => self.check_read(&db, n),
            }
        }
        drop(snapshot);
        self.note(db.wait_for_background());
        self.check_reads(&db);
        self.note(db.close());
    }

    fn note(&self, result: esker::Result<()>) {
        if let Err(error) = result {
            check_kind(&error, &self.what);
        }
    }

    fn drop_temporary(&self, db: &Db) {
        match db.drop_keyspace("temporary") {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            other => self.note(other),
        }
    }

    /// A read that succeeds tells the truth.
    fn check_read(&self, db: &Db, n: u64) {
        let key = format!("key{:02}", n % 30);
        let expect = self.ledger.visible()[0].get(key.as_bytes()).cloned();
        match db.get(&key) {
            Ok(found) => assert_eq!(found.map(|value| value.to_vec()), expect, "{}: {key}", self.what),
            Err(error) => check_kind(&error, &self.what),
        }
    }

    fn check_reads(&self, db: &Db) {
        match state(db) {
            Ok(shown) => assert!(shown == self.ledger.visible(), "{}: a scan is wrong", self.what),
            Err(error) => check_kind(&error, &self.what),
        }
    }

    /// What the next open finds on a sound disk, and what it finds if the power failed first.
    fn check_afterwards(&self) {
        let what = &self.what;
        assert_eq!(self.world.disk.open_handles(), [], "{what}");
        self.world.faults.heal();
        let dark = World::on(Arc::new(self.world.disk.crash_clone(1, CrashMode::SyncedOnly)));
        let least = [(&self.world, self.ledger.acknowledged()), (&dark, self.ledger.durable)];
        for (world, least) in least {
            let db = world.open().unwrap_or_else(|error| panic!("{what}: open on a sound disk: {error}"));
            let shown = state(&db).unwrap_or_else(|error| panic!("{what}: read on a sound disk: {error}"));
            assert!(
                self.ledger.allows(&shown, least),
                "{what}: after the reopen {least} of {} commits must be there in order",
                self.ledger.commits.len()
            );
            db.verify().unwrap_or_else(|error| panic!("{what}: verify: {error}"));
            world.check_nothing_left(db, what);
        }
    }
}

/// How an operation fails.
fn faults_of(op: Op) -> Vec<FaultRule> {
    // EIO, and what else the system says where it can run out of something: ENOMEM, EMFILE, ENOSPC.
    let numbers: &[i32] = match op {
        Op::Create => &[5, 24, 28],
        Op::Append | Op::Preallocate => &[5, 28],
        Op::Open => &[5, 24],
        Op::Map => &[5, 12],
        _ => &[5],
    };
    let mut rules: Vec<_> = numbers.iter().map(|number| FaultRule::new(op, Fault::Errno(*number))).collect();
    if matches!(op, Op::Create | Op::Finish | Op::Rename | Op::Remove | Op::SyncDir | Op::SyncFile) {
        // It happened, and is reported as failed.
        rules.push(FaultRule::new(op, Fault::ErrorAfter(io::ErrorKind::Other)));
    }
    if op == Op::Append {
        rules.push(FaultRule::new(op, Fault::ShortWrite { bytes: 5, kind: io::ErrorKind::Other }));
        rules.push(FaultRule::new(op, Fault::ErrorAfter(io::ErrorKind::Other)));
        // Only the log is written through a mapped window.
        rules.push(FaultRule::new(op, Fault::Poison).path("*.wal"));
    }
    rules
}

/// Runs with this rule; says whether its fault happened at all.
fn run(rule: FaultRule) -> bool {
    let world = World::new();
    world.faults.add(rule.clone());
    let mut run = Run { world, ledger: Ledger::default(), what: format!("{rule:?}") };
    run.work();
    let happened = run.world.faults.faults() > 0;
    run.check_afterwards();
    happened
}

#[test]
fn on_a_disk_that_fails_now_and_then_nothing_acknowledged_is_lost() {
    let runs = setting("ESKER_FAULT_RUNS", 200);
    let first = seed(1000);
    println!("ESKER_SEED={first} ESKER_FAULT_RUNS={runs}");
    for seed in first..first + runs {
        let probability = [0.001, 0.003, 0.01, 0.03, 0.1][(seed % 5) as usize];
        let rare = When::Probability { seed, probability };
        run(FaultRule::new(OpSet::ALL, Fault::Errno(5)).when(rare));
        run(FaultRule::new(OpSet::mutations(), Fault::Errno(28)).when(rare));
    }
}

#[test]
fn whatever_fails_nothing_acknowledged_is_lost() {
    let stride = setting("ESKER_FAULT_STRIDE", 10);
    let seed = seed(3);
    println!("ESKER_SEED={seed} ESKER_FAULT_STRIDE={stride}");
    let mut random = Random::new(seed);
    let mut runs = 0;
    for rule in Op::ALL.iter().flat_map(|op| faults_of(*op)) {
        for for_good in [false, true] {
            let mut n = 1;
            while run(rule.clone().when(if for_good { When::From(n) } else { When::Nth(n) })) {
                runs += 1;
                n += 1 + random.below(2 * stride - 1);
            }
        }
    }
    println!("{runs} runs with a fault");
    assert!(runs > 100, "the workload hardly meets a fault");
}
