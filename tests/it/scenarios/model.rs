//! A reference model of the levels, as simple as can be: every committed version with its commit's number, a list of
//! locks, and transactions that go on step by step until they must wait. It says what each step answers and who goes on
//! because of it.
//!
//! SERIALIZABLE is REPEATABLE READ here: that some transactions fail there is told to the model, and judged by `serial`.

use super::parse::{Manner, Op, PLAIN, Span, State, Which, Who, braces, fill_keys, name};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// An answer, and whose it is.
pub type Event = (Who, String);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Shared,
    Exclusive,
}

/// A lock that is held or waited for; in the order of arrival.
#[derive(Debug, Clone)]
struct Lock {
    owner: Who,
    span: Span,
    mode: Mode,
    granted: bool,
}

/// Parts of operations.
#[derive(Debug, Clone)]
enum Part {
    Lock(Span, Mode),
    /// Nobody changed it since the snapshot.
    Unchanged(Span),
    Write(String, Option<i64>),
    Get(String),
    Scan(Span, Which),
    Publish,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    Open,
    Failed,
    Ended,
}

#[derive(Debug, Clone)]
struct Txn {
    level: usize,
    manner: Manner,
    /// Number of the last commit that it sees.
    snapshot: Option<usize>,
    writes: BTreeMap<String, Option<i64>>,
    savepoints: Vec<BTreeMap<String, Option<i64>>>,
    /// What optimistic transactions must find unchanged.
    claims: Vec<Span>,
    todo: VecDeque<Part>,
    /// It is at its commit, after which it is gone whatever comes of it.
    commits: bool,
    answer: String,
    waits_since: Option<Duration>,
    fate: Fate,
    /// Order of the beginnings.
    age: usize,
    /// What an open iterator still yields.
    iter: VecDeque<(String, i64)>,
    last: Option<String>,
}

#[derive(Clone)]
pub struct Model {
    level: usize,
    /// Versions of each key with the number of their commit, oldest first.
    versions: BTreeMap<String, Vec<(usize, Option<i64>)>>,
    commits: usize,
    locks: Vec<Lock>,
    txns: BTreeMap<Who, Txn>,
    begun: usize,
    clock: Duration,
}

impl Model {
    pub fn new(start: &State, level: usize) -> Model {
        let versions = start.iter().map(|(key, value)| (key.clone(), vec![(0, Some(*value))])).collect();
        Model {
            level,
            versions,
            commits: 0,
            locks: Vec::new(),
            txns: BTreeMap::new(),
            begun: 0,
            clock: Duration::ZERO,
        }
    }

    /// What is committed.
    pub fn committed(&self) -> State {
        let newest = |versions: &Vec<(usize, Option<i64>)>| versions.last().and_then(|(_, value)| *value);
        let all = self.versions.iter();
        all.filter_map(|(key, versions)| Some((key.clone(), newest(versions)?))).collect()
    }

    pub fn is_open(&self, who: Who) -> bool {
        self.txns.get(&who).is_some_and(|txn| txn.fate != Fate::Ended)
    }

    pub fn is_waiting(&self, who: Who) -> bool {
        self.txns.get(&who).is_some_and(|txn| txn.waits_since.is_some())
    }

    pub fn waiting(&self) -> Vec<Who> {
        self.txns.keys().copied().filter(|who| self.is_waiting(*who)).collect()
    }

    pub fn open(&self) -> Vec<Who> {
        self.txns.keys().copied().filter(|who| *who != PLAIN && self.is_open(*who)).collect()
    }

    /// Does a step; answers what everybody answers because of it. Without an answer of its own it waits.
    pub fn step(&mut self, who: Who, op: &Op) -> Vec<Event> {
        if let Op::Begin(manner) = op {
            return vec![(who, self.begin(who, manner.clone()))];
        }
        if who == PLAIN {
            self.begin(PLAIN, Manner::default());
        }
        let mut events = Vec::new();
        match self.txn(who).fate {
            Fate::Failed if matches!(op, Op::Commit | Op::Rollback) => {
                let answer = if *op == Op::Commit { "failed" } else { "ok" };
                self.end(who, Fate::Ended, &mut events);
                events.push((who, answer.to_string()));
            }
            // Setting a savepoint answers nothing.
            Fate::Failed if *op == Op::Savepoint => events.push((who, "ok".to_string())),
            Fate::Failed => events.push((who, "failed".to_string())),
            _ => {
                self.plan(who, op);
                self.go_on(who, &mut events);
            }
        }
        events
    }

    /// The transaction has failed for a reason that the model does not know.
    pub fn fail(&mut self, who: Who, was_commit: bool) -> Vec<Event> {
        let mut events = Vec::new();
        self.end(who, if was_commit { Fate::Ended } else { Fate::Failed }, &mut events);
        events
    }

