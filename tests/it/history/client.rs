//! A client: carries out plans on a database and writes down what it was told.

use super::model::{ABSENT, Found, History, Key, Level, Op, Status, Transaction, Version, version};
use super::plan::{ATTEMPTS_MAX, Action, BANK, HALF, LIST_MAX, LOCKOUT, MONEY, Plan, SET, SLOTS};
use esker::{Db, Durability, Error, ErrorKind, Isolation, Keyspace, Slice, TransactionOptions, WriteOptions};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long a client waits for a lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// Elements of a set until it is full.
const SET_MAX: usize = 8;

/// A database that clients use, and the time that they share.
pub struct Space {
    pub db: Db,
    keyspaces: [Keyspace; 2],
    time: AtomicU64,
}

impl Space {
    pub fn new(db: Db, time: u64) -> Space {
        let keyspaces = ["left", "right"].map(|name| db.keyspace(name).expect("a keyspace"));
        Space { db, keyspaces, time: AtomicU64::new(time) }
    }

    fn tick(&self) -> u64 {
        self.time.fetch_add(1, Ordering::SeqCst)
    }

    pub fn now(&self) -> u64 {
        self.time.load(Ordering::SeqCst)
    }

    pub fn keyspace(&self, key: Key) -> &Keyspace {
        &self.keyspaces[usize::from(key >= HALF)]
    }

    /// Version of every key, read outside of transactions.
    pub fn state(&self) -> esker::Result<Vec<Version>> {
        let mut state = vec![ABSENT; super::plan::KEYS as usize];
        for keyspace in &self.keyspaces {
            for item in keyspace.iter() {
                let (key, value) = item?;
                state[key_of(&key) as usize] = version_of(&value);
            }
        }
        Ok(state)
    }

    /// Outside of any history: money in the accounts, lists empty again.
    pub fn prepare(&self) -> esker::Result<()> {
        let mut batch = self.db.batch();
        for key in super::plan::LISTS.iter().cloned().flatten() {
            batch.delete(self.keyspace(key), key.to_be_bytes())?;
        }
        for key in BANK {
            if self.keyspace(key).get(key.to_be_bytes())?.is_none() {
                batch.put(
                    self.keyspace(key),
                    key.to_be_bytes(),
                    encode(version(1, key as usize), &MONEY.to_be_bytes()),
                )?;
            }
        }
        batch.commit_with(WriteOptions::new().durability(Durability::Disk)).map(|_| ())
    }
}

fn encode(version: Version, payload: &[u8]) -> Vec<u8> {
    [&version.to_be_bytes(), payload].concat()
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().expect("eight bytes"))
}

pub fn version_of(value: &[u8]) -> Version {
    number(&value[..8])
}

fn money_of(value: &[u8]) -> i64 {
    number(&value[8..16]) as i64
}

fn elements_of(value: &[u8]) -> impl Iterator<Item = Version> + '_ {
    value[8..].chunks_exact(8).map(number)
}

fn key_of(bytes: &[u8]) -> Key {
    Key::from_be_bytes(bytes.try_into().expect("four bytes"))
}

/// Why a transaction did not get to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Others were in the way.
    InTheWay,
    /// The database takes no more writes: the disk is frozen.
    Over,
}

/// Everything that may happen to a client; anything else is a fault.
fn stop_of(error: &Error) -> Stop {
    match error.kind() {
        ErrorKind::Conflict | ErrorKind::Deadlock | ErrorKind::LockTimeout | ErrorKind::Stalled => {
            Stop::InTheWay
        }
        ErrorKind::OutcomeUnknown | ErrorKind::Poisoned | ErrorKind::Io => Stop::Over,
        _ => panic!("no error to be expected: {error}"),
    }
}

/// One process. Its transactions come one after the other, or, when it steps through several at once, whatever it is
/// told.
pub struct Client<'s> {
    pub space: &'s Space,
    pub process: u32,
    pub history: History,
    /// What this client knows to be safe from a power failure, and from a kill.
    pub durable_seq: u64,
    pub returned_seq: u64,
    /// Take no lock that is not free.
    pub no_wait: bool,
    pub durability: Durability,
}

