//! What each transaction read, judged by itself: linear, and exact for the levels up to REPEATABLE READ, because the
//! order of commits is known.
//!
//! Everything that a read found was there from one state to before another. So a read at READ COMMITTED is right if one
//! state explains it that is not older than what the transaction saw before; a transaction at REPEATABLE READ if one
//! state explains all of its reads, and nobody else wrote what it writes between that state and its commit; both if
//! that state has what had been committed before the transaction began.
//!
//! That a key is absent may be the work of several removals. Those are kept that time allows; the judgement is lenient
//! about which of them it was.

use super::anomaly::{Findings, Kind};
use super::chains::{Chains, NOBODY, Source};
use super::model::{ABSENT, Found, Key, Level, Op, OwnWrites, Status, Version, version};

/// One key that was read, and what that came from.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    pub reader: u32,
    /// First and last entry that it may come from; they differ only for absent keys.
    pub first: u32,
    pub last: u32,
    pub by_range: bool,
    /// Operation of the reader.
    op: u32,
    key: Key,
    /// It was so in the states from `since` to before `until`.
    since: u32,
    until: u32,
}

pub struct Judge<'c, 'h> {
    chains: &'c Chains<'h>,
    pub findings: Findings,
    /// What everybody who may not see uncommitted data has read.
    pub seen: Vec<Seen>,
    /// Look for what weaker levels forbid in ways of their own, too.
    by_every_name: bool,
    own: OwnWrites,
}

impl<'c, 'h> Judge<'c, 'h> {
    pub fn new(chains: &'c Chains<'h>, by_every_name: bool) -> Judge<'c, 'h> {
        let own = OwnWrites::default();
        Judge { chains, findings: Findings::default(), seen: Vec::new(), by_every_name, own }
    }

    pub fn judge(&mut self, number: u32) {
        let one = self.chains.transaction(number);
        let promised = if self.by_every_name { Level::Serializable } else { one.level };
        // One that rolled back promises nothing about its place among others, but its reads were answers as well.
        let level = match one.status {
            Status::Aborted => promised.min(Level::RepeatableRead),
            _ => promised,
        };
        let begin = self.seen.len();
        self.own.clear();
        for (at, op) in self.chains.history.ops_of(one).iter().enumerate() {
            let read = Read { number, begin: one.begin, level, at };
            match *op {
                Op::Read { key, version } => self.read(read, key, version, false),
                Op::LockedRead { key, version } => {
                    self.read(read, key, version, false);
                    self.check_locks(read);
                }
                Op::LockedRange { from, to, found } => {
                    self.range(read, from, to, found);
                    self.check_locks(read);
                }
                Op::Range { from, to, found } => self.range(read, from, to, found),
                Op::List { key, found } => self.list(read, key, found),
                _ => {}
            }
            self.own.step(at, *op);
        }
        self.check_real_time(number, begin);
        if level == Level::ReadUncommitted {
            self.seen.truncate(begin);
            return;
        }
        if level == Level::ReadCommitted || self.by_every_name {
            self.check_steps(number, begin);
        }
        if level >= Level::RepeatableRead {
            self.narrow(begin);
            self.check_snapshot(number, begin);
        }
    }

    fn read(&mut self, read: Read, key: Key, found: Version, by_range: bool) {
        if let Some((op, removes)) = self.own.last(key) {
            let expect = if removes { ABSENT } else { version(read.begin, op) };
            if found != expect {
                self.complain(Kind::Internal, read, key, found, "while its own write is another");
            }
            return;
        }
        if found == ABSENT {
            return self.read_absent(read, key, by_range);
        }
        let committed_only = read.level > Level::ReadUncommitted;
        match self.chains.source(key, found) {
            Source::Installed(entry) => self.note(read, key, entry, entry, by_range),
            Source::Nowhere => self.complain(Kind::Garbage, read, key, found, "which nobody wrote there"),
            Source::RolledBack(writer) | Source::Intermediate(writer) if writer == read.number => {
                self.complain(Kind::Internal, read, key, found, "which it had taken back itself");
            }
            Source::RolledBack(writer) if committed_only => {
                let name = self.chains.name(writer);
                self.complain(Kind::G1a, read, key, found, &format!("of {name}, which did not commit"));
            }
            Source::Intermediate(writer) if committed_only => {
                let name = self.chains.name(writer);
                self.complain(
                    Kind::G1b,
                    read,
                    key,
                    found,
                    &format!("of {name}, which did not commit this one"),
                );
            }
            Source::RolledBack(_) | Source::Intermediate(_) => {}
        }
    }

