//! Transactions: four isolation levels over the engine's versioned store.
//!
//! Rank 5: uses the engine through its versioned store and knows nothing of logs, tables or compaction.

mod ssi;
