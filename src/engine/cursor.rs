//! `Cursor`: the position of a reader in a keyspace, over one consistent state, movable both ways.
//!
//! Underneath is a merge of memtables and runs in internal-key order: of each user key the newest version comes
//! first. Going forward, the first version at or before the reader's sequence number decides and the rest is skipped.
//! Going backward the versions come oldest first, so the decision is the last one seen before the key changes.

use super::core::Core;
use super::keyspace::{KeyspaceCore, View};
use super::read::unknown_kind;
use super::run_iter::RunIter;
use super::snapshot::Registration;
use crate::base::error::{Error, Result};
use crate::base::iter::InternalIter;
use crate::base::key::{KeyRef, Trailer};
use crate::base::slice::Slice;
use crate::base::types::{EntryKind, SeqNo};
use crate::memtable::{MemIter, Memtable};
use crate::merge::Merge;
use crate::sstable::TableIterOptions;
use std::fmt;
use std::sync::Arc;

/// One sorted input of a merge.
#[expect(
    clippy::large_enum_variant,
    reason = "few of them, stepped through all the time: no pointer to follow"
)]
pub(crate) enum Source {
    /// A memtable.
    Memtable(MemIter),
    /// A run of tables.
    Run(RunIter),
}

macro_rules! each {
    ($self:expr, $iter:ident => $body:expr) => {
        match $self {
            Source::Memtable($iter) => $body,
            Source::Run($iter) => $body,
        }
    };
}

impl InternalIter for Source {
    #[inline]
    fn valid(&self) -> bool {
        each!(self, iter => iter.valid())
    }
    #[inline]
    fn key(&self) -> KeyRef<'_> {
        each!(self, iter => iter.key())
    }
    #[inline]
    fn value(&self) -> &[u8] {
        each!(self, iter => iter.value())
    }
    fn value_slice(&self) -> Slice {
        each!(self, iter => iter.value_slice())
    }
    fn seek(&mut self, target: KeyRef<'_>) -> Result<()> {
        each!(self, iter => iter.seek(target))
    }
    fn seek_for_prev(&mut self, target: KeyRef<'_>) -> Result<()> {
        each!(self, iter => iter.seek_for_prev(target))
    }
    fn seek_to_first(&mut self) -> Result<()> {
        each!(self, iter => iter.seek_to_first())
    }
    fn seek_to_last(&mut self) -> Result<()> {
        each!(self, iter => iter.seek_to_last())
    }
    #[inline]
    fn next(&mut self) -> Result<()> {
        each!(self, iter => iter.next())
    }
    #[inline]
    fn prev(&mut self) -> Result<()> {
        each!(self, iter => iter.prev())
    }
}

/// The range of keys that a cursor may stand on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bounds {
    /// First key inside; none: from the beginning.
    pub(crate) lower: Option<Vec<u8>>,
    /// First key outside; none: to the end.
    pub(crate) upper: Option<Vec<u8>>,
}

impl Bounds {
    fn is_below(&self, key: &[u8]) -> bool {
        self.lower.as_ref().is_some_and(|lower| key < lower.as_slice())
    }

