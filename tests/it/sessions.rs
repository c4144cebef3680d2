//! Sessions: after any crash the recovered serial number is exactly the last operation of the session that survived.
//!
//! **How it is judged.** Operation *n* of a session writes the key *session/n*, in one of two keyspaces, now and then
//! in both. So what survived can be counted, and must be the operations from 1 to `recovered_serial`: at least those
//! that were acknowledged as durable (after a kill: acknowledged), at most those that were begun. What an open has
//! told is still there after any later crash.

use crate::machine::{DIR, KEYSPACES, Machine, options};
use crate::support::{seed, setting};
use esker::env::{CrashMode, Env, MemFs};
use esker::{Db, Durability, ErrorKind, Options, Session, WriteOptions};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

const PRODUCERS: usize = 3;

/// A session and what is known of its operations.
#[derive(Debug, Default, Clone)]
struct Producer {
    name: String,
    begun: u64,
    acknowledged: u64,
    durable: u64,
    /// What an open has told.
    told: u64,
}

struct Rig {
    machine: Machine,
    open: Vec<Option<Session>>,
    producers: Vec<Producer>,
}

impl Rig {
    fn new(seed: u64) -> Rig {
        let producer = |index| Producer { name: format!("producer {index}"), ..Producer::default() };
        let producers = (0..PRODUCERS).map(producer).collect();
        let open = (0..PRODUCERS).map(|_| None).collect();
        Rig { machine: Machine::new(seed), open, producers }
    }

    fn db(&self) -> &Db {
        self.machine.db()
    }

    /// Stops at the first operation that fails, which happens only when the disk froze.
    fn work(&mut self, steps: u64) {
        for step in 0..steps {
            if !self.step() {
                assert!(
                    self.machine.fs.is_frozen(),
                    "{}: step {step} failed on a sound disk",
                    self.machine.what
                );
                return;
            }
        }
    }

    fn step(&mut self) -> bool {
        match self.machine.random.below(100) {
            0..65 => self.produce(),
            65..68 => self.db().put("other", "write").is_ok(),
            68..78 => {
                self.db().run_background_job();
                true
            }
            78..82 => self.db().flush().is_ok(),
            82..84 => self.db().compact().is_ok(),
            84..87 => {
                let synced = self.db().sync().is_ok();
                if synced {
                    self.all_durable();
                }
                synced
            }
            87..98 => {
                // Only what is closed can be opened again.
                let index = self.machine.random.below(PRODUCERS as u64) as usize;
                self.open[index] = None;
                true
            }
            _ => self.reopen(),
        }
    }

    fn all_durable(&mut self) {
        self.producers.iter_mut().for_each(|producer| producer.durable = producer.acknowledged);
    }

    fn produce(&mut self) -> bool {
        let index = self.machine.random.below(PRODUCERS as u64) as usize;
        if self.open[index].is_none() && !self.open_session(index) {
            return false;
        }
        let session = self.open[index].take().expect("open");
        let done = self.commit(index, &session);
        self.open[index] = Some(session);
        done
    }

    fn open_session(&mut self, index: usize) -> bool {
        let producer = &mut self.producers[index];
        let Ok(session) = self.machine.db().session(&producer.name) else { return false };
        assert_eq!(session.recovered_serial(), producer.acknowledged, "{}: {producer:?}", self.machine.what);
        // To open is to be told, and what was told stays.
        producer.durable = producer.acknowledged;
        producer.told = producer.acknowledged;
        self.open[index] = Some(session);
        true
    }

    fn commit(&mut self, index: usize, session: &Session) -> bool {
        let serial = session.serial() + 1;
        let durability = if self.machine.random.chance(20) { Durability::Disk } else { Durability::Os };
        let value_len = if self.machine.random.chance(3) { 6000 } else { self.machine.random.below(100) };
        let value = self.machine.random.bytes(value_len as usize);
        let both = self.machine.random.chance(30);
        let first = self.machine.random.below(2) as usize;
        let key = format!("{}/{serial:06}", session.name());
        let mut batch = self.db().batch();
        for keyspace in 0..KEYSPACES.len() {
            if both || keyspace == first {
                batch.put(&self.machine.keyspace(keyspace), &key, &value).expect("within limits");
            }
        }
        let producer = &mut self.producers[index];
        producer.begun = serial;
        match session.commit_with(batch, WriteOptions::new().durability(durability)) {
            Ok(receipt) => {
                assert_eq!(receipt.serial, serial);
                producer.acknowledged = serial;
                // A sync covers everything that was committed before it, of all sessions.
                if durability == Durability::Disk {
                    self.all_durable();
                }
                true
            }
            Err(_) => false,
        }
    }