    /// Time passes.
    pub fn advance(&mut self, time: Duration) -> Vec<Event> {
        self.clock += time;
        let is_late = |txn: &Txn| {
            let limit = txn.waits_since.zip(txn.manner.timeout).map(|(since, timeout)| since + timeout);
            limit.is_some_and(|limit| limit <= self.clock)
        };
        let late: Vec<Who> = self.txns.iter().filter(|(_, txn)| is_late(txn)).map(|(who, _)| *who).collect();
        let mut events = Vec::new();
        for who in late {
            let answer = self.give_up(who);
            events.push((who, answer));
        }
        self.settle(&mut events);
        events
    }

    fn txn(&mut self, who: Who) -> &mut Txn {
        self.txns.get_mut(&who).expect("it has begun")
    }

    fn begin(&mut self, who: Who, manner: Manner) -> String {
        let level = manner.level.unwrap_or(self.level);
        if manner.optimistic && level < 2 {
            return "invalid".to_string();
        }
        let takes_snapshot = who != PLAIN && level >= 2 && !manner.lazy;
        self.begun += 1;
        let txn = Txn {
            level: if who == PLAIN { 1 } else { level },
            manner,
            snapshot: takes_snapshot.then_some(self.commits),
            writes: BTreeMap::new(),
            savepoints: Vec::new(),
            claims: Vec::new(),
            todo: VecDeque::new(),
            commits: false,
            answer: "ok".to_string(),
            waits_since: None,
            fate: Fate::Open,
            age: self.begun,
            iter: VecDeque::new(),
            last: None,
        };
        self.txns.insert(who, txn);
        "ok".to_string()
    }

    /// Takes an operation apart, and does what needs no lock.
    fn plan(&mut self, who: Who, op: &Op) {
        let read_only = self.txn(who).manner.read_only;
        let optimistic = self.txn(who).manner.optimistic;
        let mut parts = Vec::new();
        let mut answer = "ok".to_string();
        let lock = |span: &Span, mode| [Part::Lock(span.clone(), mode), Part::Unchanged(span.clone())];
        let write = |key: &str, value| {
            let locks: Vec<Part> =
                if optimistic { Vec::new() } else { lock(&Span::key(key), Mode::Exclusive).to_vec() };
            locks.into_iter().chain([Part::Write(key.to_string(), value)])
        };
        match op {
            Op::Put(..)
            | Op::Delete(_)
            | Op::GetForUpdate(_)
            | Op::GetForShare(_)
            | Op::ScanForUpdate(..)
                if read_only =>
            {
                answer = "invalid".to_string();
            }
            Op::Put(key, value) => parts.extend(write(key, Some(*value))),
            Op::Delete(key) => parts.extend(write(key, None)),
            Op::Fill(count) => parts.extend(fill_keys(*count).flat_map(|key| write(&key, Some(2)))),
            Op::Get(key) => parts.push(Part::Get(key.clone())),
            Op::GetForUpdate(key) | Op::GetForShare(key) => {
                let is_shared = matches!(op, Op::GetForShare(_));
                let mode = if is_shared { Mode::Shared } else { Mode::Exclusive };
                self.lock_or_claim(who, &Span::key(key), mode, &mut parts);
                parts.push(Part::Get(key.clone()));
            }
            Op::ScanForUpdate(span, which) => {
                self.lock_or_claim(who, span, Mode::Exclusive, &mut parts);
                parts.push(Part::Scan(span.clone(), *which));
            }
            Op::Scan(which, back) => {
                let mut found = self.scan(who, &Span::default());
                found.retain(|(_, value)| which.has(*value));
                if *back {
                    found.reverse();
                }
                answer = braces(&found);
            }
            Op::DeleteWhere(which) => {
                let mut found = self.scan(who, &Span::default());
                found.retain(|(_, value)| which.has(*value));
                parts.extend(found.iter().flat_map(|(key, _)| write(key, None)));
                answer = braces(&found);
            }
            Op::Iter => {
                self.txn(who).iter = self.scan(who, &Span::default()).into();
                self.txn(who).last = None;
            }
            Op::Next => {
                self.refresh(who);
                let next = self.txn(who).iter.pop_front();
                answer = next.as_ref().map_or("none".to_string(), |(key, value)| format!("{key}={value}"));
                self.txn(who).last = next.map(|(key, _)| key).or(self.txn(who).last.take());
            }
            Op::Rest => {
                self.refresh(who);
                let rest: Vec<_> = self.txn(who).iter.drain(..).collect();
                answer = braces(&rest);
            }
            Op::Savepoint => {
                let txn = self.txn(who);
                txn.savepoints.push(txn.writes.clone());
            }
            Op::RollbackToSavepoint => match self.txn(who).savepoints.pop() {
                Some(writes) => self.txn(who).writes = writes,
                None => answer = "invalid".to_string(),
            },
            Op::ReleaseSavepoint => {
                if self.txn(who).savepoints.pop().is_none() {
                    answer = "invalid".to_string();
                }
            }
            Op::Commit => {
                self.txn(who).commits = true;
                if optimistic {
                    let txn = self.txn(who);
                    let spans = txn.writes.keys().map(|key| Span::key(key)).chain(txn.claims.clone());
                    parts.extend(spans.flat_map(|span| lock(&span, Mode::Exclusive)));
                }
                parts.push(Part::Publish);
            }
            Op::Rollback => self.txn(who).fate = Fate::Ended,
            Op::Begin(_) => {}
        }
        if who == PLAIN {
            parts.push(Part::Publish);
        }
        let txn = self.txn(who);
        txn.answer = answer;
        txn.todo = parts.into();
    }

