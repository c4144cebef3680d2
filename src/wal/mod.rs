//! The write-ahead log: what a commit looks like as bytes, the segments it is appended to, and reading them back.
//!
//! The log is a chain of segments. Each begins with a link, a record that names the segment before it, how long
//! that one is and the last sequence number in it. A segment is durable to its end before the link that names it is
//! written, so the chain has no hole: only the last segment can have a torn tail.
//!
//! [`Log`] appends and belongs under the commit lock; [`Segment::sync`] runs outside of it. [`replay`] reads and
//! never changes anything.
//!
//! Knows nothing of memtables, of the manifest, or of when a segment is no longer needed.

mod batch;
mod link;
mod log;
mod replay;
mod scan;
mod segment;
#[cfg(test)]
mod tests;

pub(crate) use batch::{BatchBuilder, BatchError, FrozenBatch, OpRef, ops};
pub(crate) use log::{Log, LogStart};
pub(crate) use replay::{Replay, replay, sync_segments};
pub(crate) use scan::{Payload, ReplayedBatch, Visit};
#[cfg(test)]
pub(crate) use segment::segment_path;
pub(crate) use segment::{LogOptions, Segment, parse_segment_name, prepare};
