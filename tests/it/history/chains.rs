//! The versions of every key in the order in which they were installed, and what a version that was read means.
//!
//! Commits are ranked by their sequence numbers, from 1; rank 0 is the state at the beginning. "State r" is what the
//! commits of ranks up to r have left. A version is there from the state of its writer's rank to before that of the
//! next version.

use super::model::{ABSENT, History, Key, Level, Op, OwnWrites, Status, Transaction, Version, written_by};
use std::collections::HashSet;

/// A place in the chains of a key: which key, where, and whether it was written there.
type Access = (Key, usize, bool);

pub const NOBODY: u32 = u32::MAX;

/// A state that never comes: the newest versions are there until it.
pub const NEVER: u32 = u32::MAX;

/// One installed version.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    pub rank: u32,
    /// Its writer, or `NOBODY` at the beginning of a chain.
    pub writer: u32,
    /// `ABSENT` for a removal.
    pub version: Version,
    pub key: Key,
}

/// Where a version comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Place in [`Chains::entries`].
    Installed(u32),
    /// Written by a transaction that rolled back.
    RolledBack(u32),
    /// Replaced or taken back by its writer before it committed.
    Intermediate(u32),
    /// Written by nobody.
    Nowhere,
}

pub struct Chains<'h> {
    pub history: &'h History,
    /// The chains one after the other; the first entry of each is the state at the beginning.
    pub entries: Vec<Entry>,
    starts: Vec<u32>,
    /// The absent ones among the entries of each key.
    absents: Vec<u32>,
    absent_starts: Vec<u32>,
    /// Rank of each transaction; 0 if it installed nothing.
    pub ranks: Vec<u32>,
    /// Transactions by rank, from 1.
    pub commits: Vec<u32>,
    /// Whether each transaction is known to have committed, be it by what others saw of it.
    pub is_committed: Vec<bool>,
    /// Entry of each operation that is a final write.
    installed: Vec<u32>,
    first_tick: u64,
    /// What happened at each tick: transaction and whether it began.
    pub ticks: Vec<(u32, bool)>,
    /// Highest rank of the commits that had returned before each transaction began.
    pub returned_before: Vec<u32>,
    /// Highest rank of the commits that had begun before each transaction ended.
    pub begun_before_end: Vec<u32>,
}

impl<'h> Chains<'h> {
    pub fn new(history: &'h History) -> Chains<'h> {
        let mut chains = Chains {
            history,
            entries: Vec::new(),
            starts: Vec::new(),
            absents: Vec::new(),
            absent_starts: Vec::new(),
            ranks: vec![0; history.transactions.len()],
            commits: vec![NOBODY],
            is_committed: Vec::new(),
            installed: vec![NOBODY; history.ops.len()],
            first_tick: 0,
            ticks: Vec::new(),
            returned_before: Vec::new(),
            begun_before_end: Vec::new(),
        };
        chains.order_ticks();
        chains.find_committed();
        chains.install();
        chains.order_real_time();
        chains
    }

    pub fn transaction(&self, number: u32) -> &'h Transaction {
        &self.history.transactions[number as usize]
    }

    fn order_ticks(&mut self) {
        let all = &self.history.transactions;
        self.first_tick = all.iter().map(|one| one.begin).min().unwrap_or(0);
        let last = all.iter().map(|one| one.end).max().unwrap_or(0);
        self.ticks = vec![(NOBODY, false); (last - self.first_tick + 1) as usize];
        for (number, one) in all.iter().enumerate() {
            self.ticks[(one.begin - self.first_tick) as usize] = (number as u32, true);
            self.ticks[(one.end - self.first_tick) as usize] = (number as u32, false);
        }
    }

    /// The transaction that began at this tick.
    fn begun_at(&self, tick: u64) -> Option<u32> {
        let place = tick.checked_sub(self.first_tick)?;
        let (number, is_begin) = *self.ticks.get(place as usize)?;
        (is_begin && number != NOBODY).then_some(number)
    }

    /// The transaction that wrote a version to a key.
    pub fn writer(&self, key: Key, version: Version) -> Option<u32> {
        let (begin, op) = written_by(version);
        let number = self.begun_at(begin)?;
        match self.history.ops_of(self.transaction(number)).get(op) {
            Some(Op::Write { key: written }) if *written == key => Some(number),
            _ => None,
        }
    }

