//! Errors: one type, few kinds chosen by what the caller can do, structured details inside. Plain data only.

use super::conflict::Conflict;
use super::deadlock::DeadlockReport;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Result of the library's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, by what the caller can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Another transaction changed what this one depends on. Roll back and try again.
    Conflict,
    /// This transaction was chosen as the victim of a deadlock. Roll back and try again.
    Deadlock,
    /// A lock was not granted in time. The operation did nothing and the transaction goes on: try the operation again,
    /// or roll back and try the whole again.
    LockTimeout,
    /// The transaction failed earlier (the cause says why) or expired: it can only be rolled back.
    TransactionFailed,
    /// The snapshot was given up to free space. Take a new one.
    SnapshotTooOld,
    /// The disk (or quota, or file size limit) is full: the write had no effect. Writes resume by themselves when
    /// there is space again.
    NoSpace,
    /// The engine could not accept the write within the stall timeout. Nothing was written; try again later.
    Stalled,
    /// Bytes on disk are not what was written. See [`Error::corruption`].
    Corruption,
    /// An earlier failure (a failed sync, a panic) stopped writes until the database is reopened.
    Poisoned,
    /// The commit was handed to the disk and the disk did not confirm it: after reopening it is there whole, or not
    /// at all.
    OutcomeUnknown,
    /// The database or its file system does not accept writes.
    ReadOnly,
    /// Another process (or another handle in this one) has the database open. Or the session is in use through another
    /// handle, or another thread is ending the prepared transaction.
    Locked,
    /// The directory holds something that is not a database of this engine. Nothing was touched.
    NotADatabase,
    /// The files were written by a later version. Nothing was touched.
    VersionUnsupported,
    /// An argument is not acceptable. Nothing was done.
    InvalidArgument,
    /// A documented limit would be exceeded. Nothing was done.
    LimitExceeded,
    /// The named thing (keyspace, session, prepared transaction) does not exist.
    NotFound,
    /// The operating system reported an error. See [`Error::io_fault`].
    Io,
    /// The database was closed.
    Closed,
    /// The program gave up: it returned [`Error::aborted`] from a transaction.
    Aborted,
}

/// Bytes on disk that are not what was written: where, what was expected, what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corruption {
    /// The damaged file.
    pub file: PathBuf,
    /// Offset of the damaged bytes in the file, if one place can be named.
    pub offset: Option<u64>,
    /// What a valid file would have there.
    pub expected: String,
    /// What is there.
    pub found: String,
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(offset) = self.offset {
            write!(f, " at offset {offset}")?;
        }
        write!(f, ": expected {}, found {}", self.expected, self.found)
    }
}

/// A failed call to the operating system.
#[derive(Debug, Clone)]
pub struct IoFault {
    /// What was being done, such as `sync` or `read`.
    pub operation: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// The system's error.
    pub error: Arc<io::Error>,
}

impl fmt::Display for IoFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.operation, self.path.display(), self.error)
    }
}