    fn is_above(&self, key: &[u8]) -> bool {
        self.upper.as_ref().is_some_and(|upper| key >= upper.as_slice())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    /// On no entry.
    Nowhere,
    /// The merge stands on the current entry.
    Forward,
    /// The merge stands before all versions of the current entry, which is saved.
    Backward,
}

/// A position in a keyspace, over the state at the time the cursor was made.
///
/// A new cursor stands nowhere; a `seek` moves it. Entries written, flushed or compacted later do not change what it
/// sees. Keys and values are lent until the next move. Owned, `Send`, and independent of the handle it came from;
/// it pins the memory and files of the state it reads, so do not keep one for long.
///
/// ```
/// # fn main() -> esker::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = esker::Db::open(dir.path())?;
/// for key in ["a", "b", "c"] { db.put(key, "value")?; }
/// let mut cursor = db.cursor()?;
/// cursor.seek("b")?;
/// assert!(cursor.valid());
/// assert_eq!(cursor.key(), b"b");
/// cursor.prev()?;
/// assert_eq!(cursor.key(), b"a");
/// # Ok(()) }
/// ```
pub struct Cursor {
    merge: Merge<Source>,
    bounds: Bounds,
    seq: SeqNo,
    position: Position,
    /// User key of the current entry.
    saved_key: Vec<u8>,
    /// Value of the current entry when `position` is `Backward`.
    saved_value: Option<Slice>,
    /// Entries stepped over that no reader at `seq` sees, for statistics.
    skipped: u64,
    core: Arc<Core>,
    keyspace: Arc<KeyspaceCore>,
    registration: Registration,
    view: Arc<View>,
    /// Steps since the last look at the clock.
    steps: u32,
}

/// Steps of a cursor between two looks at the clock, where readers are given up for their age.
const STEPS_PER_LOOK: u32 = 64;

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cursor")
            .field("position", &self.position)
            .field("seq", &self.seq)
            .finish_non_exhaustive()
    }
}

impl Core {
    /// A cursor over a keyspace at a registered sequence number.
    pub(crate) fn cursor(
        self: &Arc<Self>,
        keyspace: &Arc<KeyspaceCore>,
        registration: Registration,
        bounds: Bounds,
    ) -> Result<Cursor> {
        keyspace.check_exists()?;
        self.health.check_open()?;
        // Registered first, then the view: the drop rules keep what the registration sees in every later view.
        let view = keyspace.view();
        registration.check()?;
        Ok(Cursor::new(Arc::clone(self), Arc::clone(keyspace), registration, view, bounds))
    }

    fn sources(&self, view: &View) -> Vec<Source> {
        let mut sources = Vec::with_capacity(view.frozen.len().saturating_add(4));
        if view.active.len() > 0 {
            sources.push(Source::Memtable(Memtable::List(Arc::clone(&view.active)).iter()));
        }
        for frozen in &view.frozen {
            sources.push(Source::Memtable(frozen.memtable.iter()));
        }
        let options = TableIterOptions { fill_cache: true, bypass: false };
        for level in &view.tree.levels {
            for run in &level.runs {
                sources.push(Source::Run(RunIter::new(Arc::clone(run), Arc::clone(&self.tables), options)));
            }
        }
        sources
    }
}

impl Cursor {
    fn new(
        core: Arc<Core>,
        keyspace: Arc<KeyspaceCore>,
        registration: Registration,
        view: Arc<View>,
        bounds: Bounds,
    ) -> Cursor {
        core.stats.cursors.add(1);
        Cursor {
            merge: Merge::new(core.sources(&view)),
            bounds,
            seq: registration.seq(),
            position: Position::Nowhere,
            saved_key: Vec::new(),
            saved_value: None,
            skipped: 0,
            core,
            keyspace,
            registration,
            view,
            steps: 0,
        }
    }

    /// A second cursor over the same state and range, standing nowhere.
    pub(crate) fn fork(&self) -> Cursor {
        Cursor::new(
            Arc::clone(&self.core),
            Arc::clone(&self.keyspace),
            self.registration.clone(),
            Arc::clone(&self.view),
            self.bounds.clone(),
        )
    }

    /// Whether the cursor stands on an entry.
    #[inline]
    pub fn valid(&self) -> bool {
        self.position != Position::Nowhere
    }

    /// Key of the current entry; empty when not valid.
    #[inline]
    pub fn key(&self) -> &[u8] {
        if self.valid() { &self.saved_key } else { b"" }
    }

    /// Value of the current entry; empty when not valid.
    #[inline]
    pub fn value(&self) -> &[u8] {
        match self.position {
            Position::Nowhere => b"",
            Position::Forward => self.merge.value(),
            Position::Backward => self.saved_value.as_deref().unwrap_or_default(),
        }
    }

