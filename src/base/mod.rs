//! The vocabulary every other module speaks: ids, keys, coding, checksums, errors, locks with ranks.
//!
//! Rank 0: uses nothing of this crate. No I/O, no threads, no options.

pub(crate) mod checksum;
pub(crate) mod coding;
pub(crate) mod conflict;
pub(crate) mod deadlock;
pub(crate) mod error;
pub(crate) mod fields;
pub(crate) mod hash;
pub(crate) mod iter;
pub(crate) mod key;
pub(crate) mod metrics;
#[cfg(test)]
pub(crate) mod model;
pub(crate) mod random;
pub(crate) mod slice;
pub(crate) mod sync;
pub(crate) mod types;
