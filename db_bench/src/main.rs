//! `db_bench`: measures the esker storage engine with the workloads, flags and output of RocksDB's db_bench.

mod args;
mod benchmarks;
mod interrupt;
mod keys;
mod limiter;
mod machine;
mod output;
mod runner;
mod sampler;
mod session;
mod stats;
mod store;
mod values;
mod workloads;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match session::run(args::Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            interrupt::end_if_interrupted();
            eprintln!("db_bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