impl<'s> Client<'s> {
    pub fn new(space: &'s Space, process: u32) -> Client<'s> {
        Client {
            space,
            process,
            history: History::default(),
            durable_seq: 0,
            returned_seq: 0,
            no_wait: false,
            durability: Durability::Os,
        }
    }

    /// From beginning to end.
    pub fn run(&mut self, plan: &Plan) -> Result<(), Stop> {
        if plan.plain {
            return self.write_plainly(plan);
        }
        let mut open = self.begin(plan)?;
        for action in &plan.actions {
            if let Err(stop) = open.step(self.space, *action) {
                self.ended(open, Status::Aborted);
                return Err(stop);
            }
        }
        self.end(open, plan)
    }

    pub fn begin(&self, plan: &Plan) -> Result<Open, Stop> {
        let mut options = TransactionOptions::new(isolation(plan.level)).lock_timeout(LOCK_TIMEOUT);
        if self.no_wait {
            options = options.no_wait();
        }
        if plan.read_only {
            options = options.read_only();
        }
        if plan.optimistic {
            options = options.optimistic();
        }
        if plan.lazy && plan.level >= Level::RepeatableRead {
            options = options.lazy_snapshot();
        }
        let begin = self.space.tick();
        let transaction = self.space.db.begin_with(options).map_err(|error| stop_of(&error))?;
        Ok(Open {
            level: plan.level,
            read_only: plan.read_only,
            begin,
            transaction,
            ops: Vec::new(),
            found: Vec::new(),
        })
    }

    pub fn end(&mut self, mut open: Open, plan: &Plan) -> Result<(), Stop> {
        if !plan.commits {
            self.ended(open, Status::Aborted);
            return Ok(());
        }
        let durability = if plan.disk { Durability::Disk } else { self.durability };
        let (ops, found) = (std::mem::take(&mut open.ops), std::mem::take(&mut open.found));
        let wrote = ops.iter().any(|op| matches!(op, Op::Write { .. } | Op::Delete { .. }));
        let (level, begin) = (open.level, open.begin);
        let outcome = open.transaction.commit_with(WriteOptions::new().durability(durability));
        let end = self.space.tick();
        let (status, result) = self.outcome(outcome.map(|receipt| receipt.seq), wrote, durability);
        assert!(!plan.read_only || result != Err(Stop::InTheWay), "a declared reader failed to commit");
        self.record(level, begin, end, status, ops, found);
        result
    }

    fn outcome(
        &mut self,
        outcome: esker::Result<u64>,
        wrote: bool,
        durability: Durability,
    ) -> (Status, Result<(), Stop>) {
        match outcome {
            Ok(seq) => {
                if wrote {
                    self.returned_seq = self.returned_seq.max(seq);
                    if durability == Durability::Disk {
                        self.durable_seq = self.durable_seq.max(seq);
                    }
                }
                (Status::Committed(seq), Ok(()))
            }
            Err(error) if error.kind() == ErrorKind::OutcomeUnknown => (Status::Unknown, Err(Stop::Over)),
            Err(error) => (Status::Aborted, Err(stop_of(&error))),
        }
    }

    /// Rolls back, if it has not ended yet, and writes down what was read.
    pub fn ended(&mut self, open: Open, status: Status) {
        let Open { level, begin, transaction, ops, found, .. } = open;
        transaction.rollback();
        let end = self.space.tick();
        self.record(level, begin, end, status, ops, found);
    }

    fn record(
        &mut self,
        level: Level,
        begin: u64,
        end: u64,
        status: Status,
        ops: Vec<Op>,
        found: Vec<(Key, Version)>,
    ) {
        let part = History {
            transactions: vec![Transaction {
                process: self.process,
                level,
                begin,
                end,
                status,
                ops: 0..ops.len() as u32,
            }],
            ops,
            found,
            ..History::default()
        };
        self.history.absorb(part);
    }

    fn write_plainly(&mut self, plan: &Plan) -> Result<(), Stop> {
        let begin = self.space.tick();
        let mut batch = self.space.db.batch();
        let mut ops = Vec::new();
        for action in &plan.actions {
            match *action {
                Action::Put(key) => {
                    let value = encode(version(begin, ops.len()), &[]);
                    batch.put(self.space.keyspace(key), key.to_be_bytes(), value).expect("within limits");
                    ops.push(Op::Write { key });
                }
                Action::Delete(key) => {
                    batch.delete(self.space.keyspace(key), key.to_be_bytes()).expect("within limits");
                    ops.push(Op::Delete { key });
                }
                _ => panic!("not a write: {action:?}"),
            }
        }
        let durability = if plan.disk { Durability::Disk } else { self.durability };
        let options = WriteOptions::new().durability(durability);
        let options = if self.no_wait { options.lock_wait(esker::LockWait::NoWait) } else { options };
        let outcome = batch.commit_with(options);
        let end = self.space.tick();
        let (status, result) = self.outcome(outcome.map(|receipt| receipt.seq), true, durability);
        self.record(plan.level, begin, end, status, ops, Vec::new());
        result
    }
}

fn isolation(level: Level) -> Isolation {
    match level {
        Level::ReadUncommitted => Isolation::ReadUncommitted,
        Level::ReadCommitted => Isolation::ReadCommitted,
        Level::RepeatableRead => Isolation::RepeatableRead,
        Level::Serializable => Isolation::Serializable,
    }
}

/// A transaction under way and what it has done.
pub struct Open {
    level: Level,
    read_only: bool,
    begin: u64,
    transaction: esker::Transaction,
    ops: Vec<Op>,
    found: Vec<(Key, Version)>,
}

impl Open {
    /// One action; after an error the transaction can only be ended.
    pub fn step(&mut self, space: &Space, action: Action) -> Result<(), Stop> {
        let result = self.act(space, action).map_err(|error| stop_of(&error));
        // Who only reads and has said so is in nobody's way, nor anybody in his.
        assert!(!self.read_only || result != Err(Stop::InTheWay), "a declared reader failed in {action:?}");
        result
    }