    fn read_absent(&mut self, read: Read, key: Key, by_range: bool) {
        let chains = self.chains;
        if chains.transaction(read.number).level == Level::ReadUncommitted {
            // Somebody may have removed it without committing that: any absence has an explanation.
            return;
        }
        let all = chains.absents(key);
        if all.is_empty() {
            return self.complain(Kind::Garbage, read, key, ABSENT, "although it was never removed");
        }
        let returned = chains.returned_before[read.number as usize];
        let rank = chains.ranks[read.number as usize];
        let newest = chains.begun_before_end[read.number as usize].min(rank.wrapping_sub(1));
        let first = all.partition_point(|entry| chains.gone(*entry) <= returned).min(all.len() - 1);
        let last = all.partition_point(|entry| chains.entry(*entry).rank <= newest).max(first + 1) - 1;
        self.note(read, key, all[first], all[last], by_range);
    }

    fn range(&mut self, read: Read, from: Key, to: Key, found: Found) {
        let mut found = self.chains.history.found(found).iter().copied().peekable();
        for key in from..to {
            let version = found.next_if(|one| one.0 == key).map_or(ABSENT, |one| one.1);
            self.read(read, key, version, true);
        }
        if let Some((key, version)) = found.next() {
            self.complain(Kind::Garbage, read, key, version, "outside of the range, twice or out of order");
        }
    }

    /// A list ends in the version that was read and holds all earlier ones, in the order of their commits.
    fn list(&mut self, read: Read, key: Key, found: Found) {
        let found = self.chains.history.found(found);
        let mut before: Option<u32> = None;
        for (at, (_, element)) in found.iter().enumerate() {
            let is_last = at + 1 == found.len();
            let writer = self.chains.writer(key, *element);
            let next = found.get(at + 1).and_then(|next| self.chains.writer(key, next.1));
            match self.chains.source(key, *element) {
                Source::Installed(entry) => {
                    if let Some(before) = before.filter(|before| *before != entry) {
                        self.compare_neighbours(read, before, entry);
                    }
                    before = Some(entry);
                }
                // Elements from before the history, the reader's own, and those that their writer appended more to.
                Source::Nowhere if !is_last && before.is_none() => {}
                _ if writer == Some(read.number) || (writer.is_some() && writer == next) => {}
                _ if is_last => {}
                _ => self.read(read, key, *element, false),
            }
        }
        self.read(read, key, found.last().map_or(ABSENT, |one| one.1), false);
    }

    fn compare_neighbours(&mut self, read: Read, before: u32, entry: u32) {
        if before + 1 == entry {
            return;
        }
        let chains = self.chains;
        let writer = chains.entry(entry).writer;
        if before < entry && chains.transaction(writer).level < Level::RepeatableRead {
            return;
        }
        let (kind, what) = match before < entry {
            true => (Kind::P4, "is missing one that was appended between them"),
            false => (Kind::G0, "has them in the opposite order of their commits"),
        };
        self.findings.note(kind, || {
            let [a, b] = [before, entry].map(|entry| chains.name(chains.entry(entry).writer));
            format!("{} read a list in which {b} follows {a}: it {what}", chains.name(read.number))
        });
    }

    /// Nobody writes what is locked before the one who locked it commits.
    fn check_locks(&mut self, read: Read) {
        let (chains, rank) = (self.chains, self.chains.ranks[read.number as usize]);
        let is_this = |seen: &&Seen| (seen.reader, seen.op) == (read.number, read.at as u32);
        let broken = self.seen.iter().rev().take_while(is_this).find(|seen| seen.until < rank);
        if let Some(seen) = broken.copied() {
            self.findings
                .note(Kind::LockBroken, || format!("{} {}", chains.name(read.number), words(chains, seen)));
        }
    }

    fn note(&mut self, read: Read, key: Key, first: u32, last: u32, by_range: bool) {
        let (since, until) = (self.chains.entry(first).rank, self.chains.gone(last));
        self.seen.push(Seen {
            reader: read.number,
            first,
            last,
            by_range,
            op: read.at as u32,
            key,
            since,
            until,
        });
    }

    fn complain(&mut self, kind: Kind, read: Read, key: Key, found: Version, what: &str) {
        let chains = self.chains;
        self.findings.note(kind, || {
            let value = if found == ABSENT {
                "absent".into()
            } else {
                format!("{:?}", super::model::written_by(found))
            };
            format!(
                "{} read key {key} in its operation {} as {value}, {what}",
                chains.name(read.number),
                read.at
            )
        });
    }

    fn check_real_time(&mut self, number: u32, begin: usize) {
        let returned = self.chains.returned_before[number as usize];
        let Some(stale) = self.seen[begin..].iter().find(|seen| seen.until <= returned) else { return };
        let (chains, stale) = (self.chains, *stale);
        self.findings.note(Kind::RealTime, || {
            let missed = chains.name(chains.commits[stale.until as usize]);
            let later = chains.name(chains.commits[returned as usize]);
            let reader = chains.name(number);
            format!(
                "{reader} {}, but {missed} and all up to {later} had returned before it began",
                words(chains, stale)
            )
        });
    }

