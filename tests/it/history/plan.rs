//! What clients will do, drawn at random: a seed gives the same plans again, whatever the threads then make of them.
//!
//! The keys are laid out in regions, one for each workload, all of them used at once:
//!
//! | workload | what it does | what must hold beside the graph |
//! | --- | --- | --- |
//! | registers | reads, writes, removes and scans a few hot keys, half of them in a second keyspace | |
//! | lists | appends to lists and reads them | a list is the order of its commits |
//! | bank | moves money, adds everything up | the sum |
//! | set | adds elements while there are few, or clears | |
//! | forks | writes one of two keys, reads both in either order | |
//! | lockout | counts the failed attempts of an account and adds one if there are fewer than three | never more than three |

use super::model::{Key, Level};
use crate::support::Random;
use std::ops::Range;

/// Keys of one keyspace; those of the other follow.
pub const HALF: Key = 128;
pub const KEYS: Key = 2 * HALF;

pub const REGISTERS: [Range<Key>; 2] = [0..24, HALF..HALF + 24];
pub const SET: Range<Key> = 32..48;
pub const FORKS: Range<Key> = HALF + 32..HALF + 40;
pub const BANK: Range<Key> = 48..56;
pub const LOCKOUT: Range<Key> = HALF + 48..HALF + 112;
pub const LISTS: [Range<Key>; 2] = [64..HALF, HALF + 112..KEYS];

/// Slots of one account in the lockout race: one for each process.
pub const SLOTS: Key = 16;
pub const ATTEMPTS_MAX: usize = 3;

/// So much is in each account in the beginning.
pub const MONEY: i64 = 100;

/// Lists longer than this are read, but not appended to.
pub const LIST_MAX: usize = 30;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Get(Key),
    GetForUpdate(Key),
    GetForShare(Key),
    Range(Key, Key),
    ScanForUpdate(Key, Key),
    Put(Key),
    Delete(Key),
    Append(Key),
    ReadList(Key),
    Savepoint,
    RollbackToSavepoint,
    Transfer(Key, Key),
    Audit,
    AddToSet(Key),
    /// Of this account.
    Attempt(Key),
    Forgive(Key),
}

/// One transaction to be.
#[derive(Debug, Clone)]
pub struct Plan {
    pub level: Level,
    pub optimistic: bool,
    pub read_only: bool,
    pub lazy: bool,
    /// A batch outside of transactions; only writes.
    pub plain: bool,
    pub disk: bool,
    pub commits: bool,
    pub actions: Vec<Action>,
}

/// What a run is made of.
#[derive(Debug, Clone)]
pub struct Mix {
    /// All the same level, or any.
    pub level: Option<Level>,
    /// Registers that are used, of each region.
    pub registers: Key,
    /// In percent.
    pub plain: u64,
    pub optimistic: u64,
    pub aborted: u64,
    /// Commits that wait for the disk.
    pub disk: u64,
    pub workloads: &'static [Workload],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    Registers,
    Lists,
    Bank,
    Set,
    Forks,
    Lockout,
}

impl Workload {
    pub const ALL: &'static [Workload] = &[
        Workload::Registers,
        Workload::Registers,
        Workload::Lists,
        Workload::Bank,
        Workload::Set,
        Workload::Forks,
        Workload::Lockout,
    ];
}

impl Mix {
    pub fn draw(random: &mut Random) -> Mix {
        let level = if random.chance(50) { None } else { Some(*random.pick(&Level::ALL)) };
        Mix {
            level,
            registers: *random.pick(&[2, 6, 24]),
            plain: *random.pick(&[0, 0, 10]),
            optimistic: *random.pick(&[0, 20, 100]),
            aborted: 8,
            disk: *random.pick(&[0, 3, 40]),
            workloads: Workload::ALL,
        }
    }
}

