//! Flush: full memtables of a keyspace become a run of level 0.
//!
//! Log before table: the run is installed only when the log is durable through the largest sequence number in it and
//! all its entries are published, so that no crash can show a later commit without an earlier one.

use super::background::is_background_thread;
use super::compact::Pacer;
use super::core::Core;
use super::events::Event;
use super::keyspace::{Frozen, KeyspaceCore, View};
use super::tables::table_path;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::sync::{Mutex, Rank};
use crate::base::types::{KeyspaceId, SegmentNo, SeqNo, micros};
use crate::compaction::{Context, write_run};
use crate::manifest::{Edit, EditOp, TableMeta, Tree, Version};
use crate::merge::Merge;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Core {
    /// Flushes all full memtables of a keyspace into one run.
    pub(crate) fn flush(&self, keyspace: &Arc<KeyspaceCore>) -> Result<()> {
        let start = self.env.clock.now();
        let view = keyspace.view();
        let frozen = view.frozen.clone();
        let Some(newest) = frozen.first() else { return Ok(()) };
        let last_seq = newest.last_seq;
        self.pipeline.wait_published(last_seq)?;
        check_flushable(&frozen)?;
        let entries = frozen.iter().fold(0u64, |sum, one| sum.saturating_add(one.memtable.len() as u64));
        let merge = Merge::new(frozen.iter().map(|one| one.memtable.iter()).collect());
        let outcome = self.with_context(keyspace, &view.tree, Purpose::Flush, |context| {
            Ok((write_run(merge, entries, true, context)?, context.visible))
        });
        let (outcome, floor) = match outcome {
            // Cancelled, or overtaken: there is nothing left to flush.
            Err(_) if keyspace.is_dropped() => return Ok(()),
            outcome => outcome?,
        };
        drop(view);

        if let Err(error) = self.pipeline.sync_to(last_seq) {
            self.poison(&error);
            self.discard(&outcome.added);
            return Err(error);
        }
        let bytes = outcome.bytes_written;
        let raw_bytes = outcome.added.iter().fold(bytes, |sum, table| sum.max(table.raw_bytes));
        let added: Vec<_> = outcome.added.iter().map(|table| (0, None, table.clone())).collect();
        let change = Change { added, removed: Vec::new(), flushed: Some((last_seq, &frozen)), floor };
        if !self.install_or_discard(keyspace, &change, &outcome.added)? {
            return Ok(());
        }
        self.garbage.add_memtables(frozen);
        let took = self.env.clock.now().saturating_sub(start);
        self.stall.drained(raw_bytes, took);
        self.stats.flushes.add(1);
        self.stats.bytes_flushed.add(bytes);
        self.emit(&Event::Flushed { keyspace: keyspace.name.clone(), entries, bytes, micros: micros(took) });
        Ok(())
    }

    /// Installs a change, or removes the tables written for it when it is refused. When it is unknown whether the
    /// manifest names them, which poisons the engine, they stay.
    pub(crate) fn install_or_discard(
        &self,
        keyspace: &KeyspaceCore,
        change: &Change<'_>,
        written: &[TableMeta],
    ) -> Result<bool> {
        let installed = self.install(keyspace, change);
        if !matches!(installed, Ok(true)) && !self.health.is_poisoned() {
            self.discard(written);
        }
        installed
    }

    /// Makes a change of a keyspace's tree durable and shows it to readers. Answers false, with nothing done, when the
    /// keyspace was dropped meanwhile.
    fn install(&self, keyspace: &KeyspaceCore, change: &Change<'_>) -> Result<bool> {
        let flushed: &[Arc<Frozen>] = change.flushed.map_or(&[], |(_, frozen)| frozen);
        let log_number = match flushed {
            [] => None,
            _ => Some(self.oldest_needed_locked(&self.commit.lock(), flushed)),
        };
        let mut manifest = self.manifest.lock();
        if !manifest.version.keyspaces.contains_key(&keyspace.id) {
            return Ok(false);
        }
        let mut edit = change.edit(keyspace.id, &manifest.version, log_number);
        self.add_moments(&manifest.version, &mut edit);
        self.append_edit_locked(&mut manifest, &edit)?;
        let tree = tree_of(&manifest.version, keyspace.id)?;
        let log_number = manifest.version.log_number;
        {
            let state = self.state.lock();
            let view = keyspace.view();
            let kept = view.frozen.iter().filter(|one| !flushed.iter().any(|gone| Arc::ptr_eq(gone, one)));
            let next = View { active: Arc::clone(&view.active), frozen: kept.cloned().collect(), tree };
            keyspace.set_view_locked(next);
            self.update_stall_locked(&state);
        }
        drop(manifest);
        if !flushed.is_empty() {
            let files = self.commit.lock().log.forget_before(log_number);
            self.garbage.add_files(files);
        }
        Ok(true)
    }

    /// Adds what is known of times since the last edit.
    pub(crate) fn add_moments(&self, version: &Version, edit: &mut Edit) {
        let (moments, span_micros) = self.registry.moments_after(version.moments.last().copied());
        edit.0.extend(moments.into_iter().map(|moment| EditOp::Moment { moment, span_micros }));
    }

    /// Called now and then by whoever writes tables, with no lock held.
    fn make_way(&self, purpose: Purpose) {
        if purpose == Purpose::Compaction && self.options.background_threads == 1 && is_background_thread() {
            self.run_short_jobs();
        }
    }

    /// Removes tables that were written and will not be installed.
    fn discard(&self, tables: &[TableMeta]) {
        for table in tables {
            self.tables.evict(table.number);
        }
        self.garbage.add_files(tables.iter().map(|table| table_path(&self.dir, table.number)).collect());
    }

    /// Runs something that writes tables.
    pub(crate) fn with_context<R>(
        &self,
        keyspace: &KeyspaceCore,
        tree: &Tree,
        purpose: Purpose,
        work: impl FnOnce(&Context<'_>) -> Result<R>,
    ) -> Result<R> {
        let sample = self.registry.sample(&self.pipeline);
        let rate_limit = if purpose == Purpose::Compaction { self.options.rate_limit } else { 0 };
        let pacer = Pacer::new(&*self.env.clock, &self.cancel, rate_limit);
        let leftovers = Mutex::new(Rank::Leaf, Vec::new());
        let result = work(&Context {
            env: &self.env,
            dir: &self.dir,
            db: self.db_id,
            table_options: keyspace.table_options.clone(),
            tree,
            snapshots: &sample.snapshots,
            visible: sample.floor,
            open: &|meta| self.tables.get(meta),
            path_of: &|number| table_path(&self.dir, number),
            next_file: &|| self.next_file(),
            cancelled: &|| self.cancel.load(Ordering::Acquire) || keyspace.is_dropped(),
            throttle: &|bytes| pacer.pace(bytes, || self.make_way(purpose)),
            leftover: &|path, _| leftovers.lock().push(path.to_path_buf()),
            target_table_bytes: keyspace.shape.target_table_bytes,
            max_compaction_bytes: keyspace.shape.max_compaction_bytes,
            // Data that cannot stay in memory anyway must not push out what readers use.
            uncached: purpose == Purpose::Compaction
                && tree.bytes() > self.options.memory_budget.saturating_mul(8),
        });
        // What could not be removed at once is tried again with the rest of the garbage.
        let files = std::mem::take(&mut *leftovers.lock());
        self.garbage.add_files(files);
        result
    }
}

/// A flush promises that everything up to a sequence number is in tables: no memtable may hold anything newer.
fn check_flushable(frozen: &[Arc<Frozen>]) -> Result<()> {
    for one in frozen {
        if let Some((_, newest)) = one.memtable.seq_range()
            && newest > one.last_seq
        {
            let message = format!("a memtable frozen at {} holds entry {newest}", one.last_seq);
            return Err(Error::new(ErrorKind::Poisoned, message));
        }
    }
    Ok(())
}

/// What tables are written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A flush: never slowed.
    Flush,
    /// A compaction: kept at the rate limit.
    Compaction,
}

