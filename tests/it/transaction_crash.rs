//! Crashes in the middle of transactions: commits, preparations, their ends and recoveries are cut at every operation
//! on a simulated disk.
//!
//! **The oracle.** What changes the stored state is an event: a commit, a plain write, a preparation, the end of a
//! prepared transaction. Events are numbered in the order of their calls. What a recovery shows, the values and the
//! list of prepared transactions together, must be the state after a prefix of the events, which holds everything
//! known to be safe: after a power failure all up to the last event that is durable, after a kill all that returned.
//! The event whose call the crash interrupted may be there, one that was refused is not. Values are never
//! repeated, so one write of an open transaction on the disk would be found. What is shown as prepared then still has
//! its locks and its writes.
//!
//! Transactions are steps of one thread, which does not wait for locks. `ESKER_TXN_CRASH_CYCLES` sets how many crashes.

use crate::machine::{KEYSPACES, Machine};
use crate::support::{Map, seed, setting};
use esker::env::CrashMode;
use esker::{
    Db, Durability, ErrorKind, Isolation, Keyspace, LockWait, Transaction, TransactionOptions, WriteOptions,
};
use std::collections::{BTreeMap, BTreeSet};

const KEYS: u64 = 40;
const CLIENTS_MAX: usize = 5;
const XIDS: u64 = 6;
const LEVELS: [Isolation; 4] = [
    Isolation::ReadUncommitted,
    Isolation::ReadCommitted,
    Isolation::RepeatableRead,
    Isolation::Serializable,
];

/// Keyspace (index into `KEYSPACES`) and key.
type Key = (usize, Vec<u8>);
type Writes = BTreeMap<Key, Option<Vec<u8>>>;

/// What must be known of a prepared transaction.
#[derive(Debug, Clone)]
struct Prepared {
    level: Isolation,
    label: String,
    writes: Writes,
    /// Keys that nobody else may write.
    locked: BTreeSet<Key>,
}

#[derive(Debug, Clone)]
enum Event {
    Commit(Writes),
    Prepare(String, Prepared),
    CommitPrepared(String),
    RollbackPrepared(String),
}

/// What is stored.
#[derive(Debug, Clone, Default)]
struct State {
    maps: Vec<Map>,
    prepared: BTreeMap<String, Prepared>,
}

impl State {
    fn apply(&mut self, event: &Event) {
        let writes = match event {
            Event::Commit(writes) => writes.clone(),
            Event::Prepare(xid, prepared) => {
                self.prepared.insert(xid.clone(), prepared.clone());
                return;
            }
            Event::CommitPrepared(xid) => self.prepared.remove(xid).expect("prepared").writes,
            Event::RollbackPrepared(xid) => {
                self.prepared.remove(xid);
                return;
            }
        };
        overlay(&mut self.maps, &writes);
    }

    fn listing(&self) -> Vec<Listed> {
        let one = |(xid, prepared): (&String, &Prepared)| {
            (xid.clone(), prepared.level, prepared.label.clone(), prepared.writes.len())
        };
        self.prepared.iter().map(one).collect()
    }

    fn is_shown(&self, shown: &Shown) -> bool {
        self.maps == shown.maps && self.listing() == shown.listing
    }
}

/// Name, level, label, number of writes.
type Listed = (String, Isolation, String, usize);

/// What a database shows.
#[derive(Debug)]
struct Shown {
    maps: Vec<Map>,
    listing: Vec<Listed>,
}

fn overlay(maps: &mut [Map], writes: &Writes) {
    for ((keyspace, key), value) in writes {
        match value {
            Some(value) => maps[*keyspace].insert(key.clone(), value.clone()),
            None => maps[*keyspace].remove(key),
        };
    }
}

/// The events since the last recovery.
#[derive(Default)]
struct History {
    base: State,
    events: Vec<Event>,
    durable: usize,
    returned: usize,
}

impl History {
    fn current(&self) -> State {
        let mut state = self.base.clone();
        self.events.iter().for_each(|event| state.apply(event));
        state
    }

    /// The state after the first prefix of at least so many events that is shown.
    fn matching(&self, shown: &Shown, least: usize) -> Option<State> {
        let mut state = self.base.clone();
        for count in 0..=self.events.len() {
            if count >= least && state.is_shown(shown) {
                return Some(state);
            }
            if let Some(event) = self.events.get(count) {
                state.apply(event);
            }
        }
        None
    }
}

/// An open transaction and what is known of it.
struct Client {
    txn: Transaction,
    is_optimistic: bool,
    writes: Writes,
    savepoints: Vec<Writes>,
    locked: BTreeSet<Key>,
}

