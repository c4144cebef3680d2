//! What the threads of each benchmark do. The catalogue in `benchmarks.rs` names these functions.

pub mod maintenance;
pub mod mixed;
pub mod read;
pub mod scan;
pub mod txn;
pub mod write;
pub mod ycsb;