    /// Value of the current entry, owned; shares memory with the cache where that is cheaper than a copy.
    pub fn value_slice(&self) -> Slice {
        match self.position {
            Position::Nowhere => Slice::copy_from(b""),
            Position::Forward => self.merge.value_slice(),
            Position::Backward => self.saved_value.clone().unwrap_or_else(|| Slice::copy_from(b"")),
        }
    }

    /// To the first entry.
    ///
    /// # Errors
    /// `Corruption`, `Io`, `SnapshotTooOld`; also of every other move. The cursor is not valid then.
    pub fn seek_to_first(&mut self) -> Result<()> {
        let sought = self.first();
        self.sought(sought)
    }

    fn first(&mut self) -> Result<()> {
        self.start()?;
        match self.bounds.lower.take() {
            Some(lower) => {
                let result = self.merge.seek(KeyRef::new(&lower, Trailer::FIRST));
                self.bounds.lower = Some(lower);
                result?;
            }
            None => self.merge.seek_to_first()?,
        }
        self.settle_forward(false)
    }

    /// To the last entry.
    pub fn seek_to_last(&mut self) -> Result<()> {
        let sought = self.last();
        self.sought(sought)
    }

    fn last(&mut self) -> Result<()> {
        self.start()?;
        match self.bounds.upper.take() {
            Some(upper) => {
                let result = self.merge.seek_for_prev(KeyRef::new(&upper, Trailer::FIRST));
                self.bounds.upper = Some(upper);
                result?;
            }
            None => self.merge.seek_to_last()?,
        }
        self.settle_backward()
    }

    /// To the first entry whose key is at or after this one.
    pub fn seek(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        let key = key.as_ref();
        if self.bounds.is_below(key) {
            return self.seek_to_first();
        }
        let sought = self.at_or_after(key);
        self.sought(sought)
    }

    fn at_or_after(&mut self, key: &[u8]) -> Result<()> {
        self.start()?;
        self.merge.seek(KeyRef::new(key, Trailer::search(self.seq)))?;
        self.settle_forward(false)
    }

    /// To the last entry whose key is at or before this one.
    pub fn seek_for_prev(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        let key = key.as_ref();
        if self.bounds.is_above(key) {
            return self.seek_to_last();
        }
        let sought = self.at_or_before(key);
        self.sought(sought)
    }

    fn at_or_before(&mut self, key: &[u8]) -> Result<()> {
        self.start()?;
        self.merge.seek_for_prev(KeyRef::new(key, Trailer::LAST))?;
        self.settle_backward()
    }

    /// To the entry after this one; nothing happens when not valid.
    #[expect(clippy::should_implement_trait, reason = "a cursor lends its entries; Iter is the iterator")]
    #[inline]
    pub fn next(&mut self) -> Result<()> {
        let stepped = self.forward();
        self.stepped(stepped)
    }

    #[inline]
    fn forward(&mut self) -> Result<()> {
        match self.position {
            Position::Nowhere => Ok(()),
            Position::Forward => {
                self.position = Position::Nowhere;
                self.merge.next()?;
                self.settle_forward(true)
            }
            Position::Backward => {
                self.position = Position::Nowhere;
                // The merge stands before the versions of the current key, or past the beginning.
                if self.merge.valid() {
                    self.merge.next()?;
                } else {
                    self.merge.seek(KeyRef::new(&self.saved_key, Trailer::FIRST))?;
                }
                self.settle_forward(true)
            }
        }
    }

    /// To the entry before this one; nothing happens when not valid.
    pub fn prev(&mut self) -> Result<()> {
        let stepped = self.backward();
        self.stepped(stepped)
    }

    fn backward(&mut self) -> Result<()> {
        if self.position == Position::Forward {
            // Step before all versions of the current key.
            self.position = Position::Nowhere;
            loop {
                self.merge.prev()?;
                if !self.merge.valid() || self.merge.key().user < self.saved_key.as_slice() {
                    break;
                }
            }
            return self.settle_backward();
        }
        if self.position == Position::Backward {
            return self.settle_backward();
        }
        Ok(())
    }

