//! The same transactions on esker, fjall and RocksDB, interleaved round by round in one process.
//!
//! Every step has a database of its own, filled before and checked after: `measure.rs`. What a transaction does is in
//! `workload.rs`, how an engine is called in a file of its own below `engine/`. The program must not favour anybody:
//! what an engine gets beyond the others is said in its `SETTING`, which is printed above the table.

mod data;
mod engine;
mod measure;
mod report;
#[cfg(test)]
mod tests;
mod workload;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use engine::{Product, Variant};
use measure::Step;
use report::Report;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;
use workload::Workload;

/// Measures transactions of esker beside those of fjall and (built with `--features rocksdb`) RocksDB.
#[derive(Debug, Parser)]
#[command(rename_all = "snake_case", args_override_self = true)]
struct Args {
    /// What transactions do [default: all]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LIST")]
    benchmarks: Vec<Workload>,

    /// Engines, or parts of their names in the table, as `esker` or `rocksdb serializable` [default: all that were
    /// built in]
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    engines: Vec<String>,

    /// Numbers of threads
    #[arg(long, value_delimiter = ',', value_name = "LIST", default_value = "1,2,4")]
    threads: Vec<usize>,

    /// Keys; few of them make conflicts
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    num: u64,

    /// Seconds of a step
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    seconds: f64,

    /// Rounds, each with every engine
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: u64,

    /// Bytes of a value where it is not a balance or a counter
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    value_size: usize,

    /// Seed of every random choice
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Directory in which the databases are made and removed [default: that of temporary files]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Args {
    fn check(&self) -> Result<()> {
        ensure!(self.num >= 8, "--num must be at least 8");
        ensure!(self.rounds > 0 && !self.threads.contains(&0), "--rounds and --threads must be at least 1");
        ensure!(self.seconds > 0.0 && self.seconds < 1e6, "--seconds must be above 0");
        Ok(())
    }

    fn benchmarks(&self) -> Vec<Workload> {
        if self.benchmarks.is_empty() { Workload::value_variants().to_vec() } else { self.benchmarks.clone() }
    }

    fn variants(&self) -> Result<Vec<Variant>> {
        let mut variants = Variant::all();
        let is_named = |name: &str| self.engines.iter().any(|part| name.contains(&part.to_lowercase()));
        variants.retain(|variant| self.engines.is_empty() || is_named(&variant.to_string().to_lowercase()));
        ensure!(!variants.is_empty(), "--engines names none of: {}", names(&Variant::all()));
        Ok(variants)
    }
}

fn names(variants: &[Variant]) -> String {
    variants.iter().map(Variant::to_string).collect::<Vec<_>>().join(", ")
}

fn print_header(args: &Args, variants: &[Variant]) {
    println!(
        "{} keys of {} bytes, values of {} (balances and counters: 8), {} s a step, {} rounds, seed {}.",
        args.num,
        data::KEY_BYTES,
        args.value_size,
        args.seconds,
        args.rounds,
        args.seed
    );
    println!(
        "All: {} MiB of memtable, {} MiB of block cache, blocks of {} bytes, LZ4 at every level, {} filter bits a key, \
         {} background threads, SSE 4.2 {}.",
        engine::WRITE_BUFFER_BYTES >> 20,
        engine::CACHE_BYTES >> 20,
        engine::BLOCK_BYTES,
        engine::FILTER_BITS,
        engine::BACKGROUND_THREADS,
        if cfg!(target_feature = "sse4.2") { "on" } else { "off (RocksDB's checksums are slow without)" },
    );
    let products: BTreeSet<Product> = variants.iter().map(|variant| variant.product).collect();
    products.iter().for_each(|product| println!("{}", product.setting()));
    println!();
}

fn main() -> Result<()> {
    let args = Args::parse();
    args.check()?;
    let mut variants = args.variants()?;
    let dir = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    print_header(&args, &variants);
    let mut report = Report::default();
    for workload in args.benchmarks() {
        for &threads in &args.threads {
            for round in 0..args.rounds {
                for &variant in &variants {
                    let step = Step {
                        workload,
                        threads,
                        num: args.num,
                        value_bytes: args.value_size,
                        duration: Duration::from_secs_f64(args.seconds),
                        seed: args.seed.wrapping_add(round),
                    };
                    let outcome = measure::run(step, variant, &dir)?;
                    eprintln!("{} {threads} {variant}: {:.0}/s", workload.name(), outcome.rate);
                    report.add(workload, threads, variant, outcome);
                }
                // The next round begins with another one.
                variants.rotate_left(1);
            }
        }
    }
    print!("{}", report.table());
    Ok(())
}
