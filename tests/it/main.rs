//! The integration tests: one binary, so that the library is linked once.
//!
//! Everything random prints its seed and takes it back from `ESKER_SEED`. How long the long ones run is set by the
//! variables named in CONTRIBUTING.md.
#![expect(clippy::disallowed_methods, reason = "tests look at the real system, past the library")]

mod crash;
mod damage;
mod deadlocks;
mod examples;
mod faults;
mod history;
mod kill;
mod leaks;
mod machine;
mod model;
mod process;
mod regressions;
mod scenarios;
mod sessions;
mod snapshots;
mod storm;
mod support;
mod surface;
mod transaction_crash;
mod transactions;
mod two_phase;
mod txn_regressions;
