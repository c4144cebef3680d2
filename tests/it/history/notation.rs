//! Histories as one line of text, in the notation of Adya's thesis: `w1(x) r2(x1) c1 c2` in the order of time.
//!
//! | step | |
//! | --- | --- |
//! | `b1` | T1 begins (else with its first step) |
//! | `r1(x2)` `r1(x0)` `r1(z-)` | T1 reads of x what T2 wrote, of x what was there before, nothing of z |
//! | `r1(x2.1)` | … what T2 wrote with its first write of x (else: with its last) |
//! | `g1(x2)` | … with a lock that it keeps |
//! | `s1(w-z: x0 y2)` | T1 reads the range from w to z and finds these |
//! | `t1(w-z: x0 y2)` | … with a lock on it that it keeps |
//! | `l1(x: x2 x3)` | T1 reads the list x with what T2 and T3 appended |
//! | `w1(x)` `d1(x)` | T1 writes, removes |
//! | `p1` `u1` | T1 sets a savepoint, rolls back to it |
//! | `c1` `a1` `?1` | T1 commits, rolls back, commits with unknown outcome; commits are ordered as they stand here |
//! | `c1@7` | … with this sequence number instead |
//! | `end(x1 y0)` `crash@7(x1 y0)` | what is there in the end; … after a crash that may lose what came after commit 7 |
//!
//! Keys are w, x, y and z. In the beginning x and y are there, w and z are not.

use super::model::{ABSENT, End, Found, History, Key, Level, Op, Status, Transaction, Version, version};
use std::collections::BTreeMap;

const KEYS: &str = "wxyz";

/// Ticks begin here, so that the beginning is before all of them.
const FIRST_TICK: u64 = 100;

struct Step<'t> {
    what: char,
    number: u32,
    at: Option<u64>,
    arguments: &'t str,
}

fn steps(text: &str) -> Vec<Step<'_>> {
    let mut depth = 0;
    let outside = |one: char| {
        depth += i32::from(one == '(') - i32::from(one == ')');
        depth == 0 && one.is_whitespace()
    };
    text.split(outside).filter(|step| !step.is_empty()).map(step).collect()
}

fn step(text: &str) -> Step<'_> {
    let (head, arguments) = text.split_once('(').unwrap_or((text, ""));
    let arguments = arguments.trim_end_matches(')');
    let (head, at) = match head.split_once('@') {
        Some((head, at)) => (head, Some(at.parse().expect("a number after @"))),
        None => (head, None),
    };
    match head {
        "end" => Step { what: 'e', number: 0, at, arguments },
        "crash" => Step { what: 'k', number: 0, at, arguments },
        _ => {
            let what = head.chars().next().expect("a step");
            let number = head[what.len_utf8()..].parse().unwrap_or_else(|_| panic!("{text}: no transaction"));
            Step { what, number, at, arguments }
        }
    }
}

fn key(text: &str) -> Key {
    KEYS.find(text).unwrap_or_else(|| panic!("{text} is no key")) as Key
}

const fn first_version(key: Key) -> Version {
    version(1, key as usize)
}

/// What is known of a transaction while its steps are gone through.
#[derive(Default)]
struct Known {
    begin: u64,
    end: u64,
    status: Option<Status>,
    ops: Vec<Op>,
    /// The operations that wrote each key.
    writes: BTreeMap<Key, Vec<usize>>,
}

struct Reader {
    known: BTreeMap<u32, Known>,
    history: History,
    level: Level,
}

/// Reads a history; every transaction has this level.
pub fn history(text: &str, level: Level) -> History {
    let base =
        (0..KEYS.len() as Key).map(|key| if key == 1 || key == 2 { first_version(key) } else { ABSENT });
    let history = History { base: base.collect(), ..History::default() };
    let mut reader = Reader { known: BTreeMap::new(), history, level };
    let steps = steps(text);
    reader.read_outline(&steps);
    reader.read_contents(&steps);
    reader.finish()
}

