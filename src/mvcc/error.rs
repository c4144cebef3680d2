//! The errors of transactions.

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
pub(super) fn serialization(danger: &super::ssi::Danger, id: TxnId) -> Error {
    Error::conflicting(Conflict {
        reason: ConflictReason::Serialization,
        transaction: id,
        keyspace: None,
        key: None,
        detail: danger.to_string(),
    })
}
