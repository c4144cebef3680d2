//! Sessions: a producer numbers its operations, and after a crash it is told up to which one they survived.
//!
//! The number (serial) of a session's last operation is a record of the system keyspace, written with the operation, in
//! its batch. So the record is exactly as old as the data: whatever a recovery shows of a session's operations, the
//! record says which they are. A session that is not open is a record and nothing else.
//!
//! A session's commits follow one another, in the order of their serials: each has its turn. Whoever wants one first
//! locks the session's record in the lock table of transactions ([`SessionCore::turn`]) and keeps it as long as the
//! locks of what it commits. So a commit that waits for its turn with locks in hand is a waiter like any other, also
//! in the search for deadlocks. Behind that lock the turn itself is only waited for until the one before has noted
//! its number.

use super::record::{SystemRecord, seal, unseal};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::fields::{DecodeError, FieldMap, put_number};
use crate::base::sync::{Condvar, Mutex, Rank};
use crate::base::types::{KeyspaceId, SeqNo};
use crate::engine::{Core, Durability, KeyspaceCore, VersionedStore};
use crate::wal::BatchBuilder;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Fields of a session's record. Never change the numbers.
const SERIAL: u64 = 1;
const COMMIT_TIME: u64 = 2;

/// What is stored of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SessionRecord {
    /// Serial number of its last operation.
    pub(super) serial: u64,
    /// When that was committed, in microseconds since 1970.
    pub(super) unix_micros: u64,
}

impl SessionRecord {
    pub(super) fn encode(self, key: &[u8]) -> Vec<u8> {
        seal(key, |out| {
            put_number(out, SERIAL, self.serial);
            put_number(out, COMMIT_TIME, self.unix_micros);
        })
    }

    pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<SessionRecord, DecodeError> {
        let fields = FieldMap::decode("session", COMMIT_TIME, unseal(key, value)?)?;
        let record =
            SessionRecord { serial: fields.number(SERIAL)?, unix_micros: fields.number(COMMIT_TIME)? };
        if record.serial == 0 {
            return Err(DecodeError::Malformed("serial number 0".to_string()));
        }
        Ok(record)
    }
}

/// A session as it is stored. See [`Db::sessions`](crate::Db::sessions).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionInfo {
    /// Name.
    pub name: String,
    /// Serial number of its last operation.
    pub serial: u64,
    /// When that was committed, by the system's clock.
    pub last_commit: SystemTime,
}

/// The sessions of a database that are open; of all others only their records exist.
#[derive(Debug)]
pub(crate) struct Sessions {
    open: Mutex<BTreeSet<Arc<str>>>,
}

/// The right to use a session, which only one can have; given back when dropped.
#[derive(Debug)]
struct Claim {
    sessions: Arc<Sessions>,
    name: Arc<str>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.sessions.open.lock().remove(&self.name);
    }
}

impl Sessions {
    /// None is open.
    pub(crate) fn new() -> Arc<Sessions> {
        Arc::new(Sessions { open: Mutex::new(Rank::Leaf, BTreeSet::new()) })
    }

    fn claim(self: &Arc<Self>, name: &str) -> Result<Claim> {
        SystemRecord::Session.check_name(name)?;
        let name: Arc<str> = Arc::from(name);
        if !self.open.lock().insert(Arc::clone(&name)) {
            return Err(Error::new(ErrorKind::Locked, format!("session {name:?} is in use")));
        }
        Ok(Claim { sessions: Arc::clone(self), name })
    }

    /// All sessions that have a record, in the order of their names.
    pub(crate) fn list(core: &Arc<Core>) -> Result<Vec<SessionInfo>> {
        let kind = SystemRecord::Session;
        let mut all = Vec::new();
        kind.for_each(core, |name, value| {
            let record =
                SessionRecord::decode(&kind.key(name), value).map_err(|why| kind.damaged(core, name, why))?;
            let last_commit = UNIX_EPOCH.checked_add(Duration::from_micros(record.unix_micros));
            all.push(SessionInfo {
                name: name.to_string(),
                serial: record.serial,
                last_commit: last_commit.unwrap_or(UNIX_EPOCH),
            });
            Ok(())
        })?;
        Ok(all)
    }

