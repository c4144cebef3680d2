//! What a `Conflict` is about, as plain data.

use std::fmt;

/// Why a transaction cannot go on because of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConflictReason {
    /// It writes (or locks) a key that somebody changed after its snapshot.
    Write,
    /// Its commit would leave no order in which the transactions could have run one after the other.
    Serialization,
}

/// The details of an error of kind [`Conflict`](crate::ErrorKind::Conflict).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Conflict {
    /// Why.
    pub reason: ConflictReason,
    /// Number of the transaction that has to be rolled back.
    pub transaction: u64,
    /// Name of the keyspace, where one key is to blame.
    pub keyspace: Option<String>,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// More, for people.
    pub detail: String,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "transaction {}: {}", self.transaction, self.detail)?;
        if let Some(key) = &self.key {
            write!(f, " (key \"{}\"", key.escape_ascii())?;
            if let Some(keyspace) = &self.keyspace {
                write!(f, " of keyspace {keyspace:?}")?;
            }
            f.write_str(")")?;
        }
        f.write_str("; roll back and try again")
    }
}
