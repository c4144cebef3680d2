//! The rules that every compaction obeys, checked in tests after every pick and before every run.
//!
//! 1. Inputs exist in the tree, newest run first, each table once; no running compaction reads them.
//! 2. **Nothing is jumped over.** Entries move from the age of their run to the age of the output. No table that stays
//!    may lie between the two ages and share keys with the table they come from. So inputs are age-contiguous wherever
//!    they overlap, versions of one user key never split up, and what a newer run says stays newer. Tables that a
//!    running compaction reads stay until it is installed, which covers its outputs, too: they land at or below the
//!    age of its inputs.
//! 3. Outputs do not overlap what stays in their run, nor what a running compaction may write into that run. The run
//!    itself may be gone: another compaction may have emptied it since the pick.
//! 4. A new run is newer than all runs of its level when it is installed, so all its inputs come from levels above.
//! 5. Nothing moves to a level above the one it came from.
//! 6. A move has one input: what it moves is disjoint as it is.

use super::running::Running;
use super::task::{Age, Epoch, Input, Kind, Span, Task};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::types::FileNo;
use crate::manifest::{Run, TableMeta, Tree};
use std::collections::HashSet;
use std::sync::Arc;

/// Checks a task against the tree it is about to change and the compactions that run beside it.
///
/// # Errors
/// `InvalidArgument` naming the broken rule. It would be a bug of a policy; running the task could lose data.
pub(crate) fn check_task(tree: &Tree, running: &Running, task: &Task) -> Result<()> {
    let fail =
        |what: String| Err(Error::new(ErrorKind::InvalidArgument, format!("compaction [{task}]: {what}")));
    let rules = [inputs_exist, nothing_is_jumped, target_is_free, places_are_sound];
    match rules.iter().find_map(|rule| rule(tree, running, task).err()) {
        Some(what) => fail(what),
        None => Ok(()),
    }
}

type Checked = Result<(), String>;

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(what()) }
}

fn inputs_exist(tree: &Tree, running: &Running, task: &Task) -> Checked {
    ensure(!task.inputs.is_empty(), || "no inputs".into())?;
    let descending = task.inputs.is_sorted_by(|newer, older| newer.age() < older.age());
    ensure(descending, || "inputs are not ordered from new to old".into())?;
    for input in &task.inputs {
        ensure(!input.tables.is_empty(), || "an input without tables".into())?;
        let ascending = input.tables.is_sorted_by(|left, right| left.largest.user < right.smallest.user);
        ensure(ascending, || "tables of an input do not ascend".into())?;
        let run = run_of(tree, input.level, input.epoch);
        for table in &input.tables {
            let there =
                run.is_some_and(|run| run.find(&table.smallest.user).is_some_and(|found| found == table));
            ensure(there, || format!("table {} is not in its run", table.number))?;
            ensure(!running.is_busy(table.number), || format!("table {} is busy", table.number))?;
        }
    }
    Ok(())
}

fn run_of(tree: &Tree, level: u8, epoch: u64) -> Option<&Arc<Run>> {
    tree.levels.get(usize::from(level))?.run(epoch)
}

fn nothing_is_jumped(tree: &Tree, _: &Running, task: &Task) -> Checked {
    let inputs: HashSet<FileNo> = task.tables().map(|table| table.number).collect();
    let output = task.output_age();
    for (level, run) in tree.runs() {
        let age = Age::new(level, run.epoch);
        for input in &task.inputs {
            let from = input.age();
            let between = from.min(output) < age && age < from.max(output);
            if between && let Some((table, left)) = left_behind(run, input, &inputs) {
                return Err(format!("table {} would jump over table {}", table.number, left.number));
            }
        }
    }
    Ok(())
}

/// A table of the run that stays and shares keys with a table of the input, and the latter.
fn left_behind<'a>(
    run: &'a Run,
    input: &'a Input,
    inputs: &HashSet<FileNo>,
) -> Option<(&'a TableMeta, &'a TableMeta)> {
    input.tables.iter().find_map(|table| {
        let overlapping = Span::of(table).in_run(run);
        let left = overlapping.iter().find(|other| !inputs.contains(&other.number))?;
        Some((&**table, &**left))
    })
}

fn target_is_free(tree: &Tree, running: &Running, task: &Task) -> Checked {
    let (Epoch::Existing(epoch), Some(hull)) = (task.output_epoch, task.hull()) else {
        return Ok(());
    };
    if task.kind == Kind::Drop {
        return Ok(());
    }
    let inputs: HashSet<FileNo> = task.tables().map(|table| table.number).collect();
    let run = run_of(tree, task.output_level, epoch);
    let overlapped = run.map_or(&[][..], |run| hull.in_run(run));
    if let Some(stays) = overlapped.iter().find(|table| !inputs.contains(&table.number)) {
        return Err(format!("outputs would overlap table {}", stays.number));
    }
    let clash = running.tasks().iter().find(|other| {
        other.output_level == task.output_level
            && other.output_epoch == task.output_epoch
            && other.hull().is_some_and(|span| span.overlaps(hull))
    });
    match clash {
        Some(other) => Err(format!("outputs would overlap those of [{other}]")),
        None => Ok(()),
    }
}

fn places_are_sound(tree: &Tree, _: &Running, task: &Task) -> Checked {
    let output = task.output_level;
    if task.kind == Kind::Drop {
        return Ok(());
    }
    ensure(usize::from(output) < tree.levels.len(), || format!("there is no level {output}"))?;
    let deepest = task.inputs.last().map_or(0, |input| input.level);
    ensure(deepest <= output, || format!("inputs of level {deepest} would move up to level {output}"))?;
    let new_below = task.output_epoch != Epoch::New || deepest < output;
    ensure(new_below, || "a new run takes inputs of its own level".into())?;
    ensure(task.kind != Kind::Move || task.inputs.len() == 1, || "a move of several runs".into())
}
