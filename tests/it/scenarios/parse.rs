//! `table.txt` as data. Its head says what the words mean.

use esker::Isolation;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub const LEVELS: [Isolation; 4] = [
    Isolation::ReadUncommitted,
    Isolation::ReadCommitted,
    Isolation::RepeatableRead,
    Isolation::Serializable,
];
const SHORT_NAMES: [&str; 4] = ["RU", "RC", "RR", "SER"];

/// Keys and numbers.
pub type State = BTreeMap<String, i64>;

/// Who does a step: 0 writes without a transaction, the others are T1, T2, …
pub type Who = usize;
pub const PLAIN: Who = 0;

#[derive(Debug, Clone)]
pub struct Scenario {
    pub id: String,
    pub start: State,
    /// The columns that it has, as indexes into `LEVELS`.
    pub levels: Vec<usize>,
    pub ordered: bool,
    pub steps: Vec<Step>,
    /// At this level exactly one of these fails as unserializable.
    pub one_of: Vec<(usize, Vec<Who>)>,
    /// Per level, the states that may be there in the end.
    pub finals: [Vec<String>; 4],
}

#[derive(Debug, Clone)]
pub struct Step {
    pub text: String,
    pub action: Action,
    /// Per level.
    pub expect: [String; 4],
    /// May as well come before the step before it.
    pub swaps: bool,
}

#[derive(Debug, Clone)]
pub enum Action {
    Do(Who, Op),
    /// The answer of a step that waited.
    Resumes(Who),
    Clock(Duration),
}

impl Action {
    pub fn who(&self) -> Option<Who> {
        match self {
            Action::Do(who, _) | Action::Resumes(who) => Some(*who),
            Action::Clock(_) => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    Begin(Manner),
    Get(String),
    GetForUpdate(String),
    GetForShare(String),
    Scan(Which, bool),
    ScanForUpdate(Span, Which),
    Put(String, i64),
    Delete(String),
    DeleteWhere(Which),
    Fill(u32),
    Iter,
    Next,
    Rest,
    Savepoint,
    RollbackToSavepoint,
    ReleaseSavepoint,
    Commit,
    Rollback,
}

/// How a transaction begins.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Manner {
    pub level: Option<usize>,
    pub read_only: bool,
    pub optimistic: bool,
    pub lazy: bool,
    pub no_wait: bool,
    pub timeout: Option<Duration>,
}

/// Keys from the first one on, up to the second one without it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Span {
    pub start: String,
    pub end: Option<String>,
}

impl Span {
    pub fn key(key: &str) -> Span {
        Span { start: key.to_string(), end: Some(format!("{key}\0")) }
    }

    pub fn has(&self, key: &str) -> bool {
        key >= self.start.as_str() && self.end.as_deref().is_none_or(|end| key < end)
    }

    pub fn overlaps(&self, other: &Span) -> bool {
        let ends_before =
            |one: &Span, two: &Span| one.end.as_deref().is_some_and(|end| end <= two.start.as_str());
        !ends_before(self, other) && !ends_before(other, self)
    }
}

/// The values that a scan keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    All,
    Equal(i64),
    MultipleOf(i64),
}

impl Which {
    pub fn has(self, value: i64) -> bool {
        match self {
            Which::All => true,
            Which::Equal(wanted) => value == wanted,
            Which::MultipleOf(divisor) => value % divisor == 0,
        }
    }
}

/// Entries as the table writes them.
pub fn braces<K: AsRef<str>>(entries: &[(K, i64)]) -> String {
    if entries.len() > 10 {
        return format!("{} entries", entries.len());
    }
    let texts: Vec<String> = entries.iter().map(|(key, value)| format!("{}={value}", key.as_ref())).collect();
    format!("{{{}}}", texts.join(" "))
}

/// The keys that `fill` sets, with the number 2.
pub fn fill_keys(count: u32) -> impl Iterator<Item = String> {
    (0..count).map(|number| format!("z{number:04}"))
}

