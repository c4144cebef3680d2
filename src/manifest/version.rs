//! Versions: all of a database's metadata at one moment, as plain data, and the pure step to the next one.
//!
//! Everything below a version is shared: the next one copies only the path to what an edit changes.
//!
//! Must not know of files, nor of who else holds a version.

use super::edit::{Edit, EditOp};
use super::meta::{
    Inconsistency, LEVELS, Moment, Run, TableMeta, Tree, check_neighbours, check_unique, ensure,
};
use super::settings::KeyspaceSettings;
use crate::base::types::{DbId, FileNo, KeyspaceId, SEQ_MAX, SegmentNo, SeqNo};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One keyspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyspaceRecord {
    /// Its number, never reused.
    pub(crate) id: KeyspaceId,
    /// Its name, unique among living keyspaces.
    pub(crate) name: String,
    /// Its settings.
    pub(crate) options: KeyspaceSettings,
    /// Its tables.
    pub(crate) tree: Arc<Tree>,
    /// Everything up to this sequence number is in the tables; 0 for nothing.
    pub(crate) flushed_seq: SeqNo,
}

/// The metadata of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    /// Identity of the database.
    pub(crate) db: DbId,
    /// Count of the records that led here: each append to the manifest is one.
    pub(crate) generation: u64,
    /// Living keyspaces.
    pub(crate) keyspaces: BTreeMap<KeyspaceId, Arc<KeyspaceRecord>>,
    /// Above every keyspace number ever used.
    pub(crate) next_keyspace: u32,
    /// Above every file number that may have been used.
    pub(crate) files_reserved_upto: FileNo,
    /// Above every epoch in a tree.
    pub(crate) next_epoch: u64,
    /// Log segments below are not needed.
    pub(crate) log_number: SegmentNo,
    /// At least every sequence number in a table. The log may hold higher ones.
    pub(crate) last_seq: SeqNo,
    /// Set when the database was closed cleanly and nothing was written since: the number of the next log segment.
    pub(crate) clean_next_log: Option<SegmentNo>,
    /// At every sequence number from this one on, the tables have all that a reader there sees. `None`: not known.
    pub(crate) floor: Option<SeqNo>,
    /// Which sequence number was visible when, ascending in both. At most one has a sequence number below the floor, or
    /// at it.
    pub(crate) moments: Arc<Vec<Moment>>,
}

/// A run that an edit added to: where, and the smallest user key of what was added.
type Touched = (KeyspaceId, u8, u64, Box<[u8]>);

/// What an edit does to the trees.
struct Changes {
    removed: BTreeMap<FileNo, Arc<TableMeta>>,
    touched: Vec<Touched>,
}

impl Version {
    /// A database without keyspaces, before its first edit.
    pub(crate) fn empty(db: DbId) -> Version {
        Version {
            db,
            generation: 0,
            keyspaces: BTreeMap::new(),
            next_keyspace: 0,
            files_reserved_upto: 1,
            next_epoch: 1,
            log_number: 0,
            last_seq: 0,
            clean_next_log: None,
            floor: None,
            moments: Arc::default(),
        }
    }

    /// The keyspace with this name.
    pub(crate) fn keyspace(&self, name: &str) -> Option<&Arc<KeyspaceRecord>> {
        self.keyspaces.values().find(|record| record.name == name)
    }

