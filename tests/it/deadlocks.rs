//! Deadlocks through the public API: whatever they are made of, the request that closes one finds it at once.
//!
//! The clock stands still, however long somebody sleeps. So a deadlock that took a second look, some milliseconds or a
//! timeout to be found would never be found here.

use esker::env::{Clock, Env, MemFs, SimClock};
use esker::{Db, ErrorKind, Isolation, Options, Result, Session, Transaction, TransactionOptions};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

/// A clock that sleepers do not move.
#[derive(Default)]
struct StillClock(SimClock);

impl Clock for StillClock {
    fn now(&self) -> Duration {
        self.0.now()
    }

    fn sleep(&self, _: Duration) {}

    fn unix_micros(&self) -> u64 {
        self.0.unix_micros()
    }
}

/// Does what it is told, on a thread of its own.
struct Actor {
    db: Db,
    session: Arc<Session>,
    open: Option<Transaction>,
}

impl Actor {
    fn start(db: &Db, session: &Arc<Session>) -> (Sender<&'static str>, Receiver<Result<()>>) {
        let (tasks, received) = channel::<&'static str>();
        let (answer, answers) = channel();
        let mut actor = Actor { db: db.clone(), session: Arc::clone(session), open: None };
        thread::spawn(move || {
            for task in received {
                let result = actor.execute(task);
                if result.is_err() {
                    actor.open = None;
                }
                // The other side is gone when the test has failed.
                let _ = answer.send(result);
            }
        });
        (tasks, answers)
    }

    fn begin(&mut self, options: TransactionOptions) -> Result<()> {
        self.open = Some(self.db.begin_with(options)?);
        Ok(())
    }

    fn execute(&mut self, task: &str) -> Result<()> {
        let keyspace = self.db.default_keyspace();
        let words: Vec<&str> = task.split(' ').collect();
        match words[..] {
            ["plain", ..] | ["session", ..] => {
                let mut batch = self.db.batch();
                words[1..].iter().try_for_each(|key| batch.put(&keyspace, key, "new"))?;
                match words[0] {
                    "plain" => batch.commit().map(drop),
                    _ => self.session.commit(batch).map(drop),
                }
            }
            ["optimistic"] => self.begin(TransactionOptions::new(Isolation::RepeatableRead).optimistic()),
            ["commit"] => self.open.take().map_or(Ok(()), |txn| txn.commit().map(drop)),
            ["commit", "session"] => {
                self.open.take().map_or(Ok(()), |txn| self.session.commit_transaction(txn).map(drop))
            }
            _ => {
                if self.open.is_none() {
                    self.begin(TransactionOptions::new(Isolation::ReadCommitted))?;
                }
                let txn = self.open.as_mut().expect("begun");
                match words[..] {
                    ["put", key] => txn.put(&keyspace, key, "new"),
                    ["share", key] => txn.get_for_share(&keyspace, key).map(drop),
                    ["range", start, end] => txn.scan_for_update(&keyspace, start..end).map(drop),
                    _ => panic!("{task}"),
                }
            }
        }
    }
}

/// Polls, with patience for a busy machine but not for ever.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let mut polls = 0;
    while !is_so() {
        thread::sleep(Duration::from_millis(1));
        polls += 1;
        assert!(polls < 20_000, "{what}");
    }
}