    fn act(&mut self, space: &Space, action: Action) -> esker::Result<()> {
        match action {
            Action::Get(key) => self.get(space, key).map(|_| ()),
            Action::GetForUpdate(key) => self.get_for_update(space, key).map(|_| ()),
            Action::GetForShare(key) => self.get_for_share(space, key),
            Action::Range(from, to) => self.range(space, from, to).map(|_| ()),
            Action::ScanForUpdate(from, to) => self.scan_for_update(space, from, to),
            Action::Put(key) => self.put(space, key, &[]),
            Action::Delete(key) => self.delete(space, key),
            Action::Append(key) => self.append(space, key),
            Action::ReadList(key) => self.read_list(space, key),
            Action::Savepoint => {
                self.transaction.savepoint();
                self.ops.push(Op::Savepoint);
                Ok(())
            }
            Action::RollbackToSavepoint => {
                self.transaction.rollback_to_savepoint()?;
                self.ops.push(Op::RollbackToSavepoint);
                Ok(())
            }
            Action::Transfer(from, to) => self.transfer(space, from, to),
            Action::Audit => self.audit(space),
            Action::AddToSet(key) => self.add_to_set(space, key),
            Action::Attempt(account) => self.attempt(space, account),
            Action::Forgive(account) => self.forgive(space, account),
        }
    }

    fn get(&mut self, space: &Space, key: Key) -> esker::Result<Option<Slice>> {
        let value = self.transaction.get(space.keyspace(key), key.to_be_bytes())?;
        self.ops.push(Op::Read { key, version: value.as_deref().map_or(ABSENT, version_of) });
        Ok(value)
    }

    fn get_for_update(&mut self, space: &Space, key: Key) -> esker::Result<Option<Slice>> {
        let value = self.transaction.get_for_update(space.keyspace(key), key.to_be_bytes())?;
        self.ops.push(Op::LockedRead { key, version: value.as_deref().map_or(ABSENT, version_of) });
        Ok(value)
    }

    fn get_for_share(&mut self, space: &Space, key: Key) -> esker::Result<()> {
        let value = self.transaction.get_for_share(space.keyspace(key), key.to_be_bytes())?;
        self.ops.push(Op::LockedRead { key, version: value.as_deref().map_or(ABSENT, version_of) });
        Ok(())
    }

    /// To write what was read: below REPEATABLE READ it must be locked; above, a conflict is found out.
    fn get_to_write(&mut self, space: &Space, key: Key) -> esker::Result<Option<Slice>> {
        if self.level < Level::RepeatableRead {
            self.get_for_update(space, key)
        } else {
            self.get(space, key)
        }
    }

    fn range(&mut self, space: &Space, from: Key, to: Key) -> esker::Result<Vec<(Key, Slice)>> {
        let found = self.read_range(space, from, to)?;
        let place = self.note_found(found.iter().map(|(key, value)| (*key, version_of(value))));
        self.ops.push(Op::Range { from, to, found: place });
        Ok(found)
    }

    /// In one of several ways: the same promise, other code.
    fn read_range(&self, space: &Space, from: Key, to: Key) -> esker::Result<Vec<(Key, Slice)>> {
        let keyspace = space.keyspace(from);
        let mut items = self.transaction.range(keyspace, from.to_be_bytes()..to.to_be_bytes());
        let named = |item: esker::Result<(Slice, Slice)>| item.map(|(key, value)| (key_of(&key), value));
        match (self.begin / 2 + self.ops.len() as u64) % 4 {
            0 => items.map(named).collect(),
            1 => {
                let mut found = items.rev().map(named).collect::<esker::Result<Vec<_>>>()?;
                found.reverse();
                Ok(found)
            }
            2 => {
                items.seek(from.to_be_bytes())?;
                items.map(named).collect()
            }
            _ => {
                let keys: Vec<_> = (from..to).map(Key::to_be_bytes).collect();
                let values = self.transaction.multi_get(keyspace, &keys)?;
                Ok((from..to).zip(values).filter_map(|(key, value)| Some((key, value?))).collect())
            }
        }
    }