    /// After a seek: what it found counts if the reader was not given up meanwhile.
    fn sought(&mut self, found: Result<()>) -> Result<()> {
        self.steps = 0;
        match self.registration.check() {
            Ok(()) => found,
            Err(error) => Err(self.let_go(error)),
        }
    }

    /// As `sought` after a step, which looks at the clock only now and then.
    #[inline]
    fn stepped(&mut self, found: Result<()>) -> Result<()> {
        self.steps = self.steps.wrapping_add(1);
        if self.steps >= STEPS_PER_LOOK {
            return self.sought(found);
        }
        match self.registration.check_mark() {
            Ok(()) => found,
            Err(error) => Err(self.let_go(error)),
        }
    }

    /// Lets go of what a cursor that was given up still holds.
    #[cold]
    fn let_go(&mut self, error: Error) -> Error {
        self.position = Position::Nowhere;
        self.saved_value = None;
        self.merge = Merge::new(Vec::new());
        self.view = Arc::new(View::empty());
        error
    }

    fn start(&mut self) -> Result<()> {
        self.position = Position::Nowhere;
        self.saved_value = None;
        self.core.health.check_open()?;
        self.keyspace.check_exists()
    }

    /// From where the merge stands, forward to the first visible entry. With `skip_saved`, versions of the saved key
    /// are passed over.
    fn settle_forward(&mut self, skip_saved: bool) -> Result<()> {
        let mut skip = skip_saved;
        while self.merge.valid() {
            let KeyRef { user, trailer } = self.merge.key();
            let hidden = trailer.seq() > self.seq || (skip && user == self.saved_key.as_slice());
            if hidden {
                self.skipped = self.skipped.wrapping_add(1);
                self.merge.next()?;
                continue;
            }
            if self.bounds.is_above(user) {
                return Ok(());
            }
            self.saved_key.clear();
            self.saved_key.extend_from_slice(user);
            match trailer.kind() {
                Ok(EntryKind::Put) => {
                    self.position = Position::Forward;
                    return Ok(());
                }
                Ok(EntryKind::Delete) => {
                    skip = true;
                    self.merge.next()?;
                }
                Err(unknown) => return Err(unknown_kind(&self.core.dir, unknown)),
            }
        }
        Ok(())
    }

    /// From where the merge stands, backward to the last key with a visible value; ends before all its versions.
    fn settle_backward(&mut self) -> Result<()> {
        self.position = Position::Nowhere;
        self.saved_value = None;
        // Of the key whose versions are being passed, oldest first: the newest visible one so far.
        let mut found: Option<Option<Slice>> = None;
        while self.merge.valid() {
            let KeyRef { user, trailer } = self.merge.key();
            if found.is_some() && user != self.saved_key.as_slice() {
                if matches!(found, Some(Some(_))) {
                    break;
                }
                found = None;
            }
            if found.is_none() {
                if self.bounds.is_below(user) {
                    return Ok(());
                }
                if self.bounds.is_above(user) {
                    self.merge.prev()?;
                    continue;
                }
            }
            if trailer.seq() <= self.seq {
                let value = match trailer.kind() {
                    Ok(EntryKind::Put) => Some(self.merge.value_slice()),
                    Ok(EntryKind::Delete) => None,
                    Err(unknown) => return Err(unknown_kind(&self.core.dir, unknown)),
                };
                if found.is_none() {
                    self.saved_key.clear();
                    self.saved_key.extend_from_slice(user);
                }
                found = Some(value);
            } else {
                self.skipped = self.skipped.wrapping_add(1);
            }
            self.merge.prev()?;
        }
        if let Some(Some(value)) = found {
            self.saved_value = Some(value);
            self.position = Position::Backward;
        }
        Ok(())
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.core.stats.entries_skipped.add(self.skipped);
        self.core.reader_gone();
    }
}
