//! `Keyspace`: reads and writes of one keyspace.

use super::Handle;
use crate::base::error::Result;
use crate::base::slice::Slice;
use crate::engine::{
    Bounds, Core, Cursor, Iter, KeyspaceCore, KeyspaceOptions, PinKind, Registration, VersionedStore,
    WriteOptions,
};
use crate::wal::BatchBuilder;
use std::fmt;
use std::ops::RangeBounds;
use std::sync::Arc;

/// A keyspace: its own tree of tables and its own options, sharing the log and the commit order with the others.
///
/// Cheap to clone. See [`Db::keyspace`](crate::Db::keyspace).
#[derive(Clone)]
pub struct Keyspace {
    pub(super) handle: Arc<Handle>,
    pub(super) keyspace: Arc<KeyspaceCore>,
}

impl fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyspace").field("name", &self.name()).finish_non_exhaustive()
    }
}

impl Keyspace {
    /// Name.
    pub fn name(&self) -> &str {
        &self.keyspace.name
    }

    /// The options it was created with, which are in force whatever later opens ask for.
    pub fn options(&self) -> &KeyspaceOptions {
        &self.keyspace.options
    }

    pub(super) fn belongs_to(&self, handle: &Arc<Handle>) -> bool {
        Arc::ptr_eq(self.handle.core(), handle.core())
    }

    pub(crate) fn core_keyspace(&self) -> &Arc<KeyspaceCore> {
        &self.keyspace
    }

    #[inline]
    pub(super) fn core(&self) -> &Arc<Core> {
        self.handle.core()
    }

    /// The versioned store behind it.
    #[cfg(test)]
    pub(crate) fn store(&self) -> &impl VersionedStore {
        self.core()
    }

    fn register(&self) -> Registration {
        self.core().reader(PinKind::Iterator, None)
    }

    /// Sets a key. See [`Db::put`](crate::Db::put).
    ///
    /// # Errors
    /// See [`Db::put`](crate::Db::put); `NotFound` once the keyspace was dropped.
    #[inline]
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.put_with(key, value, WriteOptions::new())
    }

    /// Sets a key with options of this write.
    ///
    /// # Errors
    /// See [`put`](Keyspace::put).
    pub fn put_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: WriteOptions,
    ) -> Result<()> {
        let (key, value) = (key.as_ref(), value.as_ref());
        let id = self.keyspace.id;
        self.write_one(options, |batch| batch.put(id, key, value))
    }

    #[inline]
    fn write_one(
        &self,
        options: WriteOptions,
        fill: impl FnOnce(&mut BatchBuilder) -> Result<()>,
    ) -> Result<()> {
        self.keyspace.check_exists()?;
        let durability = self.core().durability(options.durability);
        self.handle.txns().write_one(self.keyspace.id, durability, options.lock_wait, fill).map(|_| ())
    }

    /// Removes a key, present or not.
    ///
    /// # Errors
    /// See [`put`](Keyspace::put).
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<()> {
        self.delete_with(key, WriteOptions::new())
    }

    /// Removes a key with options of this write.
    ///
    /// # Errors
    /// See [`put`](Keyspace::put).
    pub fn delete_with(&self, key: impl AsRef<[u8]>, options: WriteOptions) -> Result<()> {
        let key = key.as_ref();
        let id = self.keyspace.id;
        self.write_one(options, |batch| batch.delete(id, key))
    }

    /// The value of a key. See [`Db::get`](crate::Db::get).
    ///
    /// # Errors
    /// See [`Db::get`](crate::Db::get).
    #[inline]
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        self.core().timed_get(|| self.core().get(&self.keyspace, key.as_ref()))
    }

    /// Whether a key has a value.
    ///
    /// # Errors
    /// See [`Db::get`](crate::Db::get).
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.get(key)?.is_some())
    }

    /// The values of several keys, all as of one moment, in the order asked.
    ///
    /// # Errors
    /// See [`Db::get`](crate::Db::get).
    pub fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Slice>>> {
        let registration = self.register();
        self.multi_get_at(keys, &registration)
    }

    pub(super) fn multi_get_at<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        reader: &Registration,
    ) -> Result<Vec<Option<Slice>>> {
        self.core().stats.gets.add(keys.len() as u64);
        let view = self.keyspace.view();
        let get = |key: &K| self.core().get_in_view(&self.keyspace, &view, key.as_ref(), reader.seq());
        let values = keys.iter().map(get).collect::<Result<_>>()?;
        reader.check()?;
        Ok(values)
    }

    /// About how many bytes of tables a range of keys takes on disk. What is still in memory does not count.
    ///
    /// # Errors
    /// `Corruption`, `Io`, `Closed`, `NotFound` once the keyspace was dropped.
    pub fn approximate_bytes<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<u64> {
        self.core().approximate_bytes(&self.keyspace, &Bounds::range(&range))
    }

    /// All entries in key order.
    pub fn iter(&self) -> Iter {
        self.iter_over(Bounds::default())
    }

    /// The entries whose keys lie in a range.
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Iter {
        self.iter_over(Bounds::range(&range))
    }

    /// The entries whose keys start with these bytes.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Iter {
        self.iter_over(Bounds::prefix(prefix.as_ref()))
    }

    fn iter_over(&self, bounds: Bounds) -> Iter {
        Iter::new(self.core().cursor_at(&self.keyspace, self.register(), bounds))
    }

    /// A cursor that lends keys and values.
    ///
    /// # Errors
    /// `Closed`; `NotFound` once the keyspace was dropped.
    pub fn cursor(&self) -> Result<Cursor> {
        self.core().cursor_at(&self.keyspace, self.register(), Bounds::default())
    }

    /// Rewrites the keyspace's tables into one sorted run, dropping what no reader needs.
    ///
    /// # Errors
    /// See [`Db::compact`](crate::Db::compact).
    pub fn compact(&self) -> Result<()> {
        self.core().compact_range(&self.keyspace, None, None)
    }

    /// As [`compact`](Keyspace::compact) for the keys of a range.
    ///
    /// # Errors
    /// See [`Db::compact`](crate::Db::compact).
    pub fn compact_range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<()> {
        let bounds = Bounds::range(&range);
        self.core().compact_range(&self.keyspace, bounds.lower.as_deref(), bounds.upper.as_deref())
    }
}