    /// All tables of all keyspaces.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &Arc<TableMeta>> {
        self.keyspaces.values().flat_map(|record| record.tree.tables())
    }

    /// The version after this edit, one generation on.
    ///
    /// Operations take effect in their order, but overlaps are judged at the end: an edit may add a compaction's
    /// outputs before it removes the inputs. A table that is removed and added as it was has only moved: both versions
    /// share its metadata, so that whoever counts references sees the readers of either. Clears the clean marker unless
    /// the edit sets it.
    pub(crate) fn apply(&self, edit: &Edit) -> Result<Version, Inconsistency> {
        let mut next = self.clone();
        next.apply_in_place(edit)?;
        next.check_added(edit)?;
        Ok(next)
    }

    /// Like `apply` for a version that nobody shares, which is then useless after an error; the caller checks the
    /// result as a whole when the last edit is in.
    pub(crate) fn apply_in_place(&mut self, edit: &Edit) -> Result<(), Inconsistency> {
        self.generation =
            self.generation.checked_add(1).ok_or_else(|| Inconsistency("generations are used up".into()))?;
        self.clean_next_log = None;
        let mut changes = Changes { removed: self.tables_to_remove(edit), touched: Vec::new() };
        for op in &edit.0 {
            self.apply_op(op, &mut changes)?;
        }
        self.check_clean()?;
        changes.touched.iter().try_for_each(|place| self.check_touched(place))
    }

    /// The tables that an edit removes, before it does.
    fn tables_to_remove(&self, edit: &Edit) -> BTreeMap<FileNo, Arc<TableMeta>> {
        let tables = edit.0.iter().filter_map(|op| {
            let EditOp::RemoveTable { keyspace, level, epoch, number } = op else { return None };
            let level = self.keyspaces.get(keyspace)?.tree.levels.get(usize::from(*level))?;
            level.run(*epoch)?.tables.iter().find(|table| table.number == *number)
        });
        tables.map(|table| (table.number, Arc::clone(table))).collect()
    }

    fn apply_op(&mut self, op: &EditOp, changes: &mut Changes) -> Result<(), Inconsistency> {
        match op {
            EditOp::CreateKeyspace { id, name, settings } => self.create_keyspace(*id, name, settings)?,
            EditOp::DropKeyspace { id } => self.drop_keyspace(*id)?,
            EditOp::SetSettings { id, settings } => self.keyspace_mut(*id)?.options = settings.clone(),
            EditOp::AddTable { keyspace, level, epoch, table } => {
                let moved = changes.removed.get(&table.number).filter(|removed| ***removed == *table);
                let shared = moved.map_or_else(|| Arc::new(table.clone()), Arc::clone);
                self.add_table(*keyspace, *level, *epoch, shared)?;
                changes.touched.push((*keyspace, *level, *epoch, table.smallest.user.clone()));
            }
            EditOp::RemoveTable { keyspace, level, epoch, number } => {
                self.remove_table(*keyspace, *level, *epoch, *number)?;
            }
            EditOp::Flushed { keyspace, seq } => {
                let record = self.keyspace_mut(*keyspace)?;
                record.flushed_seq = record.flushed_seq.max(*seq);
                self.raise_last_seq(*seq)?;
            }
            EditOp::LogNumber(value) => self.log_number = self.log_number.max(*value),
            EditOp::ReserveFiles(value) => self.files_reserved_upto = self.files_reserved_upto.max(*value),
            EditOp::NextEpoch(value) => self.next_epoch = self.next_epoch.max(*value),
            EditOp::NextKeyspace(value) => self.next_keyspace = self.next_keyspace.max(*value),
            EditOp::LastSeq(value) => self.raise_last_seq(*value)?,
            EditOp::Clean { next_log } => self.clean_next_log = Some(*next_log),
            EditOp::Floor(value) => self.raise_floor(*value)?,
            EditOp::Moment { moment, span_micros } => self.add_moment(*moment, *span_micros)?,
        }
        Ok(())
    }

    fn raise_last_seq(&mut self, seq: SeqNo) -> Result<(), Inconsistency> {
        ensure(seq <= SEQ_MAX, || format!("sequence number {seq} is out of bounds"))?;
        self.last_seq = self.last_seq.max(seq);
        Ok(())
    }

    fn raise_floor(&mut self, seq: SeqNo) -> Result<(), Inconsistency> {
        ensure(seq <= SEQ_MAX, || format!("floor {seq} is out of bounds"))?;
        let floor = self.floor.map_or(seq, |floor| floor.max(seq));
        self.floor = Some(floor);
        let useless = self.moments.partition_point(|moment| moment.seq <= floor).saturating_sub(1);
        if useless > 0 {
            Arc::make_mut(&mut self.moments).drain(..useless);
        }
        Ok(())
    }

    /// The first moment is what is known of the oldest state, and stays. The last sequence number rises with each: a
    /// number that stands for a time is never given to another commit.
    fn add_moment(&mut self, moment: Moment, span_micros: u64) -> Result<(), Inconsistency> {
        self.raise_last_seq(moment.seq)?;
        let goes_on = |last: &Moment| last.at_micros <= moment.at_micros && last.seq < moment.seq;
        let last = self.moments.last().copied();
        if !last.is_none_or(|last| goes_on(&last)) {
            return Ok(());
        }
        let moments = Arc::make_mut(&mut self.moments);
        if moments.len() > 1 && last.is_some_and(|last| last.is_replaced_by(&moment, span_micros)) {
            moments.pop();
        }
        moments.push(moment);
        Ok(())
    }

    fn keyspace_mut(&mut self, id: KeyspaceId) -> Result<&mut KeyspaceRecord, Inconsistency> {
        let record = self.keyspaces.get_mut(&id);
        record.map(Arc::make_mut).ok_or_else(|| Inconsistency(format!("there is no keyspace {}", id.0)))
    }

    fn create_keyspace(
        &mut self,
        id: KeyspaceId,
        name: &str,
        settings: &KeyspaceSettings,
    ) -> Result<(), Inconsistency> {
        ensure(id.0 >= self.next_keyspace, || format!("keyspace number {} was used before", id.0))?;
        ensure(!name.is_empty(), || "a keyspace needs a name".into())?;
        ensure(self.keyspace(name).is_none(), || format!("there is a keyspace {name:?} already"))?;
        self.next_keyspace =
            id.0.checked_add(1).ok_or_else(|| Inconsistency("keyspace numbers are used up".into()))?;
        let record = KeyspaceRecord {
            id,
            name: name.to_owned(),
            options: settings.clone(),
            tree: Arc::default(),
            flushed_seq: 0,
        };
        self.keyspaces.insert(id, Arc::new(record));
        Ok(())
    }

    fn drop_keyspace(&mut self, id: KeyspaceId) -> Result<(), Inconsistency> {
        ensure(id != KeyspaceId::DEFAULT, || "the default keyspace cannot be dropped".into())?;
        let removed = self.keyspaces.remove(&id);
        ensure(removed.is_some(), || format!("there is no keyspace {}", id.0))
    }

    fn add_table(
        &mut self,
        keyspace: KeyspaceId,
        level: u8,
        epoch: u64,
        table: Arc<TableMeta>,
    ) -> Result<(), Inconsistency> {
        table.check()?;
        ensure(usize::from(level) < LEVELS, || format!("there is no level {level}"))?;
        let after = epoch.checked_add(1).ok_or_else(|| Inconsistency("epochs are used up".into()))?;
        self.next_epoch = self.next_epoch.max(after);
        self.raise_last_seq(table.seq_max)?;
        let tree = Arc::make_mut(&mut self.keyspace_mut(keyspace)?.tree);
        tree.insert(usize::from(level), epoch, table);
        Ok(())
    }

    fn remove_table(
        &mut self,
        keyspace: KeyspaceId,
        level: u8,
        epoch: u64,
        number: FileNo,
    ) -> Result<(), Inconsistency> {
        let tree = Arc::make_mut(&mut self.keyspace_mut(keyspace)?.tree);
        let removed = tree.remove(usize::from(level), epoch, number);
        ensure(removed, || {
            format!("keyspace {} has no table {number} in level {level} run #{epoch}", keyspace.0)
        })
    }

    /// Overlaps in a run can only be beside a table that was added.
    fn check_touched(&self, (keyspace, level, epoch, smallest): &Touched) -> Result<(), Inconsistency> {
        let tree = self.keyspaces.get(keyspace).map(|record| &record.tree);
        let level = tree.and_then(|tree| tree.levels.get(usize::from(*level)));
        let Some(run) = level.and_then(|level| level.run(*epoch)) else { return Ok(()) };
        let index = run.position(smallest);
        let around = run.tables.get(index.saturating_sub(1)..).unwrap_or_default();
        around.windows(2).take(2).try_for_each(|pair| match pair {
            [left, right] => check_neighbours(*epoch, left, right),
            _ => Ok(()),
        })
    }

    /// Rules about added tables that need a look at all others: numbers reserved, and used once.
    fn check_added(&self, edit: &Edit) -> Result<(), Inconsistency> {
        let added: BTreeSet<FileNo> = edit
            .0
            .iter()
            .filter_map(|op| match op {
                EditOp::AddTable { table, .. } => Some(table.number),
                _ => None,
            })
            .collect();
        if added.is_empty() {
            return Ok(());
        }
        let present =
            self.tables().map(|table| table.number).filter(|number| added.contains(number)).collect();
        check_unique(present)?;
        self.check_reserved(added.last().copied().unwrap_or_default())
    }

    fn check_reserved(&self, number: FileNo) -> Result<(), Inconsistency> {
        let bound = self.files_reserved_upto;
        ensure(number < bound, || format!("table {number} is not below the reserved bound {bound}"))
    }

    fn check_clean(&self) -> Result<(), Inconsistency> {
        ensure(self.clean_next_log.is_none_or(|next| next >= self.log_number), || {
            format!("the clean marker's segment is below segment {}", self.log_number)
        })
    }

    /// Every rule of a version.
    pub(crate) fn check(&self) -> Result<(), Inconsistency> {
        let mut names = BTreeSet::new();
        for (id, record) in &self.keyspaces {
            ensure(*id == record.id && id.0 < self.next_keyspace, || {
                format!("keyspace {} is misnumbered", id.0)
            })?;
            ensure(!record.name.is_empty(), || format!("keyspace {} has no name", id.0))?;
            ensure(names.insert(&record.name), || format!("two keyspaces are called {:?}", record.name))?;
            self.check_keyspace(record)
                .map_err(|inner| Inconsistency(format!("keyspace {}: {inner}", id.0)))?;
        }
        let ascends = self.moments.is_sorted_by(|a, b| a.at_micros <= b.at_micros && a.seq < b.seq);
        ensure(ascends, || "moments do not ascend".into())?;
        ensure(self.last_seq <= SEQ_MAX, || format!("sequence number {} is out of bounds", self.last_seq))?;
        self.check_clean()?;
        check_unique(self.tables().map(|table| table.number).collect())
    }

    fn check_keyspace(&self, record: &KeyspaceRecord) -> Result<(), Inconsistency> {
        record.tree.check()?;
        ensure(record.flushed_seq <= self.last_seq, || "flushed beyond the last sequence number".into())?;
        record.tree.tables().try_for_each(|table| {
            self.check_reserved(table.number)?;
            ensure(table.seq_max <= self.last_seq, || {
                format!("table {} is beyond the last sequence number", table.number)
            })
        })?;
        record.tree.runs().try_for_each(|(_, run)| {
            ensure(run.epoch < self.next_epoch, || format!("run #{} is not below the next epoch", run.epoch))
        })
    }

    /// The edit that leads from the empty version to this one, except for the generation.
    pub(crate) fn snapshot(&self) -> Edit {
        let mut ops = vec![
            EditOp::ReserveFiles(self.files_reserved_upto),
            EditOp::NextEpoch(self.next_epoch),
            EditOp::LogNumber(self.log_number),
            EditOp::LastSeq(self.last_seq),
        ];
        for record in self.keyspaces.values() {
            ops.push(EditOp::CreateKeyspace {
                id: record.id,
                name: record.name.clone(),
                settings: record.options.clone(),
            });
            ops.push(EditOp::Flushed { keyspace: record.id, seq: record.flushed_seq });
            snapshot_tables(record, &mut ops);
        }
        ops.push(EditOp::NextKeyspace(self.next_keyspace));
        ops.extend(self.floor.map(EditOp::Floor));
        ops.extend(self.moments.iter().map(|moment| EditOp::Moment { moment: *moment, span_micros: 0 }));
        ops.extend(self.clean_next_log.map(|next_log| EditOp::Clean { next_log }));
        Edit(ops)
    }
}