    fn reopen(&mut self) -> bool {
        self.let_go();
        let reopened = self.machine.reopen();
        if reopened {
            self.all_durable();
        }
        reopened
    }

    fn let_go(&mut self) {
        self.open.iter_mut().for_each(|session| *session = None);
    }

    fn crash(&mut self, mode: CrashMode) {
        self.let_go();
        self.machine.crash(mode);
    }

    fn judge(&mut self, mode: CrashMode) {
        let states = self.machine.maps().expect("read");
        let listed = self.db().sessions().expect("list");
        for index in 0..PRODUCERS {
            let producer = &self.producers[index];
            let what = format!("{} {mode:?}: {producer:?}", self.machine.what);
            let least = if mode == CrashMode::ProcessKill { producer.acknowledged } else { producer.durable };
            let session = self.db().session(&producer.name).expect("open a session");
            let recovered = session.recovered_serial();
            assert!((least..=producer.begun).contains(&recovered), "{what}: {recovered} recovered");
            assert!(recovered >= producer.told, "{what}: {recovered} recovered, more was told");
            let expected: BTreeSet<Vec<u8>> =
                (1..=recovered).map(|n| format!("{}/{n:06}", producer.name).into_bytes()).collect();
            let is_own = |key: &&Vec<u8>| key.starts_with(format!("{}/", producer.name).as_bytes());
            let found: BTreeSet<Vec<u8>> =
                states.iter().flat_map(|state| state.keys().filter(is_own).cloned()).collect();
            assert_eq!(found, expected, "{what}: {recovered} recovered, other operations are there");
            let info = listed.iter().find(|info| info.name == producer.name);
            assert_eq!(info.map_or(0, |info| info.serial), recovered, "{what}: as listed");
            let producer = &mut self.producers[index];
            *producer = Producer {
                name: std::mem::take(&mut producer.name),
                begun: recovered,
                acknowledged: recovered,
                durable: recovered,
                told: recovered,
            };
            self.open[index] = Some(session);
        }
        self.db().verify().unwrap_or_else(|error| panic!("{}: verify: {error}", self.machine.what));
    }
}

/// Scripts, each cut at every operation on the disk, in every way: as many as it takes to meet enough crash points.
#[test]
fn at_every_crash_point_the_serial_number_is_what_survived() {
    const SCRIPTS_MAX: u64 = 20;
    let first = seed(3);
    println!("ESKER_SEED={first}");
    let mut points = 0;
    for script in 0..SCRIPTS_MAX {
        points += cut_everywhere(first.wrapping_add(script));
        if points > 200 {
            println!("{points} crash points");
            return;
        }
    }
    panic!("the scripts are too short: {points} operations");
}

/// How many crash points one script has.
fn cut_everywhere(seed: u64) -> u64 {
    let mut points = 0;
    for mode in CrashMode::ALL {
        for at in 1.. {
            let mut rig = Rig::new(seed);
            rig.machine.what = format!("ESKER_SEED={seed} operation {at}");
            rig.machine.fs.freeze_at(at);
            rig.work(60);
            let is_over = !rig.machine.fs.is_frozen();
            rig.crash(mode);
            let mode = rig.machine.recover(mode);
            rig.judge(mode);
            // And what was told stays, though nothing was written since.
            rig.crash(CrashMode::SyncedOnly);
            rig.machine.recover(CrashMode::SyncedOnly);
            rig.judge(CrashMode::SyncedOnly);
            points += 1;
            if is_over {
                break;
            }
        }
    }
    points
}

#[test]
fn sessions_resume_through_chains_of_crashes() {
    let cycles = setting("ESKER_CRASH_CYCLES", 400) / 2;
    let first = seed(11);
    println!("ESKER_SEED={first} ESKER_CRASH_CYCLES={}", cycles * 2);
    const PER_CHAIN: u64 = 20;
    let (mut acknowledged, mut lost) = (0, 0);
    for index in 0..cycles.div_ceil(PER_CHAIN) {
        let mut rig = Rig::new(first + index);
        for cycle in 0..PER_CHAIN {
            rig.machine.what = format!("ESKER_SEED={} cycle {cycle}", first + index);
            if rig.machine.random.chance(60) {
                let at = 1 + rig.machine.random.below(150);
                rig.machine.fs.freeze_at(at);
            }
            let steps = rig.machine.random.below(70);
            rig.work(steps);
            let total = |rig: &Rig| rig.producers.iter().map(|producer| producer.acknowledged).sum::<u64>();
            let before = total(&rig);
            let mode = *rig.machine.random.pick(&CrashMode::ALL);
            rig.crash(mode);
            let mode = rig.machine.recover(mode);
            rig.judge(mode);
            lost += before.saturating_sub(total(&rig));
        }
        acknowledged += rig.producers.iter().map(|producer| producer.acknowledged).sum::<u64>();
    }
    println!("{acknowledged} operations, {lost} acknowledged ones lost with the page cache");
    assert!(acknowledged > 0 && (lost > 0 || cycles < 100), "nothing was lost: power cuts are not tested");
}

