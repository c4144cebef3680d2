//! Whether the transactions of a run that committed could have run one after the other: by trying all orders that agree
//! with real time. For few transactions.

use super::parse::{Manner, Op, PLAIN, Span, State, Which, Who, braces, fill_keys};
use std::collections::VecDeque;

/// What was done and answered, in the order of the answers.
#[derive(Debug, Default)]
pub struct History {
    steps: Vec<(Who, Op, String)>,
}

/// A transaction that committed.
#[derive(Debug)]
struct Committed<'h> {
    begun: usize,
    ended: usize,
    steps: Vec<(&'h Op, &'h str)>,
}

impl History {
    pub fn note(&mut self, who: Who, op: &Op, answer: &str) {
        self.steps.push((who, op.clone(), answer.to_string()));
    }

    /// An error if there is no serial order from one state to the other that shows what was read.
    pub fn check(&self, start: &State, end: &State) -> Result<(), String> {
        let committed = self.committed();
        let mut left: Vec<&Committed<'_>> = committed.iter().collect();
        if search(&mut left, start, end) {
            return Ok(());
        }
        Err(format!("no serial order leads from {start:?} to {end:?} with {committed:?}"))
    }

    fn committed(&self) -> Vec<Committed<'_>> {
        let mut all = Vec::new();
        for (begun, (who, op, answer)) in self.steps.iter().enumerate() {
            if *who == PLAIN && answer == "ok" {
                // It may have waited, and so have begun any time before.
                all.push(Committed { begun: 0, ended: begun, steps: vec![(op, answer)] });
            }
            let Op::Begin(manner) = op else { continue };
            if manner.level.is_some() {
                continue;
            }
            let own = self.steps.iter().enumerate().skip(begun + 1).filter(|(_, step)| step.0 == *who);
            let own: Vec<_> = own.map(|(at, (_, op, answer))| (at, op, answer.as_str())).collect();
            if let Some((ended, _, _)) =
                own.iter().find(|(_, op, answer)| **op == Op::Commit && *answer == "ok")
            {
                let steps = own.iter().map(|(_, op, answer)| (*op, *answer)).collect();
                all.push(Committed { begun, ended: *ended, steps });
            }
        }
        all
    }
}

/// Tries each of those that are left as the next, if no other one of them ended before it began.
fn search(left: &mut Vec<&Committed<'_>>, state: &State, end: &State) -> bool {
    if left.is_empty() {
        return state == end;
    }
    for at in 0..left.len() {
        let next = left[at];
        if left.iter().any(|other| other.ended < next.begun) {
            continue;
        }
        if let Some(after) = replay(next, state) {
            left.remove(at);
            if search(left, &after, end) {
                return true;
            }
            left.insert(at, next);
        }
    }
    false
}

/// The state after a transaction that runs alone; nothing if it would have read something else.
fn replay(txn: &Committed<'_>, before: &State) -> Option<State> {
    let mut state = before.clone();
    let mut savepoints = Vec::new();
    let mut iter: VecDeque<(String, i64)> = VecDeque::new();
    for (op, answer) in &txn.steps {
        if *answer == "invalid" || answer.starts_with("timeout") {
            continue;
        }
        let expect = match op {
            Op::Get(key) | Op::GetForUpdate(key) | Op::GetForShare(key) => {
                state.get(key).map_or("none".to_string(), i64::to_string)
            }
            Op::Scan(which, back) => {
                let mut found = scan(&state, &Span::default(), *which);
                if *back {
                    found.reverse();
                }
                braces(&found)
            }
            Op::ScanForUpdate(span, which) => braces(&scan(&state, span, *which)),
            Op::DeleteWhere(which) => {
                let found = scan(&state, &Span::default(), *which);
                state.retain(|_, value| !which.has(*value));
                braces(&found)
            }
            Op::Iter => {
                iter = scan(&state, &Span::default(), Which::All).into();
                "ok".to_string()
            }
            Op::Next => iter.pop_front().map_or("none".to_string(), |(key, value)| format!("{key}={value}")),
            Op::Rest => braces(&iter.drain(..).collect::<Vec<_>>()),
            effect => {
                apply(effect, &mut state, &mut savepoints);
                "ok".to_string()
            }
        };
        if expect != *answer {
            return None;
        }
    }
    Some(state)
}

fn apply(op: &Op, state: &mut State, savepoints: &mut Vec<State>) {
    match op {
        Op::Put(key, value) => {
            state.insert(key.clone(), *value);
        }
        Op::Delete(key) => {
            state.remove(key);
        }
        Op::Fill(count) => state.extend(fill_keys(*count).map(|key| (key, 2))),
        Op::Savepoint => savepoints.push(state.clone()),
        Op::RollbackToSavepoint => *state = savepoints.pop().expect("it answered ok"),
        Op::ReleaseSavepoint => drop(savepoints.pop()),
        _ => {}
    }
}

fn scan(state: &State, span: &Span, which: Which) -> Vec<(String, i64)> {
    let inside = state.iter().filter(|(key, value)| span.has(key) && which.has(**value));
    inside.map(|(key, value)| (key.clone(), *value)).collect()
}

fn history(steps: &[(Who, Op, &str)]) -> History {
    let begins = [1, 2].map(|who| (who, Op::Begin(Manner::default()), "ok"));
    let mut history = History::default();
    begins.iter().chain(steps).for_each(|(who, op, answer)| history.note(*who, op, answer));
    history
}

#[test]
fn the_judge_of_serial_orders_knows_write_skew_and_stale_reads() {
    let key = |name: &str| name.to_string();
    let start = State::from([(key("x"), 10), (key("y"), 20)]);
    let after = |x, y| State::from([(key("x"), x), (key("y"), y)]);
    let skew = [
        (1, Op::Get(key("y")), "20"),
        (2, Op::Get(key("x")), "10"),
        (1, Op::Put(key("x"), 11), "ok"),
        (2, Op::Put(key("y"), 21), "ok"),
        (1, Op::Commit, "ok"),
        (2, Op::Commit, "ok"),
    ];
    assert!(history(&skew).check(&start, &after(11, 21)).is_err());
    let mut failed = skew.clone();
    failed[5].2 = "unserializable";
    history(&failed).check(&start, &after(11, 20)).expect("one alone is serial");
    assert!(history(&failed).check(&start, &after(11, 21)).is_err(), "an effect of one that failed");
    let mut late = History::default();
    for (who, op, answer) in [
        (1, Op::Begin(Manner::default()), "ok"),
        (1, Op::Put(key("x"), 11), "ok"),
        (1, Op::Commit, "ok"),
        (2, Op::Begin(Manner::default()), "ok"),
        (2, Op::Get(key("x")), "10"),
        (2, Op::Commit, "ok"),
    ] {
        late.note(who, &op, answer);
    }
    assert!(late.check(&start, &after(11, 20)).is_err(), "serial, and not in the order of real time");
}