fn snapshot_tables(record: &KeyspaceRecord, ops: &mut Vec<EditOp>) {
    for (index, run) in record.tree.runs() {
        let level = u8::try_from(index).unwrap_or(u8::MAX);
        ops.extend(run.tables.iter().map(|table| EditOp::AddTable {
            keyspace: record.id,
            level,
            epoch: run.epoch,
            table: TableMeta::clone(table),
        }));
    }
}

impl Tree {
    /// Puts a table where its smallest key belongs, in the run with this epoch or in a new one.
    fn insert(&mut self, level: usize, epoch: u64, table: Arc<TableMeta>) {
        let Some(level) = self.levels.get_mut(level) else { return };
        match level.position(epoch) {
            Ok(index) => {
                let Some(run) = level.runs.get_mut(index).map(Arc::make_mut) else { return };
                let position = run.position(&table.smallest.user);
                run.tables.insert(position, table);
            }
            Err(index) => level.runs.insert(index, Arc::new(Run { epoch, tables: vec![table] })),
        }
    }

    /// Takes a table out, and its run if it was the last; says whether it was there.
    fn remove(&mut self, level: usize, epoch: u64, number: FileNo) -> bool {
        let Some(level) = self.levels.get_mut(level) else { return false };
        let Ok(place) = level.position(epoch) else { return false };
        let Some(run) = level.runs.get_mut(place).map(Arc::make_mut) else { return false };
        let Some(index) = run.tables.iter().position(|table| table.number == number) else { return false };
        run.tables.remove(index);
        if run.tables.is_empty() {
            level.runs.remove(place);
        }
        true
    }
}
