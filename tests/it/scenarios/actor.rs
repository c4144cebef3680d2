//! A transaction on a thread of its own, which does one step after the other as it is told.

use super::parse::{Manner, Op, Span, Which, Who, braces, fill_keys, name};
use esker::{
    ConflictReason, Db, Error, ErrorKind, Isolation, Keyspace, Result, Slice, Transaction, TransactionIter,
    TransactionOptions,
};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Scope;

/// One that does steps. Dropping it ends its thread, and rolls back what it has open.
pub struct Actor {
    pub tasks: Sender<Op>,
    pub answers: Receiver<String>,
}

impl Actor {
    /// Starts the thread of a transaction that begins later.
    pub fn start<'s>(scope: &'s Scope<'s, '_>, db: &Db, who: Who, level: Isolation) -> Actor {
        let (tasks, received) = channel();
        let (answer, answers) = channel();
        let db = db.clone();
        scope.spawn(move || {
            let thread = Thread { keyspace: db.default_keyspace(), db, who, level, tasks: received, answer };
            thread.serve();
        });
        Actor { tasks, answers }
    }
}

struct Thread {
    db: Db,
    keyspace: Keyspace,
    who: Who,
    level: Isolation,
    tasks: Receiver<Op>,
    answer: Sender<String>,
}

impl Thread {
    fn serve(&self) {
        let mut open: Option<Transaction> = None;
        let mut next = self.tasks.recv().ok();
        while let Some(op) = next.take() {
            let answer = match (op, &mut open) {
                (Op::Begin(manner), _) => self.db.begin_with(self.options(&manner)).map(|txn| {
                    open = Some(txn);
                    "ok".to_string()
                }),
                (Op::Put(key, value), None) => self.db.put(key, value.to_string()).map(done),
                (Op::Delete(key), None) => self.db.delete(key).map(done),
                (Op::Iter, Some(txn)) => {
                    next = self.iterate(txn.iter(&self.keyspace));
                    continue;
                }
                (Op::Commit, Some(_)) => {
                    let ended = open.take().map_or(Ok(()), |txn| txn.commit().map(|_| ()));
                    ended.map(done)
                }
                (Op::Rollback, Some(_)) => {
                    if let Some(txn) = open.take() {
                        txn.rollback();
                    }
                    Ok(done(()))
                }
                (op, Some(txn)) => self.execute(txn, &op),
                (op, None) => Ok(format!("{op:?} outside of a transaction")),
            };
            self.say(answer);
            next = self.tasks.recv().ok();
        }
    }

    fn say(&self, answer: Result<String>) {
        // The other side is gone when a run was given up.
        let _ = self.answer.send(answer.unwrap_or_else(|error| error_name(&error)));
    }

    fn options(&self, manner: &Manner) -> TransactionOptions {
        let level = manner.level.map_or(self.level, |level| super::parse::LEVELS[level]);
        let mut options = TransactionOptions::new(level).label(name(self.who));
        if manner.read_only {
            options = options.read_only();
        }
        if manner.optimistic {
            options = options.optimistic();
        }
        if manner.lazy {
            options = options.lazy_snapshot();
        }
        if manner.no_wait {
            options = options.no_wait();
        }
        manner.timeout.map_or(options.clone(), |timeout| options.lock_timeout(timeout))
    }

    /// Keeps an iterator open until a step that does not concern it, which it answers.
    fn iterate(&self, mut iter: TransactionIter<'_>) -> Option<Op> {
        self.say(Ok(done(())));
        loop {
            match self.tasks.recv().ok()? {
                Op::Next => self.say(match iter.next() {
                    Some(item) => item.map(|item| shown(entry(item))),
                    None => Ok("none".to_string()),
                }),
                Op::Rest => {
                    let rest: Result<Vec<_>> = iter.by_ref().collect();
                    self.say(rest.map(|rest| kept(rest, Which::All)));
                }
                other => return Some(other),
            }
        }
    }

    fn execute(&self, txn: &mut Transaction, op: &Op) -> Result<String> {
        let ks = &self.keyspace;
        Ok(match op {
            Op::Get(key) => value(txn.get(ks, key)?),
            Op::GetForUpdate(key) => value(txn.get_for_update(ks, key)?),
            Op::GetForShare(key) => value(txn.get_for_share(ks, key)?),
            Op::Scan(which, false) => kept(txn.iter(ks).collect::<Result<_>>()?, *which),
            Op::Scan(which, true) => kept(txn.iter(ks).rev().collect::<Result<_>>()?, *which),
            Op::ScanForUpdate(span, which) => kept(scan_for_update(txn, ks, span)?, *which),
            Op::Put(key, number) => done(txn.put(ks, key, number.to_string())?),
            Op::Delete(key) => done(txn.delete(ks, key)?),
            Op::DeleteWhere(which) => {
                let all: Vec<_> = txn.iter(ks).collect::<Result<_>>()?;
                for (key, _) in all.iter().cloned().map(entry).filter(|(_, value)| which.has(*value)) {
                    txn.delete(ks, key)?;
                }
                kept(all, *which)
            }
            Op::Fill(count) => {
                for key in fill_keys(*count) {
                    txn.put(ks, key, "2")?;
                }
                done(())
            }
            Op::Savepoint => {
                txn.savepoint();
                done(())
            }
            Op::RollbackToSavepoint => done(txn.rollback_to_savepoint()?),
            Op::ReleaseSavepoint => done(txn.release_savepoint()?),
            other => format!("{other:?} is not for here"),
        })
    }
}

fn scan_for_update(txn: &mut Transaction, ks: &Keyspace, span: &Span) -> Result<Vec<(Slice, Slice)>> {
    match &span.end {
        Some(end) => txn.scan_for_update(ks, span.start.as_str()..end.as_str()),
        None => txn.scan_for_update(ks, span.start.as_str()..),
    }
}

fn done((): ()) -> String {
    "ok".to_string()
}

fn value(found: Option<Slice>) -> String {
    found.map_or("none".to_string(), |value| value.escape_ascii().to_string())
}

/// Key and number.
pub fn entry((key, value): (Slice, Slice)) -> (String, i64) {
    let number = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
    (key.escape_ascii().to_string(), number.unwrap_or_else(|| panic!("{value:?} is no number")))
}

fn shown((key, value): (String, i64)) -> String {
    format!("{key}={value}")
}

fn kept(entries: Vec<(Slice, Slice)>, which: Which) -> String {
    let kept: Vec<_> = entries.into_iter().map(entry).filter(|(_, value)| which.has(*value)).collect();
    braces(&kept)
}

/// The word of the table for an error; the error itself if there is none.
fn error_name(error: &Error) -> String {
    let reason = error.conflict().map(|conflict| conflict.reason);
    match (error.kind(), reason) {
        (ErrorKind::Conflict, Some(ConflictReason::Write)) => "conflict".to_string(),
        (ErrorKind::Conflict, Some(ConflictReason::Serialization)) => "unserializable".to_string(),
        (ErrorKind::Deadlock, _) if error.deadlock().is_some() => "deadlock".to_string(),
        (ErrorKind::TransactionFailed, _) => "failed".to_string(),
        (ErrorKind::InvalidArgument, _) => "invalid".to_string(),
        (ErrorKind::LockTimeout, _) => match named_holder(&error.to_string()) {
            Some(holder) => format!("timeout({holder})"),
            None => error.to_string(),
        },
        _ => format!("{error:?}"),
    }
}

/// `transaction 7 "T1" (age …) holds …`
fn named_holder(message: &str) -> Option<&str> {
    let (before, _) = message.split_once("\" (age")?;
    Some(before.rsplit_once('"')?.1)
}