/// A change of a keyspace's tree: tables in, tables out, memtables that the new tables replace.
pub(crate) struct Change<'a> {
    /// Level, run (none: a new one), table.
    pub(crate) added: Vec<(u8, Option<u64>, TableMeta)>,
    /// Level, run, table.
    pub(crate) removed: Vec<(u8, u64, Arc<TableMeta>)>,
    /// Sequence number through which the keyspace is flushed then, and the memtables.
    pub(crate) flushed: Option<(SeqNo, &'a [Arc<Frozen>])>,
    /// Versions hidden at this sequence number may be missing from the tables that come in.
    pub(crate) floor: SeqNo,
}

impl Change<'_> {
    fn edit(&self, keyspace: KeyspaceId, version: &Version, log_number: Option<SegmentNo>) -> Edit {
        let mut ops =
            Vec::with_capacity(self.added.len().saturating_add(self.removed.len()).saturating_add(3));
        for (level, epoch, table) in &self.removed {
            ops.push(EditOp::RemoveTable { keyspace, level: *level, epoch: *epoch, number: table.number });
        }
        for (level, epoch, table) in &self.added {
            let epoch = epoch.unwrap_or(version.next_epoch);
            ops.push(EditOp::AddTable { keyspace, level: *level, epoch, table: table.clone() });
        }
        if self.added.iter().any(|(_, epoch, _)| epoch.is_none()) {
            ops.push(EditOp::NextEpoch(version.next_epoch.saturating_add(1)));
        }
        if let Some((seq, _)) = self.flushed {
            ops.push(EditOp::Flushed { keyspace, seq });
        }
        if let Some(number) = log_number.filter(|number| *number > version.log_number) {
            ops.push(EditOp::LogNumber(number));
        }
        if version.floor.is_none_or(|floor| floor < self.floor) {
            ops.push(EditOp::Floor(self.floor));
        }
        Edit(ops)
    }
}

/// The tree of a keyspace in a version.
pub(crate) fn tree_of(version: &Version, keyspace: KeyspaceId) -> Result<Arc<Tree>> {
    let record = version.keyspaces.get(&keyspace);
    record
        .map(|record| Arc::clone(&record.tree))
        .ok_or_else(|| Error::new(ErrorKind::NotFound, "the keyspace is not in the manifest"))
}