    fn scan_for_update(&mut self, space: &Space, from: Key, to: Key) -> esker::Result<()> {
        let bounds = from.to_be_bytes()..to.to_be_bytes();
        let found = self.transaction.scan_for_update(space.keyspace(from), bounds)?;
        let place = self.note_found(found.iter().map(|(key, value)| (key_of(key), version_of(value))));
        self.ops.push(Op::LockedRange { from, to, found: place });
        Ok(())
    }

    fn note_found(&mut self, items: impl Iterator<Item = (Key, Version)>) -> Found {
        let first = self.found.len() as u32;
        self.found.extend(items);
        Found { first, count: self.found.len() as u32 - first }
    }

    fn put(&mut self, space: &Space, key: Key, payload: &[u8]) -> esker::Result<()> {
        let value = encode(version(self.begin, self.ops.len()), payload);
        self.transaction.put(space.keyspace(key), key.to_be_bytes(), value)?;
        self.ops.push(Op::Write { key });
        Ok(())
    }

    fn delete(&mut self, space: &Space, key: Key) -> esker::Result<()> {
        self.transaction.delete(space.keyspace(key), key.to_be_bytes())?;
        self.ops.push(Op::Delete { key });
        Ok(())
    }

    fn read_list(&mut self, space: &Space, key: Key) -> esker::Result<()> {
        let value = self.transaction.get(space.keyspace(key), key.to_be_bytes())?;
        let elements = value.iter().flat_map(|value| elements_of(value)).map(|element| (key, element));
        let found = self.note_found(elements.collect::<Vec<_>>().into_iter());
        self.ops.push(Op::List { key, found });
        Ok(())
    }

    fn append(&mut self, space: &Space, key: Key) -> esker::Result<()> {
        let before = self.get_to_write(space, key)?;
        let before = before.as_deref().map_or(&[][..], |value| &value[8..]);
        if before.len() / 8 >= LIST_MAX {
            return Ok(());
        }
        let own = version(self.begin, self.ops.len()).to_be_bytes();
        self.put(space, key, &[before, &own].concat())
    }

    fn transfer(&mut self, space: &Space, from: Key, to: Key) -> esker::Result<()> {
        let [from_money, to_money] = {
            let mut read =
                |key| self.get_to_write(space, key).map(|value| money_of(&value.expect("accounts stay")));
            [read(from)?, read(to)?]
        };
        let amount = 1 + (self.begin % 9) as i64;
        self.put(space, from, &(from_money - amount).to_be_bytes())?;
        self.put(space, to, &(to_money + amount).to_be_bytes())
    }

    fn audit(&mut self, space: &Space) -> esker::Result<()> {
        let found = self.range(space, BANK.start, BANK.end)?;
        let sum: i64 = found.iter().map(|(_, value)| money_of(value)).sum();
        let expect = MONEY * i64::from(BANK.end - BANK.start);
        // Even at READ COMMITTED one scan sees one state.
        assert!(
            sum == expect || self.level == Level::ReadUncommitted,
            "{sum} in the bank at {:?}",
            self.level
        );
        Ok(())
    }

    fn add_to_set(&mut self, space: &Space, key: Key) -> esker::Result<()> {
        let found = self.range(space, SET.start, SET.end)?;
        if found.len() < SET_MAX { self.put(space, key, &[]) } else { self.delete(space, found[0].0) }
    }

    fn attempt(&mut self, space: &Space, account: Key) -> esker::Result<()> {
        let first = LOCKOUT.start + account * SLOTS;
        let failed = self.range(space, first, first + SLOTS)?.len();
        // Reads of a transaction that will be rolled back are of one state as well, and so is every state.
        assert!(failed <= ATTEMPTS_MAX, "{failed} attempts in account {account}");
        if failed < ATTEMPTS_MAX {
            self.put(space, first + (self.begin / 2) as Key % SLOTS, &[])
        } else {
            Ok(())
        }
    }

    fn forgive(&mut self, space: &Space, account: Key) -> esker::Result<()> {
        let first = LOCKOUT.start + account * SLOTS;
        for (key, _) in self.range(space, first, first + SLOTS)? {
            self.delete(space, key)?;
        }
        Ok(())
    }
}