    /// Opens a session, new or not.
    pub(crate) fn open(self: &Arc<Self>, core: &Arc<Core>, name: &str) -> Result<SessionCore> {
        core.health.check_writable()?;
        let claim = self.claim(name)?;
        let key = SystemRecord::Session.key(name);
        let keyspace = core.system_keyspace(false)?;
        let serial = match &keyspace {
            Some(keyspace) => durable_serial(core, keyspace, name, &key)?,
            None => 0,
        };
        let state = State {
            serial,
            keyspace: keyspace.map(|keyspace| keyspace.id),
            is_committing: false,
            failure: None,
        };
        let state = Mutex::new(Rank::Leaf, state);
        Ok(SessionCore { claim, key, recovered_serial: serial, state, turn_ended: Condvar::default() })
    }

    /// Removes what is stored of a session. It is gone for good when this returns.
    pub(crate) fn forget(self: &Arc<Self>, core: &Arc<Core>, name: &str) -> Result<()> {
        core.health.check_writable()?;
        let claim = self.claim(name)?;
        let key = SystemRecord::Session.key(name);
        let found = match core.system_keyspace(false)? {
            Some(keyspace) => core.read_newest(&keyspace, &key)?.map(|_| keyspace),
            None => None,
        };
        let Some(keyspace) = found else {
            return Err(Error::new(ErrorKind::NotFound, format!("there is no session {name:?}")));
        };
        let mut batch = BatchBuilder::new();
        batch.delete(keyspace.id, &key)?;
        let forgotten = core.commit_batch(&batch.freeze(), batch.keyspaces(), Durability::Disk, &|_| Ok(()));
        drop(claim);
        forgotten.map(|_| ())
    }
}

/// The serial number that is stored, made durable first: a producer drops what it is told has survived.
fn durable_serial(core: &Arc<Core>, keyspace: &KeyspaceCore, name: &str, key: &[u8]) -> Result<u64> {
    let Some(value) = core.read_newest(keyspace, key)? else { return Ok(0) };
    let record =
        SessionRecord::decode(key, &value).map_err(|why| SystemRecord::Session.damaged(core, name, why))?;
    if core.changed_since(keyspace, key, core.pipeline.durable())? {
        core.sync()?;
    }
    Ok(record.serial)
}

/// An open session.
#[derive(Debug)]
pub(crate) struct SessionCore {
    claim: Claim,
    key: Vec<u8>,
    recovered_serial: u64,
    state: Mutex<State>,
    turn_ended: Condvar,
}

#[derive(Debug)]
struct State {
    /// Of the last operation that was committed.
    serial: u64,
    /// The system keyspace, once it is known to be there.
    keyspace: Option<KeyspaceId>,
    /// A commit has its turn.
    is_committing: bool,
    /// Why the serial number is not known any more.
    failure: Option<Error>,
}

/// What a commit of a session adds to its batch.
#[derive(Debug)]
pub(crate) struct Stamp<'a> {
    keyspace: KeyspaceId,
    key: &'a [u8],
    value: Vec<u8>,
}

impl Stamp<'_> {
    /// Adds the session's record to the batch that it is about.
    pub(crate) fn add(&self, batch: &mut BatchBuilder) -> Result<()> {
        batch.put(self.keyspace, self.key, &self.value)
    }
}

/// Where a session's commit stands: in the order of all commits, and among the session's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamped {
    pub(crate) seq: SeqNo,
    pub(crate) serial: u64,
}

impl SessionCore {
    /// Name.
    pub(crate) fn name(&self) -> &str {
        &self.claim.name
    }

    /// Serial number that was stored when the session was opened; 0 for a new one.
    pub(crate) fn recovered_serial(&self) -> u64 {
        self.recovered_serial
    }