/// How an operation ended.
enum Outcome {
    Done,
    /// Refused, without effect.
    Refused,
    /// The transaction is over, without effect.
    Over,
    /// The disk has failed; whether it has an effect is open.
    Unknown,
}

fn outcome<T>(result: esker::Result<T>) -> Outcome {
    match result.map_err(|error| error.kind()) {
        Ok(_) => Outcome::Done,
        Err(ErrorKind::LockTimeout | ErrorKind::LimitExceeded) => Outcome::Refused,
        Err(ErrorKind::Conflict) => Outcome::Over,
        Err(_) => Outcome::Unknown,
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    commits: u64,
    prepared: u64,
    committed_prepared: u64,
    rolled_back_prepared: u64,
    recovered_prepared: u64,
    lost: u64,
}

struct Rig {
    machine: Machine,
    clients: Vec<Client>,
    history: History,
    values: u64,
    seen: Seen,
}

impl Rig {
    fn new(seed: u64) -> Rig {
        let base = State { maps: vec![Map::new(); KEYSPACES.len()], ..State::default() };
        Rig {
            machine: Machine::new(seed),
            clients: Vec::new(),
            history: History { base, ..History::default() },
            values: 0,
            seen: Seen::default(),
        }
    }

    fn db(&self) -> &Db {
        self.machine.db()
    }

    fn keyspace(&self, index: usize) -> Keyspace {
        self.machine.keyspace(index)
    }

    fn key(&mut self) -> Key {
        let keyspace = self.machine.random.below(KEYSPACES.len() as u64) as usize;
        (keyspace, format!("key{:03}", self.machine.random.below(KEYS)).into_bytes())
    }

    /// A value that was never written before.
    fn value(&mut self) -> Vec<u8> {
        self.values += 1;
        let len = if self.machine.random.chance(3) { 3000 } else { self.machine.random.below(80) };
        let mut value = format!("{}:", self.values).into_bytes();
        value.extend(self.machine.random.bytes(len as usize));
        value
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

    /// So that a recovery has something to find, whatever the seed.
    fn work_until_prepared(&mut self) {
        while self.history.current().prepared.is_empty() {
            self.work(1);
        }
    }

    fn step(&mut self) -> bool {
        match self.machine.random.below(100) {
            0..12 => self.begin(),
            12..52 => self.step_client(),
            52..62 => self.commit(),
            62..72 => self.prepare(),
            72..80 => self.end_prepared(),
            80..85 => self.plain_write(),
            85..91 => {
                self.db().run_background_job();
                true
            }
            91..93 => self.db().flush().is_ok(),
            93..94 => self.db().compact().is_ok(),
            94..96 => {
                let synced = self.db().sync().is_ok();
                if synced {
                    self.history.durable = self.history.events.len();
                }
                synced
            }
            96..97 => self.reopen(),
            _ => self.check_reads(),
        }
    }

    fn begin(&mut self) -> bool {
        if self.clients.len() == CLIENTS_MAX {
            let index = self.machine.random.below(CLIENTS_MAX as u64) as usize;
            self.clients.swap_remove(index).txn.rollback();
        }
        let level = *self.machine.random.pick(&LEVELS);
        let is_optimistic = level >= Isolation::RepeatableRead && self.machine.random.chance(30);
        let options = TransactionOptions::new(level).no_wait().label(format!("label {}", self.values));
        let options = if is_optimistic { options.optimistic() } else { options };
        let Ok(txn) = self.db().begin_with(options) else { return false };
        let (writes, savepoints, locked) = (Writes::new(), Vec::new(), BTreeSet::new());
        self.clients.push(Client { txn, is_optimistic, writes, savepoints, locked });
        true
    }

    fn take_client(&mut self) -> Option<Client> {
        let count = self.clients.len() as u64;
        (count > 0).then(|| self.clients.swap_remove(self.machine.random.below(count) as usize))
    }

    fn step_client(&mut self) -> bool {
        let Some(mut client) = self.take_client() else { return true };
        let key = self.key();
        let keyspace = self.keyspace(key.0);
        let outcome = match self.machine.random.below(100) {
            0..70 => {
                let value = self.machine.random.chance(80).then(|| self.value());
                let done = match &value {
                    Some(value) => client.txn.put(&keyspace, &key.1, value),
                    None => client.txn.delete(&keyspace, &key.1),
                };
                if done.is_ok() {
                    // An optimistic one will lock what it has not taken back.
                    if !client.is_optimistic {
                        client.locked.insert(key.clone());
                    }
                    client.writes.insert(key, value);
                }
                outcome(done)
            }
            70..80 => {
                let done = match self.machine.random.chance(50) {
                    true => client.txn.get_for_update(&keyspace, &key.1),
                    false => client.txn.get_for_share(&keyspace, &key.1),
                };
                if done.is_ok() {
                    client.locked.insert(key);
                }
                outcome(done)
            }
            80..83 => {
                let end = [&key.1[..], b"~"].concat();
                let done = client.txn.scan_for_update(&keyspace, key.1.clone()..end);
                if done.is_ok() {
                    let gap = [&key.1[..], b" gap"].concat();
                    client.locked.extend([(key.0, gap), key]);
                }
                outcome(done)
            }
            83..90 => {
                client.txn.savepoint();
                client.savepoints.push(client.writes.clone());
                Outcome::Done
            }
            90..96 => {
                let back = client.savepoints.pop();
                let done = client.txn.rollback_to_savepoint();
                assert_eq!(done.is_ok(), back.is_some(), "{}", self.machine.what);
                client.writes = back.unwrap_or(client.writes);
                Outcome::Done
            }
            _ => {
                let found = client.savepoints.pop();
                assert_eq!(client.txn.release_savepoint().is_ok(), found.is_some(), "{}", self.machine.what);
                Outcome::Done
            }
        };
        match outcome {
            Outcome::Done | Outcome::Refused => {
                self.clients.push(client);
                true
            }
            Outcome::Over => true,
            Outcome::Unknown => false,
        }
    }

    /// Notes an event and says whether the disk is sound.
    fn note(&mut self, event: Event, outcome: &Outcome, is_durable: bool) -> bool {
        match outcome {
            Outcome::Done => {
                self.history.events.push(event);
                self.history.returned = self.history.events.len();
                if is_durable {
                    self.history.durable = self.history.events.len();
                }
                true
            }
            Outcome::Refused | Outcome::Over => true,
            Outcome::Unknown => {
                self.history.events.push(event);
                false
            }
        }
    }

    fn commit(&mut self) -> bool {
        let Some(client) = self.take_client() else { return true };
        let durability = if self.machine.random.chance(40) { Durability::Disk } else { Durability::Os };
        let done = client.txn.commit_with(WriteOptions::new().durability(durability));
        self.seen.commits += u64::from(done.is_ok());
        // Without writes there is nothing to log, and nothing is synced.
        let is_durable = durability == Durability::Disk && !client.writes.is_empty();
        self.note(Event::Commit(client.writes), &outcome(done), is_durable)
    }

    fn prepare(&mut self) -> bool {
        let Some(mut client) = self.take_client() else { return true };
        client.locked.extend(client.writes.keys().cloned());
        let xid = format!("xid {}", self.machine.random.below(XIDS));
        let is_taken = self.history.current().prepared.contains_key(&xid);
        let prepared = Prepared {
            level: client.txn.isolation(),
            label: client.txn.label().expect("a label").to_string(),
            writes: client.writes,
            locked: client.locked,
        };
        let done = client.txn.prepare(&xid);
        if is_taken {
            let kind = done.expect_err("the name is in use").kind();
            let or_not_there_yet = client.is_optimistic || prepared.level == Isolation::Serializable;
            assert!(
                kind == ErrorKind::InvalidArgument || or_not_there_yet,
                "{}: {kind:?}",
                self.machine.what
            );
            return true;
        }
        self.seen.prepared += u64::from(done.is_ok());
        self.note(Event::Prepare(xid, prepared), &outcome(done), true)
    }

    fn end_prepared(&mut self) -> bool {
        let xids: Vec<String> = self.history.current().prepared.into_keys().collect();
        if xids.is_empty() {
            return true;
        }
        let xid = self.machine.random.pick(&xids).clone();
        if self.machine.random.chance(60) {
            let done = self.db().commit_prepared(&xid);
            self.seen.committed_prepared += u64::from(done.is_ok());
            self.note(Event::CommitPrepared(xid), &outcome(done), true)
        } else {
            let done = self.db().rollback_prepared(&xid);
            self.seen.rolled_back_prepared += u64::from(done.is_ok());
            self.note(Event::RollbackPrepared(xid), &outcome(done), true)
        }
    }

    fn plain_write(&mut self) -> bool {
        let ((keyspace, key), value) = (self.key(), self.value());
        let durability = if self.machine.random.chance(30) { Durability::Disk } else { Durability::Os };
        let options = WriteOptions::new().durability(durability).lock_wait(LockWait::NoWait);
        let done = self.keyspace(keyspace).put_with(&key, &value, options);
        let event = Event::Commit(BTreeMap::from([((keyspace, key), Some(value))]));
        self.note(event, &outcome(done), durability == Durability::Disk)
    }

    fn shown(&self) -> esker::Result<Shown> {
        let maps = self.machine.maps()?;
        let listing = self.db().prepared_transactions().into_iter().map(|prepared| {
            (prepared.xid, prepared.isolation, prepared.label.unwrap_or_default(), prepared.writes)
        });
        Ok(Shown { maps, listing: listing.collect() })
    }

    /// While nothing fails, reads agree with all that was done, uncommitted writes included at READ UNCOMMITTED.
    fn check_reads(&mut self) -> bool {
        let Ok(shown) = self.shown() else { return false };
        let state = self.history.current();
        assert!(state.is_shown(&shown), "{}: {:?} are listed", self.machine.what, shown.listing);
        let mut dirty = state.maps;
        let locking = self.clients.iter().filter(|client| !client.is_optimistic);
        let writes = state.prepared.values().map(|prepared| &prepared.writes);
        writes.chain(locking.map(|client| &client.writes)).for_each(|writes| overlay(&mut dirty, writes));
        let options = TransactionOptions::new(Isolation::ReadUncommitted).read_only();
        let Ok(reader) = self.db().begin_with(options) else { return false };
        for (index, expected) in dirty.iter().enumerate() {
            let item = |item: esker::Result<(esker::Slice, esker::Slice)>| {
                item.map(|(key, value)| (key.to_vec(), value.to_vec()))
            };
            let Ok(seen) = reader.iter(&self.keyspace(index)).map(item).collect::<esker::Result<Map>>()
            else {
                return false;
            };
            assert!(seen == *expected, "{}: read uncommitted sees something else", self.machine.what);
        }
        true
    }

    /// What is prepared keeps others out.
    fn check_locks(&self) {
        let options = WriteOptions::new().lock_wait(LockWait::NoWait);
        for (xid, prepared) in &self.history.current().prepared {
            for (keyspace, key) in &prepared.locked {
                let refused = self.keyspace(*keyspace).put_with(key, "not allowed", options);
                let kind = refused.expect_err("locked").kind();
                assert_eq!(kind, ErrorKind::LockTimeout, "{}: {xid} has lost a lock", self.machine.what);
            }
        }
    }

    fn reopen(&mut self) -> bool {
        self.clients.clear();
        let reopened = self.machine.reopen();
        if reopened {
            self.history.durable = self.history.events.len();
        }
        reopened
    }

    fn crash(&mut self, mode: CrashMode) {
        self.clients.clear();
        self.machine.crash(mode);
    }

    /// Holds what a recovery shows against the history and continues from there.
    fn judge(&mut self, mode: CrashMode) {
        let history = &self.history;
        let least = if mode == CrashMode::ProcessKill { history.returned } else { history.durable };
        let shown = self.shown().unwrap_or_else(|error| panic!("{}: read: {error}", self.machine.what));
        let count = history.events.len();
        let Some(state) = history.matching(&shown, least) else {
            panic!(
                "{} {mode:?}: what is shown is no prefix of the {count} events with at least {least} of them; \
                 prepared are {:?}; the last events are {:?}",
                self.machine.what,
                shown.listing,
                &history.events[count.saturating_sub(3)..]
            );
        };
        self.seen.recovered_prepared += state.prepared.len() as u64;
        self.seen.lost += u64::from(!history.current().is_shown(&shown));
        self.history = History { base: state, ..History::default() };
        assert!(self.check_reads(), "{}: reads after recovery", self.machine.what);
        self.check_locks();
        let prepared = self.history.base.prepared.len();
        assert_eq!(self.db().transactions().len(), prepared, "{}", self.machine.what);
        self.db().verify().unwrap_or_else(|error| panic!("{}: verify: {error}", self.machine.what));
    }

    /// In the end everything prepared can be ended, and nothing is left of it.
    fn end_all(&mut self) {
        self.clients.clear();
        while !self.history.current().prepared.is_empty() {
            assert!(self.end_prepared(), "{}: the end of a prepared transaction", self.machine.what);
        }
        assert!(self.check_reads(), "{}", self.machine.what);
        let stats = self.db().transaction_stats();
        let left = (stats.open, stats.write_bytes, stats.prepared, stats.prepared_bytes, stats.locks.bytes);
        assert_eq!(left, (0, 0, 0, 0, 0), "{}", self.machine.what);
    }
}

/// Scripts, each cut at every operation on the disk, in every way: as many as it takes to meet enough of both, since
/// how much one does depends on its seed.
#[test]
fn at_every_crash_point_a_transaction_is_whole_prepared_or_nothing() {
    const SCRIPTS_MAX: u64 = 20;
    let first = seed(5);
    println!("ESKER_SEED={first}");
    let (mut points, mut prepared) = (0, 0);
    for script in 0..SCRIPTS_MAX {
        let (more_points, more_prepared) = cut_everywhere(first.wrapping_add(script));
        points += more_points;
        prepared += more_prepared;
        if points > 200 && prepared > 200 {
            println!("{points} crash points, {prepared} prepared transactions recovered");
            return;
        }
    }
    panic!("the scripts are too short: {points} operations, {prepared} prepared");
}

/// How many crash points one script has, and how many prepared transactions were recovered.
fn cut_everywhere(seed: u64) -> (u64, u64) {
    let (mut points, mut prepared) = (0, 0);
    for mode in CrashMode::ALL {
        for at in 1.. {
            let mut rig = Rig::new(seed);
            rig.machine.what = format!("ESKER_SEED={seed} operation {at}");
            rig.machine.fs.freeze_at(at);
            rig.work(100);
            let is_over = !rig.machine.fs.is_frozen();
            rig.crash(mode);
            let mode = rig.machine.recover(mode);
            rig.judge(mode);
            // And what was shown stays, though nothing was written since.
            rig.crash(CrashMode::SyncedOnly);
            rig.machine.recover_whole();
            rig.judge(CrashMode::SyncedOnly);
            rig.end_all();
            points += 1;
            prepared += rig.seen.recovered_prepared;
            if is_over {
                break;
            }
        }
    }
    (points, prepared)
}

/// A recovery with prepared transactions, itself cut at every operation on the disk.
#[test]
fn a_recovery_can_be_cut_anywhere() {
    let seed = seed(9);
    println!("ESKER_SEED={seed}");
    let mut points = 0;
    for mode in CrashMode::ALL {
        for at in 1.. {
            let mut rig = Rig::new(seed);
            rig.machine.what = format!("ESKER_SEED={seed} {mode:?} recovery cut at operation {at}");
            rig.work(150);
            rig.work_until_prepared();
            rig.crash(CrashMode::SyncedOnly);
            let was_cut = rig.machine.cut_recovery(at, mode);
            rig.machine.recover_whole();
            rig.judge(CrashMode::SyncedOnly);
            assert!(rig.seen.recovered_prepared > 0, "{}: nothing is prepared", rig.machine.what);
            rig.end_all();
            points += 1;
            if !was_cut {
                break;
            }
        }
    }
    println!("{points} crash points");
    assert!(points > CrashMode::ALL.len(), "recovery writes something");
}

#[test]
fn transactions_through_chains_of_crashes() {
    let cycles = setting("ESKER_TXN_CRASH_CYCLES", 300);
    let first = seed(21);
    println!("ESKER_SEED={first} ESKER_TXN_CRASH_CYCLES={cycles}");
    const PER_CHAIN: u64 = 20;
    let mut total = Seen::default();
    for index in 0..cycles.div_ceil(PER_CHAIN) {
        let mut rig = Rig::new(first.wrapping_add(index));
        for cycle in 0..PER_CHAIN {
            rig.machine.what = format!("ESKER_SEED={} cycle {cycle}", first.wrapping_add(index));
            if rig.machine.random.chance(60) {
                let at = 1 + rig.machine.random.below(150);
                rig.machine.fs.freeze_at(at);
            }
            let steps = rig.machine.random.below(150);
            rig.work(steps);
            let mode = *rig.machine.random.pick(&CrashMode::ALL);
            rig.crash(mode);
            let mode = rig.machine.recover(mode);
            rig.judge(mode);
        }
        rig.end_all();
        total = total.and(rig.seen);
    }
    println!("{total:?}");
    let Seen { commits, prepared, committed_prepared, rolled_back_prepared, recovered_prepared, lost } =
        total;
    let least =
        [commits, prepared, committed_prepared, rolled_back_prepared, recovered_prepared].into_iter().min();
    assert!(least > Some(0) && (lost > 0 || cycles < 100), "something did not happen: {total:?}");
}

impl Seen {
    fn and(self, more: Seen) -> Seen {
        Seen {
            commits: self.commits + more.commits,
            prepared: self.prepared + more.prepared,
            committed_prepared: self.committed_prepared + more.committed_prepared,
            rolled_back_prepared: self.rolled_back_prepared + more.rolled_back_prepared,
            recovered_prepared: self.recovered_prepared + more.recovered_prepared,
            lost: self.lost + more.lost,
        }
    }
}
