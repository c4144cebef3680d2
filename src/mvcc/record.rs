//! Records of the hidden system keyspace: what the layer above the engine remembers across crashes, as data like any
//! other. They are logged, flushed, compacted and recovered with everything else, and a record that belongs to a commit
//! is one more put in its batch.
//!
//! ```text
//! key    = kind:u8 name
//! value  = version:u8 field* checksum:u64      field: see `base::fields`
//! ```
//!
//! The checksum is seeded with the key and covers all before it. Log and tables have checksums of their own; this one
//! says that the bytes are what this layer wrote for this name.
//!
//! Knows the form of records, not what is in them.

use crate::base::checksum::keyed;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::fields::DecodeError;
use crate::engine::{Bounds, Core, PinKind, VersionedStore};
use std::sync::Arc;

/// Version of the form. Never change what a version means.
const RECORD_VERSION: u8 = 1;

const CHECKSUM_BYTES: usize = 8;

/// Longest name of a record.
const NAME_BYTES_MAX: usize = 255;

/// What a record is about, the first byte of its key. Never change the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum SystemRecord {
    /// A prepared transaction; the name is its xid.
    Prepared = 112,
    /// A session, by its name.
    Session = 115,
}

impl SystemRecord {
    fn noun(self) -> &'static str {
        match self {
            SystemRecord::Prepared => "prepared transaction",
            SystemRecord::Session => "session",
        }
    }

    /// An error unless this can be the name of such a record.
    pub(super) fn check_name(self, name: &str) -> Result<()> {
        if (1..=NAME_BYTES_MAX).contains(&name.len()) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidArgument,
            format!(
                "the name of a {} has 1 to {NAME_BYTES_MAX} bytes, this one has {}",
                self.noun(),
                name.len()
            ),
        ))
    }

    /// The key of the record of this name.
    pub(super) fn key(self, name: &str) -> Vec<u8> {
        let mut key = Vec::with_capacity(name.len().saturating_add(1));
        key.push(self as u8);
        key.extend_from_slice(name.as_bytes());
        key
    }

    /// The error of a record that cannot be read.
    pub(super) fn damaged(self, core: &Core, name: &str, why: DecodeError) -> Error {
        let noun = self.noun();
        match why {
            DecodeError::Malformed(found) => {
                Error::corrupt(&core.dir, None, format!("the record of {noun} {name:?}"), found)
            }
            DecodeError::Unsupported(what) => Error::new(
                ErrorKind::VersionUnsupported,
                format!("the record of {noun} {name:?} was written by a later version: {what}"),
            ),
        }
    }

    /// Calls `visit` with name and value of every record of this kind, in the order of names, as of one moment.
    pub(super) fn for_each(
        self,
        core: &Arc<Core>,
        mut visit: impl FnMut(&str, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let Some(keyspace) = core.system_keyspace(false)? else { return Ok(()) };
        let bounds = Bounds::prefix(&[self as u8]);
        let mut cursor = core.cursor_at(&keyspace, core.reader(PinKind::Iterator, None), bounds)?;
        cursor.seek_to_first()?;
        while cursor.valid() {
            let name = cursor.key().get(1..).and_then(|name| std::str::from_utf8(name).ok());
            let Some(name) = name.filter(|name| self.check_name(name).is_ok()) else {
                let expected = format!("the name of a {}", self.noun());
                return Err(Error::corrupt(&core.dir, None, expected, format!("{:?}", cursor.key())));
            };
            visit(name, cursor.value())?;
            cursor.next()?;
        }
        Ok(())
    }
}

/// The value of the record with this key, whose fields `fill` writes.
pub(super) fn seal(key: &[u8], fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut value = Vec::with_capacity(32);
    value.push(RECORD_VERSION);
    fill(&mut value);
    let checksum = keyed(key, &value);
    value.extend_from_slice(&checksum.to_le_bytes());
    value
}

/// The fields of a record's value, when it is whole and of a known version.
pub(super) fn unseal<'a>(key: &[u8], value: &'a [u8]) -> Result<&'a [u8], DecodeError> {
    let malformed = |what: &str| DecodeError::Malformed(what.to_string());
    let Some((content, checksum)) = value.split_last_chunk::<CHECKSUM_BYTES>() else {
        return Err(malformed("fewer bytes than a checksum has"));
    };
    if keyed(key, content) != u64::from_le_bytes(*checksum) {
        return Err(malformed("bytes that do not match their checksum"));
    }
    match content.split_first() {
        Some((&RECORD_VERSION, fields)) => Ok(fields),
        Some((version, _)) => Err(DecodeError::Unsupported(format!("version {version}"))),
        None => Err(malformed("no version")),
    }
}