    /// READ COMMITTED: each operation from one state, none older than what was seen before.
    fn check_steps(&mut self, number: u32, begin: usize) {
        let mut newest: Option<Seen> = None;
        let mut complaints = Vec::new();
        for step in self.seen[begin..].chunk_by(|a, b| a.op == b.op) {
            let (low, high) = bounds(step);
            if low.since >= high.until {
                complaints.push((Kind::Torn, low, high));
            } else if let Some(newest) = newest.filter(|newest| newest.since >= high.until) {
                complaints.push((Kind::Otv, newest, high));
            }
            newest = Some(newest.filter(|newest| newest.since >= low.since).unwrap_or(low));
        }
        for (kind, seen, missed) in complaints {
            self.complain_of_two(kind, number, seen, missed);
        }
        self.check_no_future(number, newest);
    }

    fn check_no_future(&mut self, number: u32, newest: Option<Seen>) {
        let rank = self.chains.ranks[number as usize];
        if let Some(newest) = newest.filter(|newest| rank > 0 && newest.since >= rank) {
            let chains = self.chains;
            self.findings.note(Kind::G1c, || {
                format!("{} {}, which committed after it", chains.name(number), words(chains, newest))
            });
        }
    }

    /// Where a key was absent for more than one possible reason, the other reads may tell which it was.
    fn narrow(&mut self, begin: usize) {
        let exact = self.seen[begin..].iter().filter(|seen| seen.first == seen.last);
        let (low, high) =
            exact.fold((0, u32::MAX), |(low, high), seen| (low.max(seen.since), high.min(seen.until)));
        let chains = self.chains;
        for seen in self.seen[begin..].iter_mut().filter(|seen| seen.first != seen.last) {
            let all = chains.absents(seen.key);
            let first = all.partition_point(|entry| *entry < seen.first || chains.gone(*entry) <= low);
            let end = all.partition_point(|entry| *entry <= seen.last && chains.entry(*entry).rank < high);
            if first < end {
                (seen.first, seen.last) = (all[first], all[end - 1]);
                (seen.since, seen.until) = (chains.entry(seen.first).rank, chains.gone(seen.last));
            }
        }
    }

    /// REPEATABLE READ: all operations from one state, and what is written was not written by others since then.
    fn check_snapshot(&mut self, number: u32, begin: usize) {
        if self.seen.len() == begin {
            return;
        }
        let (low, high) = bounds(&self.seen[begin..]);
        if low.since >= high.until {
            let is_one = self.chains.entry(low.first).writer == missed(self.chains, high);
            let kind = match is_one {
                true if low.by_range || high.by_range => Kind::Pmp,
                true => Kind::GSingle,
                false => Kind::GSi,
            };
            self.complain_of_two(kind, number, low, high);
        }
        self.check_no_future(number, Some(low));
        if self.chains.ranks[number as usize] > 0 {
            self.check_first_updater(number, begin, high);
        }
    }

    fn check_first_updater(&mut self, number: u32, begin: usize, high: Seen) {
        let rank = self.chains.ranks[number as usize];
        let one = self.chains.transaction(number);
        for op in one.ops.clone() {
            let Some(entry) = self.chains.installed_by(op as usize) else { continue };
            let before = self.chains.entry(entry - 1);
            let key = before.key;
            let lost = self.seen[begin..].iter().find(|seen| seen.key == key && seen.until < rank);
            let (kind, missed) = match lost {
                Some(seen) => (Kind::P4, *seen),
                None if before.rank < high.until => continue,
                None if before.writer == missed(self.chains, high) => (Kind::GSingle, high),
                None => (Kind::GSi, high),
            };
            let chains = self.chains;
            self.findings.note(kind, || {
                let [reader, overwritten] = [number, before.writer].map(|one| chains.name(one));
                format!("{reader} {} and overwrote key {key} of {overwritten}", words(chains, missed))
            });
        }
    }

    fn complain_of_two(&mut self, kind: Kind, number: u32, seen: Seen, missed: Seen) {
        let chains = self.chains;
        self.findings.note(kind, || {
            let writer = chains.name(chains.entry(seen.first).writer);
            let (reader, words) = (chains.name(number), words(chains, missed));
            format!("{reader} saw key {} of {writer} in its operation {}, and {words}", seen.key, seen.op)
        });
    }
}

/// Who replaced what was seen.
fn missed(chains: &Chains, seen: Seen) -> u32 {
    chains.next(seen.last).map_or(NOBODY, |next| next.writer)
}

fn words(chains: &Chains, seen: Seen) -> String {
    let [writer, next] = [chains.entry(seen.first).writer, missed(chains, seen)].map(|one| match one {
        NOBODY => "nobody".into(),
        one => chains.name(one),
    });
    format!("read key {} in its operation {} as {writer} left it and {next} replaced it", seen.key, seen.op)
}

/// Which operation of whom.
#[derive(Clone, Copy)]
struct Read {
    number: u32,
    begin: u64,
    level: Level,
    at: usize,
}

/// What was seen that is newest, and what is gone first.
fn bounds(seen: &[Seen]) -> (Seen, Seen) {
    seen.iter().fold((seen[0], seen[0]), |(low, high), one| {
        (if one.since > low.since { *one } else { low }, if one.until < high.until { *one } else { high })
    })
}
