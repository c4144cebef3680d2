//! Framing of records in a file: bytes in, records out. Shared by the log and the manifest.
//!
//! A file is a 64-byte [`FileHeader`] and then records. The layout follows LevelDB's log format (blocks of 32 KiB
//! that no fragment crosses, so that a reader can find its feet again) with two additions: checksums are seeded
//! with the place of the bytes (database, file, offset), so that stale or misplaced bytes never pass, and every
//! fragment says up to where the file was durable when it was built, as in Pebble's log. The latter is what tells
//! damage from a torn tail: see [`Reader`].
//!
//! Pure: does no I/O, knows nothing of what payloads mean.

mod frame;
mod header;
mod reader;
#[cfg(test)]
mod tests;

pub(crate) use frame::{BLOCK_BYTES, RecordKind, RecordMeta, encode, encoded_len};
#[cfg(test)]
pub(crate) use header::FORMAT_VERSION;
pub(crate) use header::{FILE_HEADER_BYTES, FileHeader};
pub(crate) use reader::{Reader, Record, Tail, used_len};
