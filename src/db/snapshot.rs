//! `Snapshot`: reads of all keyspaces as of one moment.

use super::Keyspace;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::slice::Slice;
use crate::engine::{Bounds, Cursor, Iter, PinKind, Registration, VersionedStore};
use std::fmt;
use std::ops::RangeBounds;

/// The state of the database at one moment, across all keyspaces. Reads like the database.
///
/// Keeps the versions it sees from being dropped: let go of it when done.
///
/// ```
/// # fn main() -> esker::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = esker::Db::open(dir.path())?;
/// db.put("k", "old")?;
/// let snapshot = db.snapshot();
/// db.put("k", "new")?;
/// assert_eq!(snapshot.get("k")?.unwrap(), "old");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Snapshot {
    pub(super) default: Keyspace,
    pub(super) registration: Registration,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("seq", &self.seq()).finish_non_exhaustive()
    }
}

impl Snapshot {
    /// Sequence number of the newest commit it sees.
    pub fn seq(&self) -> u64 {
        self.registration.seq()
    }

    /// The value of a key in the default keyspace.
    ///
    /// # Errors
    /// See [`Db::get`](crate::Db::get).
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        self.get_in(&self.default, key)
    }

    /// The value of a key.
    ///
    /// # Errors
    /// See [`Db::get`](crate::Db::get); `SnapshotTooOld` when it was given up for its age ([`Options::max_snapshot_age`](crate::Options::max_snapshot_age)), as from
    /// every other read; `InvalidArgument` for a keyspace of another database.
    pub fn get_in(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        self.check(keyspace)?;
        keyspace
            .core()
            .timed_get(|| keyspace.core().read_at(&keyspace.keyspace, key.as_ref(), &self.registration))
    }

    /// The values of several keys of the default keyspace.
    ///
    /// # Errors
    /// See [`Db::get`](crate::Db::get).
    pub fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Slice>>> {
        self.multi_get_in(&self.default, keys)
    }

    /// The values of several keys.
    ///
    /// # Errors
    /// See [`get_in`](Snapshot::get_in).
    pub fn multi_get_in<K: AsRef<[u8]>>(
        &self,
        keyspace: &Keyspace,
        keys: &[K],
    ) -> Result<Vec<Option<Slice>>> {
        self.check(keyspace)?;
        keyspace.multi_get_at(keys, &self.registration)
    }

    /// All entries of the default keyspace in key order.
    pub fn iter(&self) -> Iter {
        self.iter_over(&self.default, Bounds::default())
    }

    /// All entries of a keyspace in key order.
    pub fn iter_in(&self, keyspace: &Keyspace) -> Iter {
        self.iter_over(keyspace, Bounds::default())
    }

    /// The entries of the default keyspace whose keys lie in a range.
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Iter {
        self.iter_over(&self.default, Bounds::range(&range))
    }

    /// The entries of a keyspace whose keys lie in a range.
    pub fn range_in<K: AsRef<[u8]>>(&self, keyspace: &Keyspace, range: impl RangeBounds<K>) -> Iter {
        self.iter_over(keyspace, Bounds::range(&range))
    }

    /// The entries of the default keyspace whose keys start with these bytes.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Iter {
        self.iter_over(&self.default, Bounds::prefix(prefix.as_ref()))
    }

    /// The entries of a keyspace whose keys start with these bytes.
    pub fn prefix_in(&self, keyspace: &Keyspace, prefix: impl AsRef<[u8]>) -> Iter {
        self.iter_over(keyspace, Bounds::prefix(prefix.as_ref()))
    }

    /// A cursor over the default keyspace.
    ///
    /// # Errors
    /// `Closed`.
    pub fn cursor(&self) -> Result<Cursor> {
        self.cursor_in(&self.default)
    }

    /// A cursor over a keyspace.
    ///
    /// # Errors
    /// `Closed`, `NotFound`, `InvalidArgument` for a keyspace of another database.
    pub fn cursor_in(&self, keyspace: &Keyspace) -> Result<Cursor> {
        self.check(keyspace)?;
        keyspace.core().cursor_at(
            &keyspace.keyspace,
            self.registration.fork(PinKind::Iterator),
            Bounds::default(),
        )
    }

    fn iter_over(&self, keyspace: &Keyspace, bounds: Bounds) -> Iter {
        let cursor = self.check(keyspace).and_then(|()| {
            let reader = self.registration.fork(PinKind::Iterator);
            keyspace.core().cursor_at(&keyspace.keyspace, reader, bounds)
        });
        Iter::new(cursor)
    }

    fn check(&self, keyspace: &Keyspace) -> Result<()> {
        if keyspace.belongs_to(&self.default.handle) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::InvalidArgument, "the keyspace belongs to another database"))
    }
}