fn simulated() -> (Env, Db) {
    let env = Env::simulated(Arc::new(MemFs::new()), 1);
    let db = options(&env).open(DIR).expect("create");
    (env, db)
}

#[test]
fn ten_thousand_sessions_are_listed_and_forgotten() {
    let env = Env::simulated(Arc::new(MemFs::new()), 1);
    let open = || {
        let options = Options::new().durability(Durability::Os).background_threads(0);
        options.memory_budget(8 << 20).env(env.clone()).open(DIR).expect("open")
    };
    let db = open();
    let keyspace = db.default_keyspace();
    let name = |index: u64| format!("session {index:05}");
    for index in 0..10_000 {
        env.clock.sleep(Duration::from_micros(1));
        let session = db.session(&name(index)).expect("session");
        for _ in 0..=index % 3 {
            session.put(&keyspace, "k", "v").expect("put");
        }
    }
    let check = |db: &Db, names: &[u64]| {
        let listed = db.sessions().expect("list");
        let expected: Vec<(String, u64)> = names.iter().map(|index| (name(*index), 1 + index % 3)).collect();
        let found: Vec<(String, u64)> = listed.iter().map(|info| (info.name.clone(), info.serial)).collect();
        assert!(found == expected, "{} sessions listed, {} expected", found.len(), expected.len());
        let times: Vec<_> = listed.iter().map(|info| info.last_commit).collect();
        assert!(times.is_sorted() && times.iter().all(|time| *time > UNIX_EPOCH));
    };
    let all: Vec<u64> = (0..10_000).collect();
    check(&db, &all);
    db.flush().expect("flush");
    db.wait_for_background().expect("background work");
    // Idle sessions are entries of tables and nothing in memory.
    let stats = db.stats();
    assert!(stats.memtable_bytes < 400_000, "{} bytes of memtables", stats.memtable_bytes);
    assert!(stats.system.as_ref().is_some_and(|system| system.bytes() > 0), "{stats}");
    check(&db, &all);
    db.close().expect("close");

    let db = open();
    check(&db, &all);
    for index in (0..10_000).filter(|index| index % 10 != 0) {
        db.forget_session(&name(index)).expect("forget");
    }
    let kept: Vec<u64> = (0..10_000).step_by(10).collect();
    check(&db, &kept);
    db.flush().expect("flush");
    db.wait_for_background().expect("background work");
    check(&db, &kept);
    assert_eq!(db.session(&name(1)).expect("session").recovered_serial(), 0);
    assert_eq!(db.session(&name(20)).expect("session").recovered_serial(), 3);
    drop(db);
    check(&open(), &kept);
}

#[test]
fn serial_numbers_outlive_flushes_compactions_and_reopening() {
    let (env, mut db) = simulated();
    for round in 0..20u64 {
        let session = db.session("s").expect("session");
        assert_eq!(session.recovered_serial(), round * 100);
        let keyspace = db.default_keyspace();
        for n in 1..=100 {
            let serial = match n % 10 {
                0 => session.delete(&keyspace, format!("{round}/{n}")),
                _ => session.put(&keyspace, format!("{round}/{n}"), "value"),
            };
            assert_eq!(serial.expect("write"), round * 100 + n);
        }
        // An operation without a write counts too.
        assert_eq!(session.serial(), round * 100 + 100);
        match round % 4 {
            0 => db.flush().expect("flush"),
            1 => db.compact().expect("compact"),
            2 => db.wait_for_background().expect("background work"),
            _ => {}
        }
        drop(session);
        if round % 3 == 0 {
            db.close().expect("close");
            db = options(&env).open(DIR).expect("open");
        }
    }
    db.flush().expect("flush");
    db.wait_for_background().expect("background work");
    let system = db.stats().system.expect("a system keyspace");
    let entries: u64 = system.levels.iter().map(|level| level.entries).sum();
    assert!(entries < 20, "2,000 commits left {entries} versions of one record: {system:?}");
}

#[test]
fn an_empty_commit_is_an_operation() {
    let (_, db) = simulated();
    let session = db.session("s").expect("session");
    let receipt = session.commit(db.batch()).expect("commit");
    assert_eq!((receipt.serial, receipt.seq), (1, db.latest_seq()));
    drop(session);
    assert_eq!(db.session("s").expect("session").recovered_serial(), 1);
}