/// All scenarios of the table.
pub fn scenarios() -> Vec<Scenario> {
    let text = include_str!("table.txt");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let text = lines.collect::<Vec<_>>().join("\n");
    let blocks = text.split("\n\n").map(|block| block.trim_matches('\n'));
    blocks.filter(|block| !block.is_empty()).map(scenario).collect()
}

fn scenario(block: &str) -> Scenario {
    let mut lines = block.lines();
    let head = lines.next().expect("a block has lines");
    let (id, _title) = head.split_once(": ").unwrap_or_else(|| panic!("no title: {head:?}"));
    let mut scenario = Scenario {
        id: id.to_string(),
        start: state("x=10 y=20"),
        levels: vec![0, 1, 2, 3],
        ordered: false,
        steps: Vec::new(),
        one_of: Vec::new(),
        finals: Default::default(),
    };
    for line in lines {
        let line = line.trim();
        add_line(&mut scenario, line).unwrap_or_else(|| panic!("scenario {id}: cannot understand {line:?}"));
    }
    let begins = |step: &Step, one: Who| matches!(&step.action, Action::Do(who, Op::Begin(_)) if *who == one);
    // Those that do not say when they begin do so at the beginning.
    let all: BTreeSet<Who> = scenario.steps.iter().filter_map(|step| step.action.who()).collect();
    let is_silent = |who: &Who| *who != PLAIN && !scenario.steps.iter().any(|step| begins(step, *who));
    let begins = all.into_iter().filter(is_silent).map(|who| Step {
        text: format!("T{who} begin"),
        action: Action::Do(who, Op::Begin(Manner::default())),
        expect: columns("ok"),
        swaps: false,
    });
    scenario.steps = begins.collect::<Vec<_>>().into_iter().chain(scenario.steps).collect();
    assert!(scenario.finals.iter().any(|one| !one.is_empty()), "scenario {id} has no end");
    scenario
}

fn columns(text: &str) -> [String; 4] {
    let parts: Vec<&str> = text.split(" | ").map(str::trim).collect();
    match parts.as_slice() {
        [one] => std::array::from_fn(|_| one.to_string()),
        [a, b, c, d] => [a, b, c, d].map(|one| one.to_string()),
        _ => panic!("{text:?}: one column or four"),
    }
}

fn add_line(scenario: &mut Scenario, line: &str) -> Option<()> {
    if let Some(start) = line.strip_prefix("start ") {
        scenario.start = state(start);
    } else if let Some(levels) = line.strip_prefix("levels ") {
        scenario.levels = levels.split(' ').map(level).collect::<Option<_>>()?;
    } else if line == "ordered" {
        scenario.ordered = true;
    } else if let Some(ends) = line.strip_prefix("final ") {
        let alternatives = |column: String| column.split(" or ").map(|one| one.trim().to_string()).collect();
        scenario.finals = columns(ends).map(alternatives);
    } else if let Some((name, rest)) = line.split_once(": one of ") {
        let names = rest.strip_suffix(" is unserializable")?;
        scenario.one_of.push((level(name)?, names.split(' ').map(who).collect::<Option<_>>()?));
    } else {
        let (step, results) = line.split_once("  ").unwrap_or((line, "ok"));
        let (step, swaps) = match step.strip_prefix("~ ") {
            Some(step) => (step, true),
            None => (step, false),
        };
        scenario.steps.extend(steps(step, results.trim(), swaps)?);
    }
    Some(())
}

/// The step of a line, or those of a group such as `T2..T9`.
fn steps(text: &str, results: &str, swaps: bool) -> Option<Vec<Step>> {
    let one = |text: String, results: &str| {
        let action = action(&text)?;
        Some(Step { action, text, expect: columns(results), swaps })
    };
    let Some((first, rest)) = text.split_once("..").filter(|(first, _)| who(first).is_some()) else {
        return Some(vec![one(text.to_string(), results)?]);
    };
    let (last, what) = rest.split_once(' ')?;
    let mut all = Vec::new();
    for who in who(first)?..=who(last)? {
        if what == "resume and roll back" {
            all.push(one(format!("T{who} resumes"), results)?);
            all.push(one(format!("T{who} rollback"), results)?);
        } else {
            all.push(one(format!("T{who} {what}"), results)?);
        }
    }
    Some(all)
}