impl Plan {
    pub fn draw(random: &mut Random, mix: &Mix) -> Plan {
        let workload = *random.pick(mix.workloads);
        let mut level = mix.level.unwrap_or_else(|| *random.pick(&Level::ALL));
        if workload == Workload::Lockout {
            // The one whose invariant only this level keeps.
            level = Level::Serializable;
        }
        let plain = workload == Workload::Registers && random.chance(mix.plain);
        let mut plan = Plan {
            level: if plain { Level::ReadCommitted } else { level },
            optimistic: level >= Level::RepeatableRead && random.chance(mix.optimistic),
            read_only: false,
            lazy: random.chance(10),
            plain,
            disk: random.chance(mix.disk),
            commits: !random.chance(mix.aborted),
            actions: Vec::new(),
        };
        plan.actions = match workload {
            _ if plain => (0..1 + random.below(3)).map(|_| write(random, mix)).collect(),
            Workload::Registers => registers(random, mix),
            Workload::Lists => lists(random),
            Workload::Bank => bank(random),
            Workload::Set => vec![set(random)],
            Workload::Forks => forks(random),
            Workload::Lockout => vec![lockout(random)],
        };
        let reads_only = plan.actions.iter().all(|action| action.only_reads());
        plan.read_only = reads_only && random.chance(50) && level >= Level::RepeatableRead;
        plan.optimistic &= !plan.read_only;
        plan
    }
}

impl Action {
    fn only_reads(self) -> bool {
        matches!(self, Action::Get(_) | Action::Range(..) | Action::ReadList(_) | Action::Audit)
    }
}

fn key(random: &mut Random, within: &Range<Key>) -> Key {
    within.start + random.below(u64::from(within.end - within.start)) as Key
}

fn register(random: &mut Random, mix: &Mix) -> Key {
    let region = random.pick(&REGISTERS).clone();
    key(random, &(region.start..region.start + mix.registers))
}

fn write(random: &mut Random, mix: &Mix) -> Action {
    let key = register(random, mix);
    if random.chance(15) { Action::Delete(key) } else { Action::Put(key) }
}

fn range(random: &mut Random, mix: &Mix) -> (Key, Key) {
    let from = register(random, mix);
    let end = REGISTERS.iter().find(|region| region.contains(&from)).map_or(from, |region| region.end);
    (from, (from + 1 + random.below(u64::from(mix.registers)) as Key).min(end))
}

fn registers(random: &mut Random, mix: &Mix) -> Vec<Action> {
    let only_reads = random.chance(25);
    let mut actions = Vec::new();
    let mut savepoints = 0;
    for _ in 0..1 + random.below(5) {
        let action = match random.below(100) {
            0..40 => Action::Get(register(random, mix)),
            40..55 => {
                let (from, to) = range(random, mix);
                Action::Range(from, to)
            }
            _ if only_reads => Action::Get(register(random, mix)),
            55..60 => Action::GetForUpdate(register(random, mix)),
            60..62 => Action::GetForShare(register(random, mix)),
            62..64 => {
                let (from, to) = range(random, mix);
                Action::ScanForUpdate(from, to)
            }
            64..67 => {
                savepoints += 1;
                Action::Savepoint
            }
            67..70 if savepoints > 0 => {
                savepoints -= 1;
                Action::RollbackToSavepoint
            }
            _ => write(random, mix),
        };
        actions.push(action);
    }
    actions
}

fn lists(random: &mut Random) -> Vec<Action> {
    let one = |random: &mut Random| {
        let region = random.pick(&LISTS).clone();
        // Few at a time, others later: lists stay short.
        let list = key(random, &region);
        if random.chance(50) { Action::Append(list) } else { Action::ReadList(list) }
    };
    (0..1 + random.below(4)).map(|_| one(random)).collect()
}

fn bank(random: &mut Random) -> Vec<Action> {
    if random.chance(30) {
        return vec![Action::Audit];
    }
    let from = key(random, &BANK);
    let to = key(random, &BANK);
    if from == to { vec![Action::Audit] } else { vec![Action::Transfer(from, to)] }
}

fn set(random: &mut Random) -> Action {
    match random.below(10) {
        0..6 => Action::AddToSet(key(random, &SET)),
        6..8 => Action::Delete(key(random, &SET)),
        _ => Action::Range(SET.start, SET.end),
    }
}

fn forks(random: &mut Random) -> Vec<Action> {
    let pair = FORKS.start + 2 * random.below(u64::from(FORKS.end - FORKS.start) / 2) as Key;
    match random.below(4) {
        0 => vec![Action::Put(pair)],
        1 => vec![Action::Put(pair + 1)],
        2 => vec![Action::Get(pair), Action::Get(pair + 1)],
        _ => vec![Action::Get(pair + 1), Action::Get(pair)],
    }
}

fn lockout(random: &mut Random) -> Action {
    let accounts = u64::from((LOCKOUT.end - LOCKOUT.start) / SLOTS);
    let account = random.below(accounts) as Key;
    if random.chance(70) { Action::Attempt(account) } else { Action::Forgive(account) }
}
