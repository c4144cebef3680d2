//! A keyspace at run time: its settings, and the view of its data that readers see.

use super::epoch_cell::EpochCell;
use super::options::KeyspaceOptions;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::types::{KeyspaceId, SegmentNo, SeqNo};
use crate::compaction::Shape;
use crate::manifest::Tree;
use crate::memtable::{ActiveMemtable, Memtable};
use crate::sstable::TableOptions;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Name of the hidden keyspace of the engine's own records: sessions, prepared transactions.
pub(crate) const SYSTEM_NAME: &str = "\0system";

/// Room for the record that a commit of other keyspaces adds to the hidden one.
const SYSTEM_RECORD_BYTES: usize = 512;

/// Whether a keyspace name is the engine's own. Such keyspaces are not shown, and no user may ask for one.
pub(crate) fn is_reserved(name: &str) -> bool {
    name.starts_with('\0')
}

/// A keyspace of an open database.
#[derive(Debug)]
pub(crate) struct KeyspaceCore {
    /// Number in the log and the manifest.
    pub(crate) id: KeyspaceId,
    /// Name.
    pub(crate) name: String,
    /// Stored settings.
    pub(crate) options: KeyspaceOptions,
    /// How its tables are built.
    pub(crate) table_options: TableOptions,
    /// How its tree is kept.
    pub(crate) shape: Shape,
    /// Bytes at which its memtable is frozen.
    pub(crate) write_buffer_bytes: usize,
    /// Whether it is one of the engine's own.
    pub(crate) is_hidden: bool,
    dropped: AtomicBool,
    view: EpochCell<View>,
}

/// What a reader of a keyspace sees, newest first: the filling memtable, the full ones, the tables.
#[derive(Debug)]
pub(crate) struct View {
    /// Takes new entries.
    pub(crate) active: Arc<ActiveMemtable>,
    /// Waiting to be flushed, newest first.
    pub(crate) frozen: Vec<Arc<Frozen>>,
    /// Tables.
    pub(crate) tree: Arc<Tree>,
}

/// A memtable that takes no more entries.
#[derive(Debug)]
pub(crate) struct Frozen {
    /// The entries.
    pub(crate) memtable: Memtable,
    /// Every entry of this keyspace up to this sequence number is in this memtable, an older one or a table.
    pub(crate) last_seq: SeqNo,
    /// Oldest log segment that holds an entry of it, if any was logged.
    pub(crate) first_segment: Option<SegmentNo>,
}

impl KeyspaceCore {
    /// A keyspace with this view, whose memtables are frozen at so many bytes.
    pub(crate) fn new(
        id: KeyspaceId,
        name: String,
        options: KeyspaceOptions,
        write_buffer_bytes: usize,
        view: View,
    ) -> KeyspaceCore {
        KeyspaceCore {
            id,
            is_hidden: is_reserved(&name),
            name,
            table_options: options.table_options(),
            shape: options.shape(),
            options,
            write_buffer_bytes,
            dropped: AtomicBool::new(false),
            view: EpochCell::new(Arc::new(view)),
        }
    }

    /// Whether an entry's bytes are copied for the memtable. A record of the engine's own comes with the data of
    /// others in its batch; it must not keep all of that in memory, nor be charged for it.
    #[inline]
    pub(crate) fn copies_entries(&self, batch_keyspaces: usize) -> bool {
        self.is_hidden && batch_keyspaces > 1
    }

    /// Room that a batch over so many keyspaces needs in the memtable.
    #[inline]
    pub(crate) fn needed_bytes(&self, batch_bytes: usize, batch_keyspaces: usize) -> usize {
        if self.copies_entries(batch_keyspaces) { SYSTEM_RECORD_BYTES.min(batch_bytes) } else { batch_bytes }
    }

    /// What a reader sees now.
    #[inline]
    pub(crate) fn view(&self) -> Arc<View> {
        self.view.load()
    }

    /// Replaces what readers see. Called under the engine state lock only.
    pub(crate) fn set_view_locked(&self, view: View) {
        self.view.store(Arc::new(view));
    }

    /// Lets go of the data of a dropped keyspace; those who hold a view keep it.
    pub(crate) fn forget_data(&self) {
        self.view.store(Arc::new(View::empty()));
    }

    /// Marks it dropped.
    pub(crate) fn mark_dropped(&self) {
        self.dropped.store(true, Ordering::Release);
    }

    /// Whether it was dropped.
    pub(crate) fn is_dropped(&self) -> bool {
        self.dropped.load(Ordering::Acquire)
    }

    /// An error if it was dropped.
    #[inline]
    pub(crate) fn check_exists(&self) -> Result<()> {
        if self.is_dropped() { Err(self.gone()) } else { Ok(()) }
    }

    /// The error of using a dropped keyspace.
    pub(crate) fn gone(&self) -> Error {
        Error::new(ErrorKind::NotFound, format!("keyspace {:?} was dropped", self.name))
    }
}

impl View {
    /// A view of nothing.
    pub(crate) fn empty() -> View {
        let active = Arc::new(ActiveMemtable::new(0));
        View { active, frozen: Vec::new(), tree: Arc::new(Tree::default()) }
    }

    /// Bytes of the memtables that wait for a flush.
    pub(crate) fn frozen_bytes(&self) -> u64 {
        self.frozen.iter().fold(0u64, |sum, frozen| sum.saturating_add(frozen.memtable.bytes() as u64))
    }
}