fn who(name: &str) -> Option<Who> {
    if name == "P" { Some(PLAIN) } else { name.strip_prefix('T')?.parse().ok() }
}

/// The name of one that does steps, which is also the label of its transaction.
pub fn name(who: Who) -> String {
    if who == PLAIN { "P".to_string() } else { format!("T{who}") }
}

fn level(name: &str) -> Option<usize> {
    SHORT_NAMES.iter().position(|short| *short == name)
}

fn state(text: &str) -> State {
    let one = |part: &str| {
        let (key, value) = assignment(part).unwrap_or_else(|| panic!("{part:?} is no key=number"));
        (key, value)
    };
    text.split_whitespace().map(one).collect()
}

fn assignment(text: &str) -> Option<(String, i64)> {
    let (key, value) = text.split_once('=')?;
    Some((key.to_string(), value.parse().ok()?))
}

fn hours(text: &str) -> Option<Duration> {
    Some(Duration::from_secs(3600 * text.strip_suffix('h')?.parse::<u64>().ok()?))
}

fn action(text: &str) -> Option<Action> {
    if let Some(time) = text.strip_prefix("clock +") {
        return Some(Action::Clock(hours(time)?));
    }
    let (name, what) = text.split_once(' ')?;
    let who = who(name)?;
    if what == "resumes" {
        return Some(Action::Resumes(who));
    }
    let op = op(what)?;
    let is_possible = who != PLAIN || matches!(op, Op::Put(..) | Op::Delete(_));
    is_possible.then_some(Action::Do(who, op))
}

fn op(text: &str) -> Option<Op> {
    let words: Vec<&str> = text.split(' ').collect();
    Some(match words.as_slice() {
        ["begin", how @ ..] => Op::Begin(manner(how)?),
        ["get", key] => Op::Get(key.to_string()),
        ["get_for_update", key] => Op::GetForUpdate(key.to_string()),
        ["get_for_share", key] => Op::GetForShare(key.to_string()),
        ["scan"] => Op::Scan(Which::All, false),
        ["scan", "back"] => Op::Scan(Which::All, true),
        ["scan", which] => Op::Scan(predicate(which)?, false),
        ["scan_for_update", which] => match which.split_once("..") {
            Some((start, end)) => {
                Op::ScanForUpdate(Span { start: start.to_string(), end: Some(end.to_string()) }, Which::All)
            }
            None => Op::ScanForUpdate(Span::default(), predicate(which)?),
        },
        ["put", assigned] => {
            let (key, value) = assignment(assigned)?;
            Op::Put(key, value)
        }
        ["delete", "where", which] => Op::DeleteWhere(predicate(which)?),
        ["delete", key] => Op::Delete(key.to_string()),
        ["fill", count] => Op::Fill(count.parse().ok()?),
        ["iter"] => Op::Iter,
        ["next"] => Op::Next,
        ["rest"] => Op::Rest,
        ["savepoint"] => Op::Savepoint,
        ["rollback", "to", "savepoint"] => Op::RollbackToSavepoint,
        ["release", "savepoint"] => Op::ReleaseSavepoint,
        ["commit"] => Op::Commit,
        ["rollback"] => Op::Rollback,
        _ => return None,
    })
}

fn manner(words: &[&str]) -> Option<Manner> {
    let mut manner = Manner::default();
    for word in words {
        match *word {
            "read-only" => manner.read_only = true,
            "optimistic" => manner.optimistic = true,
            "lazy" => manner.lazy = true,
            "no-wait" => manner.no_wait = true,
            _ => match word.strip_prefix("timeout=") {
                Some(time) => manner.timeout = Some(hours(time)?),
                None => manner.level = Some(level(word)?),
            },
        }
    }
    Some(manner)
}

fn predicate(text: &str) -> Option<Which> {
    if let Some(rest) = text.strip_prefix("v%") {
        return Some(Which::MultipleOf(rest.strip_suffix("=0")?.parse().ok()?));
    }
    Some(Which::Equal(text.strip_prefix("v=")?.parse().ok()?))
}