    fn lock_or_claim(&mut self, who: Who, span: &Span, mode: Mode, parts: &mut Vec<Part>) {
        let txn = self.txn(who);
        if txn.manner.optimistic {
            txn.claims.push(span.clone());
        } else {
            parts.extend([Part::Lock(span.clone(), mode), Part::Unchanged(span.clone())]);
        }
    }

    /// READ UNCOMMITTED iterators show no snapshot: after the key yielded last, whatever is there now.
    fn refresh(&mut self, who: Who) {
        if self.txn(who).level != 0 {
            return;
        }
        let last = self.txn(who).last.clone();
        let all = self.scan(who, &Span::default()).into_iter();
        self.txn(who).iter = all.filter(|(key, _)| Some(key) > last.as_ref()).collect();
    }

    /// Does parts of an operation until it is through, fails or must wait.
    fn go_on(&mut self, who: Who, events: &mut Vec<Event>) {
        while let Some(part) = self.txn(who).todo.pop_front() {
            match part {
                Part::Lock(span, mode) => {
                    if !self.lock(who, &span, mode) {
                        let is_no_wait = self.txn(who).manner.no_wait;
                        self.txn(who).waits_since = Some(self.clock);
                        if is_no_wait {
                            let answer = self.give_up(who);
                            events.push((who, answer));
                        } else {
                            self.break_cycles(who, events);
                        }
                        return;
                    }
                }
                Part::Unchanged(span) => {
                    if self.changed(who, &span) {
                        self.end(who, Fate::Failed, events);
                        events.push((who, "conflict".to_string()));
                        return;
                    }
                }
                Part::Write(key, value) => {
                    self.txn(who).writes.insert(key, value);
                }
                Part::Get(key) => {
                    let value = self.read(who, &key);
                    self.txn(who).answer = value.map_or("none".to_string(), |value| value.to_string());
                }
                Part::Scan(span, which) => {
                    let mut found = self.scan(who, &span);
                    found.retain(|(_, value)| which.has(*value));
                    self.txn(who).answer = braces(&found);
                }
                Part::Publish => {
                    self.publish(who);
                    self.txn(who).fate = Fate::Ended;
                }
            }
        }
        let answer = self.txn(who).answer.clone();
        events.push((who, answer));
        if self.txn(who).fate == Fate::Ended {
            self.end(who, Fate::Ended, events);
        }
    }

    // Versions.

    fn publish(&mut self, who: Who) {
        let writes = std::mem::take(&mut self.txn(who).writes);
        if writes.is_empty() {
            return;
        }
        self.commits += 1;
        for (key, value) in writes {
            self.versions.entry(key).or_default().push((self.commits, value));
        }
    }

    /// The number of the last commit that it sees; a lazy snapshot is taken now.
    fn sees(&mut self, who: Who) -> usize {
        let commits = self.commits;
        let txn = self.txn(who);
        if txn.level >= 2 { *txn.snapshot.get_or_insert(commits) } else { commits }
    }

    fn read(&mut self, who: Who, key: &str) -> Option<i64> {
        let sees = self.sees(who);
        if let Some(own) = self.txn(who).writes.get(key) {
            return *own;
        }
        if self.txn(who).level == 0
            && let Some(dirty) = self
                .txns
                .values()
                .filter(|other| !other.manner.optimistic)
                .find_map(|other| other.writes.get(key))
        {
            return *dirty;
        }
        let versions = self.versions.get(key)?;
        versions.iter().rev().find(|(commit, _)| *commit <= sees)?.1
    }

    fn scan(&mut self, who: Who, span: &Span) -> Vec<(String, i64)> {
        let written = self.txns.values().flat_map(|txn| txn.writes.keys());
        let mut keys: Vec<String> = self.versions.keys().chain(written).cloned().collect();
        keys.sort();
        keys.dedup();
        keys.retain(|key| span.has(key));
        keys.into_iter().filter_map(|key| self.read(who, &key).map(|value| (key, value))).collect()
    }