/// Every step but the last one ends or waits; the last one closes a cycle, or lets somebody do so.
fn check(what: &str, steps: &[(usize, &'static str)]) {
    let clock = Arc::new(StillClock::default());
    let env = Env { clock: clock.clone(), ..Env::simulated(Arc::new(MemFs::new()), 1) };
    let db = Options::tiny().background_threads(0).env(env).open("/db").expect("open");
    let session = Arc::new(db.session("producer").expect("a session"));
    // The session's keyspace is there.
    session.put(&db.default_keyspace(), "first", "new").expect("put");
    let actors: Vec<_> = (0..3).map(|_| Actor::start(&db, &session)).collect();
    let (mut kinds, mut asked) = (Vec::new(), 0);
    let (last, before) = steps.split_last().expect("steps");
    for (who, task) in before {
        let waiting = db.transaction_stats().locks.waiting;
        actors[*who].0.send(task).expect("it listens");
        asked += 1;
        wait_until(&format!("{what}: {task} neither ends nor waits"), || {
            let answered = actors[*who].1.try_recv();
            kinds
                .extend(answered.as_ref().ok().map(|result| result.as_ref().err().map(|error| error.kind())));
            answered.is_ok() || db.transaction_stats().locks.waiting > waiting
        });
    }
    assert!(db.deadlocks().is_empty(), "{what}");
    actors[last.0].0.send(last.1).expect("it listens");
    asked += 1;
    wait_until(&format!("{what}: not found by the request that closed it\n{}", db.wait_graph()), || {
        !db.deadlocks().is_empty()
    });
    // Nobody else is in the way of anybody: all get on, one after the other.
    for (tasks, _) in &actors {
        tasks.send("commit").expect("it listens");
        asked += 1;
    }
    wait_until(&format!("{what}: somebody is stuck"), || {
        let answers = actors.iter().flat_map(|(_, answers)| answers.try_iter());
        kinds.extend(answers.map(|result| result.err().map(|error| error.kind())));
        kinds.len() == asked
    });
    let failed: Vec<ErrorKind> = kinds.into_iter().flatten().collect();
    assert_eq!(failed, [ErrorKind::Deadlock], "{what}");
    assert_eq!(db.deadlocks().len(), 1, "{what}");
    assert!(db.deadlocks()[0].cycle.iter().all(|member| member.waited == Duration::ZERO), "{what}");
    assert_eq!(clock.now(), Duration::ZERO, "{what}");
    let stats = db.transaction_stats();
    assert_eq!((stats.open, stats.locks.held, stats.locks.waiting), (0, 0, 0), "{what}");
}

#[test]
fn a_deadlock_is_found_by_the_request_that_closes_it() {
    check("two keys", &[(0, "put a"), (1, "put b"), (0, "put b"), (1, "put a")]);
    check(
        "three keys",
        &[(0, "put a"), (1, "put b"), (2, "put c"), (0, "put b"), (1, "put c"), (2, "put a")],
    );
    check("two upgrades", &[(0, "share a"), (1, "share a"), (0, "put a"), (1, "put a")]);
    check("a held range", &[(0, "range a c"), (1, "put x"), (0, "put x"), (1, "put b")]);
    check("a range that waits", &[(0, "put x"), (1, "put y"), (0, "range y z"), (1, "put x")]);
    check("a range that closes", &[(0, "put x"), (1, "put y"), (0, "put y"), (1, "range w z")]);
    check(
        "the queue",
        &[(0, "share a"), (2, "put b"), (1, "put c"), (1, "put a"), (2, "share a"), (0, "put b")],
    );
    check(
        "a lock that was handed on",
        &[(0, "put a"), (1, "put b"), (2, "put c"), (1, "put a"), (2, "put a"), (0, "commit"), (1, "put c")],
    );
    check(
        "the commit of an optimistic one",
        &[(0, "optimistic"), (0, "put a"), (0, "put b"), (1, "put b"), (0, "commit"), (1, "put a")],
    );
}

#[test]
fn a_deadlock_with_a_plain_write_is_found_by_the_request_that_closes_it() {
    check("a plain write that waits", &[(0, "put b"), (1, "plain a b"), (0, "put a")]);
    check(
        "a plain write that goes on and closes",
        &[(0, "put d"), (1, "put c"), (2, "plain b c d"), (0, "put b"), (1, "commit")],
    );
}

/// The turn of a session is a lock like others.
#[test]
fn a_deadlock_through_the_turn_of_a_session_is_found_by_the_request_that_closes_it() {
    check("a batch that has the turn", &[(0, "put a"), (1, "session a z"), (0, "commit session")]);
    check("a batch that waits behind its lock", &[(0, "put z"), (1, "session a z"), (0, "commit session")]);
    check(
        "a commit that has the turn",
        &[
            (0, "optimistic"),
            (0, "put a"),
            (0, "put z"),
            (1, "put z"),
            (0, "commit session"),
            (1, "commit session"),
        ],
    );
}
