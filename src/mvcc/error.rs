//! The errors of transactions.

use super::ssi::{Danger, Rule};
use super::txn::TxnId;
use crate::base::conflict::{Conflict, ConflictReason};
use crate::base::error::{Error, ErrorKind};
use crate::engine::KeyspaceCore;

/// A key was changed after the snapshot.
pub(super) fn conflict(reason: ConflictReason, keyspace: &KeyspaceCore, key: &[u8], id: TxnId) -> Error {
    Error::conflicting(Conflict {
        reason,
        transaction: id,
        keyspace: Some(keyspace.name.clone()),
        key: Some(key.to_vec()),
        detail: "it writes what another transaction changed after its snapshot".to_string(),
    })
}

/// What a transaction that failed answers from then on.
pub(super) fn transaction_failed(id: TxnId, cause: &Error) -> Error {
    let message = format!("transaction {id} failed earlier and can only be rolled back");
    Error::caused(ErrorKind::TransactionFailed, message, cause.clone())
}

/// It was open for too long.
pub(super) fn expired(id: TxnId) -> Error {
    let message =
        format!("transaction {id} was rolled back because it was open for longer than it asked for");
    Error::new(ErrorKind::TransactionFailed, message)
}

/// The commit would leave no serial order.
pub(super) fn serialization(danger: &Danger, id: TxnId) -> Error {
    let other = match danger.other {
        Some(other) => format!("transaction {other}"),
        None => "another commit".to_string(),
    };
    let detail = match danger.rule {
        Rule::Pivot => {
            format!("it overwrites what {other} has read, after reading what was overwritten since")
        }
        Rule::DeclaredReader => {
            "it has read what was overwritten since, and a read-only transaction may have seen \
                                 that and not its own writes"
                .to_string()
        }
        Rule::CommittedPivot => {
            format!("it has read what {other} overwrote, which itself had read what was overwritten")
        }
        Rule::PreparedReader => format!("it overwrites what {other}, which is prepared, has read"),
        Rule::PreparedWriter => format!("it has read what {other}, which is prepared, overwrites"),
        Rule::EdgeOfPrepared => format!("it was to be prepared and has read what {other} overwrote"),
    };
    Error::conflicting(Conflict {
        reason: ConflictReason::Serialization,
        transaction: id,
        keyspace: None,
        key: danger.key.as_ref().map(|(_, key)| key.to_vec()),
        detail,
    })
}