    fn changed(&mut self, who: Who, span: &Span) -> bool {
        if self.txn(who).level < 2 {
            return false;
        }
        let sees = self.sees(who);
        let inside = self.versions.iter().filter(|(key, _)| span.has(key));
        inside.flat_map(|(_, versions)| versions).any(|(commit, _)| *commit > sees)
    }

    // Locks.

    /// Requests a lock; false if it is not granted yet.
    fn lock(&mut self, owner: Who, span: &Span, mode: Mode) -> bool {
        let covers = |lock: &Lock| {
            let is_inside = lock.span.start <= span.start
                && lock.span.end.as_ref().is_none_or(|end| span.end.as_ref().is_some_and(|own| own <= end));
            lock.owner == owner && is_inside && (lock.mode == Mode::Exclusive || lock.mode == mode)
        };
        if self.locks.iter().any(covers) {
            return true;
        }
        self.locks.push(Lock { owner, span: span.clone(), mode, granted: false });
        let at = self.locks.len() - 1;
        let granted = self.blockers(at).is_empty();
        self.locks[at].granted = granted;
        granted
    }

    fn conflict(one: &Lock, two: &Lock) -> bool {
        let is_exclusive = one.mode == Mode::Exclusive || two.mode == Mode::Exclusive;
        one.owner != two.owner && is_exclusive && one.span.overlaps(&two.span)
    }

    /// Whom a request waits for: holders, and those that asked before it unless they wait for its own owner.
    fn blockers(&self, at: usize) -> Vec<Who> {
        let request = &self.locks[at];
        let waits_for_owner = |earlier: &Lock| {
            let mine = self.locks.iter().filter(|lock| lock.granted && lock.owner == request.owner);
            mine.into_iter().any(|lock| Model::conflict(lock, earlier))
        };
        let is_ahead =
            |(position, lock): &(usize, &Lock)| lock.granted || (*position < at && !waits_for_owner(lock));
        let ahead = self.locks.iter().enumerate().filter(is_ahead);
        ahead.filter(|(_, lock)| Model::conflict(lock, request)).map(|(_, lock)| lock.owner).collect()
    }

    fn request_of(&self, who: Who) -> Option<usize> {
        self.locks.iter().position(|lock| lock.owner == who && !lock.granted)
    }

    /// The shortest cycle of transactions that wait for each other, through this one.
    fn cycle(&self, who: Who) -> Option<Vec<Who>> {
        let mut paths = VecDeque::from([vec![who]]);
        let mut seen = BTreeSet::from([who]);
        while let Some(path) = paths.pop_front() {
            let Some(request) = self.request_of(*path.last()?) else { continue };
            for next in self.blockers(request) {
                if next == who {
                    return Some(path);
                }
                if seen.insert(next) {
                    paths.push_back([path.as_slice(), &[next]].concat());
                }
            }
        }
        None
    }

    /// The youngest of a cycle is its victim.
    fn break_cycles(&mut self, who: Who, events: &mut Vec<Event>) {
        while let Some(cycle) = self.cycle(who) {
            let victim = cycle.into_iter().max_by_key(|one| self.txns[one].age).expect("a cycle has members");
            events.push((victim, "deadlock".to_string()));
            self.end(victim, Fate::Failed, events);
        }
    }

    /// Stops waiting; the answer says who was in the way.
    fn give_up(&mut self, who: Who) -> String {
        let at = self.request_of(who).expect("it waits");
        let blockers = self.blockers(at);
        let is_holder = |one: &&Who| self.locks.iter().any(|lock| lock.granted && lock.owner == **one);
        let holder =
            blockers.iter().find(is_holder).or(blockers.first()).copied().expect("somebody is in the way");
        self.locks.remove(at);
        let txn = self.txn(who);
        txn.waits_since = None;
        txn.todo.clear();
        format!("timeout({})", name(holder))
    }

    /// Nothing of a transaction is left but its name.
    fn end(&mut self, who: Who, fate: Fate, events: &mut Vec<Event>) {
        let txn = self.txn(who);
        txn.fate = if who == PLAIN || txn.commits { Fate::Ended } else { fate };
        txn.writes.clear();
        txn.todo.clear();
        txn.waits_since = None;
        self.locks.retain(|lock| lock.owner != who);
        self.settle(events);
    }

    /// Grants what can be granted, first come, first served.
    fn settle(&mut self, events: &mut Vec<Event>) {
        let is_next = |at: &usize| !self.locks[*at].granted && self.blockers(*at).is_empty();
        if let Some(at) = (0..self.locks.len()).find(is_next) {
            self.locks[at].granted = true;
            let who = self.locks[at].owner;
            self.txn(who).waits_since = None;
            self.settle(events);
            self.go_on(who, events);
        }
    }
}
