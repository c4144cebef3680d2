//! Trees, tasks and shapes as text, and the tests that speak it.

mod check;
mod cut;
mod debt;
mod drop_rules;
mod files;

mod manual;
mod model;
mod policy;
mod reclaim;
mod simulation;

use super::running::Running;
use super::task::{Shape, Style};
use crate::base::key::{InternalKey, KeyRef, Trailer};
use crate::base::types::EntryKind;
use crate::manifest::{Run, TableMeta, Tree};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::sync::Arc;

/// A generator whose seed is printed and taken from `ESKER_SEED`.
pub(super) fn generator(default: u64) -> StdRng {
    let seed = std::env::var("ESKER_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    println!("ESKER_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// Sizes in units that are easy to add up: tables of 10, level 0 of 4 runs, a level base of 40, ratio 4.
pub(super) fn shape(style: Style) -> Shape {
    Shape {
        style,
        size_ratio: 4,
        l0_runs: 4,
        level_base_bytes: 40,
        target_table_bytes: 10,
        max_compaction_bytes: 250,
        fifo_bytes_max: 0,
    }
}

/// A key as metadata has it.
pub(super) fn internal(user: &str, seq: u64) -> InternalKey {
    KeyRef::new(user.as_bytes(), Trailer::new(seq, EntryKind::Put)).to_owned()
}

/// A tree from lines `L1#7 12[a-f] 13[g-m]25d5`: level, epoch, tables as number, first and last key, bytes (default
/// 10) and deletes (default 0). An entry has one byte.
pub(super) fn tree(text: &str) -> Tree {
    let mut tree = Tree::default();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut words = line.split_whitespace();
        let (level, epoch) = words.next().unwrap().strip_prefix('L').unwrap().split_once('#').unwrap();
        let tables = words.map(|word| Arc::new(table(word))).collect();
        let run = Arc::new(Run { epoch: epoch.parse().unwrap(), tables });
        tree.levels[level.parse::<usize>().unwrap()].runs.push(run);
    }
    tree.check().unwrap();
    tree
}

fn table(word: &str) -> TableMeta {
    let (number, rest) = word.split_once('[').unwrap();
    let (span, sizes) = rest.split_once(']').unwrap();
    let (lo, hi) = span.split_once('-').unwrap();
    let (bytes, deletes) = sizes.split_once('d').unwrap_or((sizes, "0"));
    let bytes = if bytes.is_empty() { 10 } else { bytes.parse().unwrap() };
    let number = number.parse().unwrap();
    TableMeta {
        number,
        origin: number,
        bytes,
        smallest: internal(lo, 1),
        largest: internal(hi, 1),
        entries: bytes,
        deletes: deletes.parse().unwrap(),
        raw_bytes: bytes,
        seq_min: 1,
        seq_max: 1,
        older_versions: 0,
    }
}

/// Compactions under way from lines `3 4 -> L2#7` or `3 4 -> L2 new`: tables of the tree, and where outputs go.
pub(super) fn running(tree: &Tree, text: &str) -> Running {
    let mut running = Running::default();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        running.add(Arc::new(task(tree, &format!("merge {line}"))));
    }
    running
}

/// A task from `merge 3 4 -> L2#7`: what to do with which tables of the tree, and where outputs go.
pub(super) fn task(tree: &Tree, line: &str) -> super::Task {
    use super::task::{Epoch, Input, Kind, Task};
    let (what, target) = line.split_once("->").unwrap();
    let mut words = what.split_whitespace();
    let kind = match words.next().unwrap() {
        "merge" => Kind::Merge,
        "move" => Kind::Move,
        _ => Kind::Drop,
    };
    let numbers: Vec<u64> = words.map(|word| word.parse().unwrap()).collect();
    let mut inputs = Vec::new();
    for (level, run) in tree.runs() {
        let tables: Vec<_> =
            run.tables.iter().filter(|table| numbers.contains(&table.number)).cloned().collect();
        if !tables.is_empty() {
            inputs.push(Input { level: level as u8, epoch: run.epoch, tables });
        }
    }
    let target = target.trim().strip_prefix('L').unwrap();
    let (output_level, output_epoch) = match target.split_once('#') {
        Some((level, epoch)) => (level.parse().unwrap(), Epoch::Existing(epoch.parse().unwrap())),
        None => (target.strip_suffix(" new").unwrap().parse().unwrap(), Epoch::New),
    };
    Task { inputs, output_level, output_epoch, kind, reason: "test" }
}