/// The error of every operation. [`kind`](Error::kind) says what can be done about it.
///
/// Cheap to clone: the first cause of a poisoned engine is handed to every later caller.
///
/// `Debug` reads like `Display` with the kind before it, because it is what a program shows whose `main` returns the
/// error; `{:#?}` shows the fields.
#[derive(Clone, thiserror::Error)]
#[error("{detail}")]
pub struct Error {
    kind: ErrorKind,
    detail: Arc<Detail>,
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return f.debug_struct("Error").field("kind", &self.kind).field("detail", &self.detail).finish();
        }
        match &*self.detail {
            // Its text begins with the kind.
            Detail::Corruption(damage) => write!(f, "{:?}: {damage}", self.kind),
            detail => write!(f, "{:?}: {detail}", self.kind),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Detail {
    #[error("{0}")]
    Message(String),
    #[error("corruption: {0}")]
    Corruption(Corruption),
    #[error("{0}")]
    Io(IoFault),
    #[error("{}", .0.summary())]
    Deadlock(DeadlockReport),
    #[error("{0}")]
    Conflict(Conflict),
    #[error("{message}: {cause}")]
    Caused { message: String, cause: Error },
}

impl Error {
    /// An error of this kind with a message.
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error { kind, detail: Arc::new(Detail::Message(message.into())) }
    }

    /// An error of this kind that another error led to.
    pub(crate) fn caused(kind: ErrorKind, message: impl Into<String>, cause: Error) -> Error {
        Error { kind, detail: Arc::new(Detail::Caused { message: message.into(), cause }) }
    }

    /// Damage at a place in a file.
    pub(crate) fn corrupt(
        file: &Path,
        offset: impl Into<Option<u64>>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Error {
        let damage = Corruption {
            file: file.to_path_buf(),
            offset: offset.into(),
            expected: expected.into(),
            found: found.into(),
        };
        Error { kind: ErrorKind::Corruption, detail: Arc::new(Detail::Corruption(damage)) }
    }

    /// Another transaction is in the way.
    pub(crate) fn conflicting(conflict: Conflict) -> Error {
        Error { kind: ErrorKind::Conflict, detail: Arc::new(Detail::Conflict(conflict)) }
    }

    /// The answer to the victim of a deadlock.
    pub(crate) fn deadlock_victim(report: DeadlockReport) -> Error {
        Error { kind: ErrorKind::Deadlock, detail: Arc::new(Detail::Deadlock(report)) }
    }

    /// A failed system call; full disks and read-only file systems get their own kinds.
    pub(crate) fn io(operation: &'static str, path: &Path, error: io::Error) -> Error {
        let kind = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                ErrorKind::NoSpace
            }
            io::ErrorKind::ReadOnlyFilesystem => ErrorKind::ReadOnly,
            _ => ErrorKind::Io,
        };
        let fault = IoFault { operation, path: path.to_path_buf(), error: Arc::new(error) };
        Error { kind, detail: Arc::new(Detail::Io(fault)) }
    }

    /// What to return from the body of [`Db::transact`](crate::Db::transact) to give up: the transaction is rolled back,
    /// not tried again, and this error is what `transact` answers.
    pub fn aborted(reason: impl Into<String>) -> Error {
        Error::new(ErrorKind::Aborted, reason)
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the same operation (for a transaction: the whole transaction) may succeed when tried again: `Conflict`,
    /// `Deadlock`, `LockTimeout`, `SnapshotTooOld`, `NoSpace`, `Stalled`, and `TransactionFailed` because of one of them.
    pub fn is_retryable(&self) -> bool {
        if let (ErrorKind::TransactionFailed, Detail::Caused { cause, .. }) = (self.kind, &*self.detail) {
            return cause.is_retryable();
        }
        matches!(
            self.kind,
            ErrorKind::Conflict
                | ErrorKind::Deadlock
                | ErrorKind::LockTimeout
                | ErrorKind::SnapshotTooOld
                | ErrorKind::NoSpace
                | ErrorKind::Stalled
        )
    }

    /// The place and nature of the damage, when there is damage.
    pub fn corruption(&self) -> Option<&Corruption> {
        match &*self.detail {
            Detail::Corruption(damage) => Some(damage),
            Detail::Caused { cause, .. } => cause.corruption(),
            _ => None,
        }
    }

    /// What a conflict is about.
    pub fn conflict(&self) -> Option<&Conflict> {
        match &*self.detail {
            Detail::Conflict(conflict) => Some(conflict),
            Detail::Caused { cause, .. } => cause.conflict(),
            _ => None,
        }
    }

    /// The cycle of transactions, when this one was chosen to break it.
    pub fn deadlock(&self) -> Option<&DeadlockReport> {
        match &*self.detail {
            Detail::Deadlock(report) => Some(report),
            Detail::Caused { cause, .. } => cause.deadlock(),
            _ => None,
        }
    }

    /// The failed system call, when there was one.
    pub fn io_fault(&self) -> Option<&IoFault> {
        match &*self.detail {
            Detail::Io(fault) => Some(fault),
            Detail::Caused { cause, .. } => cause.io_fault(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_corruption_names_file_offset_expected_and_found() {
        let error = Error::corrupt(Path::new("000007.sst"), 4096, "checksum 1", "checksum 2");
        assert_eq!(error.kind(), ErrorKind::Corruption);
        assert_eq!(
            error.to_string(),
            "corruption: 000007.sst at offset 4096: expected checksum 1, found checksum 2"
        );
        let wrapped = Error::caused(ErrorKind::Poisoned, "writes are stopped", error);
        assert_eq!(wrapped.corruption().unwrap().offset, Some(4096));
    }

    #[test]
    fn debug_is_the_kind_and_the_text() {
        let check = |error: &Error, expect: &str| assert_eq!(format!("{error:?}"), expect);
        let locked = Error::new(ErrorKind::Locked, "db is open already");
        check(&locked, "Locked: db is open already");
        let damage = Error::corrupt(Path::new("7.sst"), 4096, "checksum 1", "checksum 2");
        check(&damage, "Corruption: 7.sst at offset 4096: expected checksum 1, found checksum 2");
        let wrapped = Error::caused(ErrorKind::Poisoned, "writes are stopped", damage);
        check(
            &wrapped,
            "Poisoned: writes are stopped: corruption: 7.sst at offset 4096: expected checksum 1, found checksum 2",
        );
        let missing = Error::io("open", Path::new("x"), io::Error::other("gone"));
        check(&missing, "Io: open x: gone");
        assert_eq!(
            format!("{locked:#?}"),
            "Error {\n    kind: Locked,\n    detail: Message(\n        \"db is open already\",\n    ),\n}"
        );
    }

    #[test]
    fn a_full_disk_has_its_own_kind() {
        let full = io::Error::from_raw_os_error(28);
        assert_eq!(Error::io("write", Path::new("x"), full).kind(), ErrorKind::NoSpace);
        let broken = io::Error::from_raw_os_error(5);
        assert_eq!(Error::io("read", Path::new("x"), broken).kind(), ErrorKind::Io);
    }
}
