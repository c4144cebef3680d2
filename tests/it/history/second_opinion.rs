//! A second opinion: the crate `adya`, a checker after Elle (Kingsbury and Alvaro, 2020), on histories of lists.
//!
//! It knows nothing of commit sequence numbers and infers the order of versions from the lists that were read. So it
//! may miss what our checker finds, but what it finds must be there.

use super::model::{History, Level, Op, Status, Transaction, version};
use adya::history::{Id, Interner, Mop, Op as Step, OpType, ReadValue, Scalar};
use adya::{Opts, Valid, Workload, check};

/// The name that it has for what a level promises here.
pub fn model(level: Level) -> &'static str {
    match level {
        Level::ReadUncommitted => "read-uncommitted",
        Level::ReadCommitted => "read-committed",
        Level::RepeatableRead => "strong-snapshot-isolation",
        Level::Serializable => "strict-serializable",
    }
}

/// The anomalies that it finds of those that a model forbids.
pub fn anomalies(history: &History, model: &str) -> Vec<String> {
    let opts = Opts { models: vec![model.into()], ..Opts::default() };
    let report = check(&translated(history), Workload::ListAppend, &opts);
    if report.valid == Valid::False { report.anomaly_types } else { Vec::new() }
}

fn translated(history: &History) -> adya::History {
    let mut interner = Interner::default();
    let mut steps: Vec<(u64, Step)> = Vec::new();
    for (number, one) in history.transactions.iter().enumerate() {
        let kind = match one.status {
            Status::Committed(_) => OpType::Ok,
            Status::Aborted => OpType::Fail,
            Status::Unknown => OpType::Info,
        };
        let value = micro_ops(history, one, &mut interner);
        let step = |tick, kind, value| {
            (tick, Step { index: tick, kind, process: Some(number as i64), value, time: None })
        };
        steps.push(step(one.begin, OpType::Invoke, value.clone()));
        steps.push(step(one.end, kind, value));
    }
    steps.sort_by_key(|(tick, _)| *tick);
    adya::History::from_ops(steps.into_iter().map(|(_, step)| step).collect(), interner)
}

fn micro_ops(history: &History, one: &Transaction, interner: &mut Interner) -> Vec<Mop> {
    let mut mops = Vec::new();
    for (at, op) in history.ops_of(one).iter().enumerate() {
        match *op {
            Op::List { key, found } => {
                let elements = history.found(found).iter().map(|(_, version)| id(interner, *version));
                let elements = elements.collect();
                mops.push(Mop::Read { key: id(interner, u64::from(key)), value: ReadValue::List(elements) });
            }
            Op::Write { key } => {
                let value = id(interner, version(one.begin, at));
                mops.push(Mop::Append { key: id(interner, u64::from(key)), value });
            }
            _ => {}
        }
    }
    mops
}

fn id(interner: &mut Interner, number: u64) -> Id {
    interner.intern(Scalar::Int(number as i64))
}
