//! Transactions above the engine.

mod locks;

pub use locks::{LockStats, VictimPolicy, WaitEdge, WaitGraph};
