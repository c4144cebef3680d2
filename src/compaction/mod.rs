//! Compaction: which tables to merge, what of them may be dropped, where outputs are cut, and the merge itself.
//!
//! Policies ([`pick`], [`manual`], [`debt`]) are pure functions of a tree's metadata; [`run`] carries a task out and
//! answers the tables it wrote. Neither takes a lock nor changes a tree: the engine picks under its lock, runs without
//! it, and installs the outcome as an edit of the manifest. [`write_run`] is the same writer for a flush.
//!
//! The rules that keep data correct are in files of their own: the order of age in `task`, what a task may do in
//! `check`, what a merge may leave out in `drop_rules`, where tables may end in `cut`.

mod check;
mod cut;
mod drop_rules;
mod policy;
mod run;
mod running;
mod source;
mod task;
mod window;
mod writer;

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use check::check_task;
pub(crate) use policy::{Goal, Manual, Reclaim, debt, manual, pick, reclaim};
#[cfg(test)]
pub(crate) use run::Outcome;
pub(crate) use run::{Context, run, write_run};
pub(crate) use running::Running;
pub(crate) use task::{Epoch, Shape, Style, Task};
#[cfg(test)]
pub(crate) use task::{Input, Kind};
