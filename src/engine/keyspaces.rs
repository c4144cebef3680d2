//! Keyspaces at run time: create, find, drop, list. Each change is durable in both manifest copies before it is seen.

use super::core::{Core, Retry};
use super::keyspace::{KeyspaceCore, SYSTEM_NAME, is_reserved};
use super::open::new_keyspace;
use super::options::{KeyspaceOptions, reserved, validate_keyspace};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::types::KeyspaceId;
use crate::manifest::{Edit, EditOp};
use std::sync::Arc;

impl Core {
    /// The keyspace of this name, created with these options if it does not exist.
    pub(crate) fn keyspace_or_create(
        &self,
        name: &str,
        options: &KeyspaceOptions,
    ) -> Result<Arc<KeyspaceCore>> {
        self.health.check_open()?;
        if let Some(found) = self.find_keyspace(name) {
            return Ok(found);
        }
        validate_keyspace(name, options)?;
        self.announced(self.create(name, options))
    }

    /// The hidden keyspace of the engine's own records: sessions, prepared transactions. `None` while there is none and
    /// none is to be created. It is never dropped.
    pub(crate) fn system_keyspace(&self, create: bool) -> Result<Option<Arc<KeyspaceCore>>> {
        self.health.check_open()?;
        let found = self.keyspace_named(SYSTEM_NAME);
        if found.is_some() || !create {
            return Ok(found);
        }
        self.announced(self.create(SYSTEM_NAME, &KeyspaceOptions::default())).map(Some)
    }

    fn create(&self, name: &str, options: &KeyspaceOptions) -> Result<Arc<KeyspaceCore>> {
        self.health.check_writable()?;
        let mut commit = self.commit.lock();
        let mut manifest = self.manifest.lock();
        self.health.check_writable()?;
        if let Some(found) = self.keyspace_named(name) {
            return Ok(found);
        }
        let id = KeyspaceId(manifest.version.next_keyspace);
        self.append_edit_locked(&mut manifest, &Edit(vec![options.creation(id, name)]))?;
        let tree = super::flush::tree_of(&manifest.version, id)?;
        let (core, active) = new_keyspace(id, name, options.clone(), &self.options, Vec::new(), tree);
        commit.active.insert(id, active);
        self.state.lock().keyspaces.insert(id, Arc::clone(&core));
        Ok(core)
    }

    /// A keyspace by number, the engine's own included.
    pub(crate) fn keyspace_by_id(&self, id: KeyspaceId) -> Option<Arc<KeyspaceCore>> {
        self.state.lock().keyspaces.get(&id).cloned()
    }

    /// Drops a keyspace with all its data, if `admit` lets it; what that answers is kept until it is done.
    pub(crate) fn drop_keyspace<G>(
        &self,
        name: &str,
        admit: impl FnOnce(KeyspaceId) -> Result<G>,
    ) -> Result<()> {
        if is_reserved(name) {
            return Err(Error::new(ErrorKind::InvalidArgument, reserved(name)));
        }
        self.announced(self.remove_keyspace(name, admit))
    }

    fn remove_keyspace<G>(&self, name: &str, admit: impl FnOnce(KeyspaceId) -> Result<G>) -> Result<()> {
        self.health.check_writable()?;
        let keyspace = self
            .find_keyspace(name)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no keyspace {name:?}")))?;
        if keyspace.id == KeyspaceId::DEFAULT {
            return Err(Error::new(ErrorKind::InvalidArgument, "the default keyspace cannot be dropped"));
        }
        let _admitted = admit(keyspace.id)?;
        {
            let mut commit = self.commit.lock();
            let mut manifest = self.manifest.lock();
            self.health.check_writable()?;
            if !manifest.version.keyspaces.contains_key(&keyspace.id) {
                return Err(keyspace.gone());
            }
            self.append_edit_locked(&mut manifest, &Edit(vec![EditOp::DropKeyspace { id: keyspace.id }]))?;
            keyspace.mark_dropped();
            commit.active.remove(&keyspace.id);
            let mut state = self.state.lock();
            state.keyspaces.remove(&keyspace.id);
            // What failed may have been work on this keyspace; what is left is worth a try.
            state.flush_retry = Retry::default();
            state.compaction_retry = Retry::default();
            self.update_stall_locked(&state);
            self.progress.notify_all();
            self.work.notify_all();
        }
        let view = keyspace.view();
        let tables: Vec<_> = view.tree.tables().cloned().collect();
        self.garbage.add_memtables(view.frozen.clone());
        drop(view);
        keyspace.forget_data();
        self.garbage.add_tables(self, tables.into_iter());
        self.signal_work();
        Ok(())
    }

    /// All keyspaces but the engine's own, in order of creation.
    pub(crate) fn shown_keyspaces(&self) -> Vec<Arc<KeyspaceCore>> {
        self.state.lock().keyspaces.values().filter(|keyspace| !keyspace.is_hidden).cloned().collect()
    }

    /// Names of all keyspaces but the engine's own, sorted.
    pub(crate) fn keyspace_names(&self) -> Vec<String> {
        let mut names: Vec<_> =
            self.shown_keyspaces().into_iter().map(|keyspace| keyspace.name.clone()).collect();
        names.sort();
        names
    }
}