    fn find_committed(&mut self) {
        let all = &self.history.transactions;
        self.is_committed = all.iter().map(|one| matches!(one.status, Status::Committed(_))).collect();
        if all.iter().any(|one| one.status == Status::Unknown) {
            for number in self.seen_by_others() {
                self.is_committed[number as usize] = true;
            }
            self.find_removals_of_unknown_outcome();
        }
    }

    /// Removals leave nothing to be recognised by. One that may have taken effect is taken to have: it comes last, so
    /// the state without it is still a prefix.
    fn find_removals_of_unknown_outcome(&mut self) {
        let Some(end) = &self.history.end else { return };
        let mut own = OwnWrites::default();
        for (number, one) in self.history.transactions.iter().enumerate() {
            if one.status == Status::Unknown {
                let finals = self.finals(number as u32, &mut own);
                let may_have = |write: &(Key, usize, bool)| write.2 && end.state[write.0 as usize] == ABSENT;
                self.is_committed[number] |= finals.iter().all(may_have);
            }
        }
    }

    /// The transactions of unknown outcome of which somebody who sees only committed data saw something.
    fn seen_by_others(&self) -> HashSet<u32> {
        let mut seen = HashSet::new();
        let mut note = |key, version| {
            let writer = self.writer(key, version);
            seen.extend(writer.filter(|one| self.transaction(*one).status == Status::Unknown));
        };
        for one in &self.history.transactions {
            if one.level == Level::ReadUncommitted || !matches!(one.status, Status::Committed(_)) {
                continue;
            }
            for op in self.history.ops_of(one) {
                match *op {
                    Op::Read { key, version } | Op::LockedRead { key, version } => note(key, version),
                    Op::Range { found, .. } | Op::LockedRange { found, .. } | Op::List { found, .. } => {
                        self.history.found(found).iter().for_each(|(key, version)| note(*key, *version));
                    }
                    _ => {}
                }
            }
        }
        for (key, version) in self.history.end.iter().flat_map(|end| end.state.iter().enumerate()) {
            note(key as Key, *version);
        }
        seen
    }

    /// The final writes of a transaction: key, operation, whether it removes.
    fn finals(&self, number: u32, own: &mut OwnWrites) -> Vec<Access> {
        own.clear();
        let ops = self.history.ops_of(self.transaction(number));
        ops.iter().enumerate().for_each(|(at, op)| own.step(at, *op));
        own.finals().collect()
    }

    /// Ranks the commits and lays out the chains.
    fn install(&mut self) {
        let mut own = OwnWrites::default();
        let mut committed: Vec<(u64, u32, Vec<Access>)> = Vec::new();
        let mut unknown = Vec::new();
        for number in (0..self.ranks.len() as u32).filter(|number| self.is_committed[*number as usize]) {
            let finals = self.finals(number, &mut own);
            match self.transaction(number).status {
                _ if finals.is_empty() => {}
                Status::Committed(seq) => committed.push((seq, number, finals)),
                _ => unknown.push((number, finals)),
            }
        }
        committed.sort_unstable_by_key(|commit| commit.0);
        // Commits are published in order, so one whose outcome nobody learnt comes after all that returned.
        let unknown = self.order_of_unknown(unknown);
        committed.extend(unknown.into_iter().map(|(number, finals)| (u64::MAX, number, finals)));
        for (place, commit) in committed.iter().enumerate() {
            self.ranks[commit.1 as usize] = place as u32 + 1;
            self.commits.push(commit.1);
        }
        self.lay_out(&committed);
    }

    /// Of two that wrote one key, the one whose write is there in the end came later.
    fn order_of_unknown(&self, mut waiting: Vec<(u32, Vec<Access>)>) -> Vec<(u32, Vec<Access>)> {
        let Some(end) = &self.history.end else { return waiting };
        let mut ordered = Vec::new();
        while !waiting.is_empty() {
            let is_last = |number: u32, key: Key| self.writer(key, end.state[key as usize]) == Some(number);
            let comes_after_another = |(number, finals): &(u32, Vec<Access>)| {
                finals.iter().any(|(key, _, _)| {
                    is_last(*number, *key)
                        && waiting
                            .iter()
                            .any(|other| other.0 != *number && other.1.iter().any(|write| write.0 == *key))
                })
            };
            let next = waiting.iter().position(|one| !comes_after_another(one)).unwrap_or(0);
            ordered.push(waiting.remove(next));
        }
        ordered
    }