    /// Serial number of the last operation that was committed.
    pub(crate) fn serial(&self) -> u64 {
        self.state.lock().serial
    }

    /// The record that a commit locks before it asks for its turn. Creates the system keyspace if need be.
    pub(crate) fn turn(&self, core: &Arc<Core>, durability: Durability) -> Result<(KeyspaceId, &[u8])> {
        check_durability(durability)?;
        let known = self.state.lock().keyspace;
        let keyspace = known.map_or_else(|| created(core), Ok)?;
        Ok((keyspace, &self.key))
    }

    /// Takes the next serial number for a commit that `commit` makes, with the stamp in its batch. The number is used
    /// up only if that succeeds. Other commits of the session wait meanwhile; no lock is held.
    pub(crate) fn commit_through(
        &self,
        core: &Arc<Core>,
        durability: Durability,
        commit: impl FnOnce(&Stamp<'_>) -> Result<SeqNo>,
    ) -> Result<Stamped> {
        check_durability(durability)?;
        let turn = self.take_turn()?;
        let keyspace = match turn.keyspace {
            Some(id) => id,
            None => created(core)?,
        };
        let record = SessionRecord { serial: turn.serial, unix_micros: core.env.clock.unix_micros() };
        let result = commit(&Stamp { keyspace, key: &self.key, value: record.encode(&self.key) });
        let mut state = self.state.lock();
        state.keyspace = Some(keyspace);
        match result {
            Ok(seq) => {
                state.serial = turn.serial;
                Ok(Stamped { seq, serial: turn.serial })
            }
            Err(error) => {
                // A commit that failed otherwise left nothing behind; but once writes are stopped nothing is sure.
                let is_unknown = error.kind() == ErrorKind::OutcomeUnknown;
                if is_unknown || core.health.is_poisoned() {
                    state.failure = Some(error.clone());
                }
                Err(error)
            }
        }
    }

    /// Waits until no other commit of the session is under way.
    fn take_turn(&self) -> Result<Turn<'_>> {
        let mut state = self.state.lock();
        while state.is_committing {
            self.turn_ended.wait(&mut state);
        }
        self.check_usable(&state)?;
        let serial = state.serial.checked_add(1).ok_or_else(|| {
            Error::new(ErrorKind::LimitExceeded, "all 2^64 serial numbers of the session are used up")
        })?;
        state.is_committing = true;
        Ok(Turn { session: self, serial, keyspace: state.keyspace })
    }

    fn check_usable(&self, state: &State) -> Result<()> {
        let Some(cause) = &state.failure else { return Ok(()) };
        Err(Error::caused(
            ErrorKind::Poisoned,
            format!(
                "session {:?} does not know whether its operation {} survived; open the database again",
                self.name(),
                state.serial.saturating_add(1)
            ),
            cause.clone(),
        ))
    }
}

/// The right to commit the operation with this serial number; given back when dropped.
struct Turn<'a> {
    session: &'a SessionCore,
    serial: u64,
    keyspace: Option<KeyspaceId>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.session.state.lock();
        state.is_committing = false;
        if std::thread::panicking() {
            state.failure = Some(Error::new(ErrorKind::OutcomeUnknown, "a commit of the session panicked"));
        }
        drop(state);
        self.session.turn_ended.notify_all();
    }
}

fn check_durability(durability: Durability) -> Result<()> {
    if durability != Durability::Memory {
        return Ok(());
    }
    let message =
        "a session's operations cannot have durability Memory: what survives would not be a prefix of them";
    Err(Error::new(ErrorKind::InvalidArgument, message))
}

/// The number of the system keyspace, created if need be.
fn created(core: &Arc<Core>) -> Result<KeyspaceId> {
    let keyspace = core.system_keyspace(true)?;
    keyspace
        .map(|keyspace| keyspace.id)
        .ok_or_else(|| Error::corrupt(&core.dir, None, "the system keyspace", "none"))
}

#[cfg(test)]
mod tests;