#[test]
fn what_a_session_refuses() {
    let (_, db) = simulated();
    let (_, other) = simulated();
    let check = |result: esker::Result<u64>, kind: ErrorKind, part: &str| {
        let error = result.expect_err("refused");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    };
    let session = db.session("s").expect("session");
    let opened = |name: &str| db.session(name).map(|session| session.serial());
    check(opened("s"), ErrorKind::Locked, "\"s\"");
    check(db.forget_session("s").map(|()| 0), ErrorKind::Locked, "\"s\"");
    check(opened(""), ErrorKind::InvalidArgument, "1 to 255");
    check(opened(&"é".repeat(128)), ErrorKind::InvalidArgument, "1 to 255");
    check(db.forget_session("t").map(|()| 0), ErrorKind::NotFound, "\"t\"");
    let memory = WriteOptions::new().durability(Durability::Memory);
    let batch = db.batch();
    check(session.commit_with(batch, memory).map(|done| done.serial), ErrorKind::InvalidArgument, "Memory");
    let foreign = other.default_keyspace();
    check(session.put(&foreign, "k", "v"), ErrorKind::InvalidArgument, "another database");
    let batch = other.batch();
    check(session.commit(batch).map(|done| done.serial), ErrorKind::InvalidArgument, "another database");
    check(session.put(&db.default_keyspace(), "", "v"), ErrorKind::InvalidArgument, "key");
    let dropped = db.keyspace("dropped").expect("keyspace");
    db.drop_keyspace("dropped").expect("drop");
    check(session.put(&dropped, "k", "v"), ErrorKind::NotFound, "dropped");
    assert_eq!(session.put(&db.default_keyspace(), "k", "v").expect("put"), 1);
    db.clone().close().expect("close");
    check(session.put(&db.default_keyspace(), "k", "v"), ErrorKind::Closed, "closed");
    check(opened("t"), ErrorKind::Closed, "closed");
    assert_eq!(db.sessions().expect_err("closed").kind(), ErrorKind::Closed);
}

#[test]
fn the_hidden_keyspace_is_not_shown_and_not_reached() {
    let (env, db) = simulated();
    assert!(db.stats().system.is_none(), "nothing is created before it is needed");
    assert_eq!(db.sessions().expect("list"), []);
    db.session("s").expect("session").put(&db.default_keyspace(), "k", "v").expect("put");
    let check = |db: &Db| {
        assert_eq!(db.keyspaces(), ["default"]);
        let stats = db.stats();
        assert_eq!(stats.keyspaces.len(), 1);
        assert!(stats.system.is_some() && stats.to_string().contains("(system)"));
        for name in ["\0system", "\0", "\0mine"] {
            let kinds = [
                db.keyspace(name).expect_err("reserved").kind(),
                db.drop_keyspace(name).expect_err("reserved").kind(),
                db.existing_keyspace(name).expect_err("reserved").kind(),
            ];
            let expected = [ErrorKind::InvalidArgument, ErrorKind::InvalidArgument, ErrorKind::NotFound];
            assert_eq!(kinds, expected, "{name:?}");
        }
    };
    check(&db);
    db.close().expect("close");
    let db = options(&env).open(DIR).expect("open");
    check(&db);
    assert_eq!(db.sessions().expect("list").len(), 1);
}

/// Operations of one session from many threads: each has a serial number of its own, in the order of commits.
#[test]
fn serial_numbers_follow_the_commit_order() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = Options::tiny().durability(Durability::Os).open(dir.path()).expect("open");
    let shared = db.session("shared").expect("session");
    let receipts: Vec<_> = std::thread::scope(|scope| {
        let write = |thread: u64| {
            let own = db.session(&format!("own {thread}")).expect("session");
            let mut receipts = Vec::new();
            for n in 1..=200 {
                let mut batch = db.batch();
                batch.put(&db.default_keyspace(), format!("{thread}/{n}"), "v").expect("put");
                receipts.push(shared.commit(batch).expect("commit"));
                assert_eq!(own.put(&db.default_keyspace(), "k", "v").expect("put"), n);
            }
            receipts
        };
        let threads: Vec<_> = (0..4).map(|thread| scope.spawn(move || write(thread))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a thread")).collect()
    });
    let mut by_serial: Vec<_> = receipts.iter().map(|receipt| (receipt.serial, receipt.seq)).collect();
    by_serial.sort_unstable();
    assert!(by_serial.iter().map(|(serial, _)| *serial).eq(1..=800));
    assert!(by_serial.is_sorted_by_key(|(_, seq)| *seq));
    drop(shared);
    db.close().expect("close");
    let db = Options::tiny().open(dir.path()).expect("open");
    let serials: Vec<u64> = db.sessions().expect("list").iter().map(|info| info.serial).collect();
    assert_eq!(serials, [200, 200, 200, 200, 800]);
}