    fn lay_out(&mut self, commits: &[(u64, u32, Vec<Access>)]) {
        let keys = self.history.base.len();
        let mut counts = vec![1u32; keys];
        commits.iter().flat_map(|commit| &commit.2).for_each(|write| counts[write.0 as usize] += 1);
        self.starts = starts_of(&counts);
        let nothing = Entry { rank: 0, writer: NOBODY, version: ABSENT, key: 0 };
        self.entries = vec![nothing; self.starts[keys] as usize];
        let mut next = self.starts.clone();
        for (key, version) in self.history.base.iter().enumerate() {
            self.entries[next[key] as usize] = Entry { version: *version, key: key as Key, ..nothing };
            next[key] += 1;
        }
        for (place, (_, writer, finals)) in commits.iter().enumerate() {
            let one = self.transaction(*writer);
            for (key, op, removes) in finals {
                let version = if *removes { ABSENT } else { super::model::version(one.begin, *op) };
                let entry = Entry { rank: place as u32 + 1, writer: *writer, version, key: *key };
                self.entries[next[*key as usize] as usize] = entry;
                self.installed[one.ops.start as usize + op] = next[*key as usize];
                next[*key as usize] += 1;
            }
        }
        self.absent_starts.push(0);
        for key in 0..keys {
            let chain = self.starts[key]..self.starts[key + 1];
            self.absents.extend(chain.filter(|entry| self.entries[*entry as usize].version == ABSENT));
            self.absent_starts.push(self.absents.len() as u32);
        }
    }

    fn order_real_time(&mut self) {
        let count = self.ranks.len();
        (self.returned_before, self.begun_before_end) = (vec![0; count], vec![0; count]);
        let (mut returned, mut begun) = (0, 0);
        for (number, is_begin) in self.ticks.iter().filter(|tick| tick.0 != NOBODY) {
            let rank = self.ranks[*number as usize];
            if *is_begin {
                self.returned_before[*number as usize] = returned;
                begun = begun.max(rank);
            } else {
                self.begun_before_end[*number as usize] = begun;
                // Of one whose outcome is unknown nobody knows when it took effect.
                if self.transaction(*number).status != Status::Unknown {
                    returned = returned.max(rank);
                }
            }
        }
    }

    pub fn source(&self, key: Key, version: Version) -> Source {
        if version == self.history.base[key as usize] {
            return Source::Installed(self.starts[key as usize]);
        }
        let Some(number) = self.writer(key, version) else { return Source::Nowhere };
        let op = self.transaction(number).ops.start as usize + written_by(version).1;
        match self.installed[op] {
            NOBODY if self.is_committed[number as usize] => Source::Intermediate(number),
            NOBODY => Source::RolledBack(number),
            entry => Source::Installed(entry),
        }
    }

    /// The entries of a key that make it absent, oldest first.
    pub fn absents(&self, key: Key) -> &[u32] {
        let bounds = [self.absent_starts[key as usize], self.absent_starts[key as usize + 1]];
        &self.absents[bounds[0] as usize..bounds[1] as usize]
    }

    /// All entries of a key.
    pub fn chain(&self, key: Key) -> &[Entry] {
        &self.entries[self.starts[key as usize] as usize..self.starts[key as usize + 1] as usize]
    }

    pub fn entry(&self, entry: u32) -> Entry {
        self.entries[entry as usize]
    }

    /// What replaced an entry.
    pub fn next(&self, entry: u32) -> Option<Entry> {
        let next = self.entries.get(entry as usize + 1)?;
        (next.key == self.entries[entry as usize].key).then_some(*next)
    }

    /// The first state without this entry.
    pub fn gone(&self, entry: u32) -> u32 {
        self.next(entry).map_or(NEVER, |next| next.rank)
    }

    /// The final write of an operation, if it is one.
    pub fn installed_by(&self, op: usize) -> Option<u32> {
        Some(self.installed[op]).filter(|entry| *entry != NOBODY)
    }

    /// A transaction in words.
    pub fn name(&self, number: u32) -> String {
        if number == NOBODY {
            return "the beginning".into();
        }
        let one = self.transaction(number);
        format!("T{} (process {}, {:?}, {:?})", one.begin, one.process, one.level, one.status)
    }
}

/// Where each of these many begins, and where the last one ends.
pub fn starts_of(counts: &[u32]) -> Vec<u32> {
    let mut starts = Vec::with_capacity(counts.len() + 1);
    let mut sum = 0;
    starts.push(0);
    for count in counts {
        sum += count;
        starts.push(sum);
    }
    starts
}