impl Reader {
    /// Who begins and ends when and writes what, so that a read can name a write that comes later.
    fn read_outline(&mut self, steps: &[Step]) {
        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        let mut seq = 0;
        for (place, step) in steps.iter().enumerate().filter(|(_, step)| !"ek".contains(step.what)) {
            let tick = FIRST_TICK + 2 * place as u64;
            let known =
                self.known.entry(step.number).or_insert_with(|| Known { begin: tick, ..Known::default() });
            known.end = tick + 1;
            let op = counts.entry(step.number).or_default();
            if "wd".contains(step.what) {
                known.writes.entry(key(step.arguments)).or_default().push(*op);
            }
            *op += usize::from("rgstlwdpu".contains(step.what));
            known.status = match step.what {
                'c' => {
                    seq = step.at.unwrap_or(seq + 1);
                    Some(Status::Committed(seq))
                }
                'a' => Some(Status::Aborted),
                '?' => Some(Status::Unknown),
                _ => known.status,
            };
        }
    }

    fn read_contents(&mut self, steps: &[Step]) {
        for step in steps {
            let op = match step.what {
                'r' => {
                    let (key, version) = self.item(step.arguments);
                    Op::Read { key, version }
                }
                'g' => {
                    let (key, version) = self.item(step.arguments);
                    Op::LockedRead { key, version }
                }
                's' | 't' => {
                    let (range, found) = step.arguments.split_once(':').expect("a range");
                    let (from, to) = range.split_once('-').expect("two ends");
                    let (from, to, found) = (key(from), key(to) + 1, self.items(found));
                    let is_locked = step.what == 't';
                    if is_locked {
                        Op::LockedRange { from, to, found }
                    } else {
                        Op::Range { from, to, found }
                    }
                }
                'l' => {
                    let (name, found) = step.arguments.split_once(':').expect("a list");
                    Op::List { key: key(name), found: self.items(found) }
                }
                'w' => Op::Write { key: key(step.arguments) },
                'd' => Op::Delete { key: key(step.arguments) },
                'p' => Op::Savepoint,
                'u' => Op::RollbackToSavepoint,
                'e' | 'k' => {
                    let mut state = self.history.base.clone();
                    for item in step.arguments.split_whitespace() {
                        let (key, version) = self.item(item);
                        state[key as usize] = version;
                    }
                    self.history.end = Some(End { state, safe_seq: step.at });
                    continue;
                }
                _ => continue,
            };
            self.known.get_mut(&step.number).expect("seen before").ops.push(op);
        }
    }

    fn items(&mut self, text: &str) -> Found {
        let found: Vec<_> = text.split_whitespace().map(|item| self.item(item)).collect();
        let first = self.history.found.len() as u32;
        self.history.found.extend(&found);
        Found { first, count: found.len() as u32 }
    }

    fn item(&self, text: &str) -> (Key, Version) {
        let (name, writer) = text.split_at(1);
        let key = key(name);
        let found = match writer.split_once('.') {
            _ if writer == "-" => ABSENT,
            _ if writer == "0" => first_version(key),
            Some((writer, nth)) => self.written(key, writer, nth.parse().ok()),
            None => self.written(key, writer, None),
        };
        (key, found)
    }

    /// Of a transaction that did not write it, a version that nobody wrote.
    fn written(&self, key: Key, writer: &str, nth: Option<usize>) -> Version {
        let writer = self.known.get(&writer.parse().expect("a transaction"));
        let Some(writes) = writer.and_then(|writer| writer.writes.get(&key)) else { return version(7, 7) };
        let nth = nth.unwrap_or(writes.len());
        version(writer.map_or(0, |writer| writer.begin), writes[nth - 1])
    }

    fn finish(mut self) -> History {
        for (number, known) in self.known {
            let first = self.history.ops.len() as u32;
            self.history.ops.extend(known.ops);
            self.history.transactions.push(Transaction {
                process: number,
                level: self.level,
                begin: known.begin,
                end: known.end,
                status: known.status.unwrap_or(Status::Aborted),
                ops: first..self.history.ops.len() as u32,
            });
        }
        self.history
    }
}
