//! The command line: RocksDB's `db_bench` flag names, checked before anything is touched.
//!
//! Flags are written `--num=1000` or `--num 1000`; switches `--sync`, `--sync=true`, `--sync=0`; of a flag given twice
//! the last counts, as in RocksDB's. Counts take decimal suffixes (`10M` keys), bytes binary ones (`64M`, `1GiB`). What
//! a flag means to the engine is decided in `store.rs`, not here.

use crate::benchmarks::{self, Benchmark, Specs};
use crate::keys::KeyShape;
use crate::values::{SizeDistribution, ValueSizes};
use anyhow::{Result, anyhow, bail};
use clap::builder::BoolishValueParser;
use clap::{ArgAction, Parser, ValueEnum};
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};

/// Benchmarks run when none are named: every kind of work once, a minute or two for a million keys on two slow cores.
pub const DEFAULT_BENCHMARKS: &str = "fillseq,fillsync,fillbatch,fill100K,fillrandom,overwrite,waitforcompaction,\
readrandom,readmissing,readhot,multireadrandom,seekrandom,readseq,readreverse,readwhilewriting,updaterandom,\
readrandomwriterandom,deleterandom,filluniquerandom,waitforcompaction,ycsba,ycsbb,ycsbc,ycsbd,ycsbe,ycsbf,compact";

const EXAMPLES: &str = "\
Examples:
  db_bench
      every kind of work once, in a temporary directory
  db_bench --benchmarks=fillrandom,readrandom --num=10000000 --histogram
      two benchmarks with latency percentiles
  db_bench --benchmarks=fillsync --num=1000000 --threads=16
      16 threads, 1000 durable writes each
  db_bench --benchmarks=overwrite[X5],waitforcompaction --db=/data/bench --use_existing_db
      five runs against a kept database, with average, spread and median
  db_bench --benchmarks=fillseq,readwhilewriting --duration=60 --benchmark_write_rate_limit=10M --report=run.html
      a minute of reads beside 10 MiB/s of writes, with charts, after filling at that rate
  db_bench --key_shape=user --key_size=32 --value_size_distribution=uniform --value_size_max=4096
      keys with long shared prefixes, values of 100 to 4096 bytes

Numbers may end in K, M, G or T: powers of 1000 where keys or operations are counted, of 1024 where bytes are.
Results go to standard output, everything else to standard error.";

/// Measures the esker storage engine with the workloads, flags and output format of RocksDB's db_bench.
#[derive(Debug, Clone, Parser, Serialize)]
#[command(
    name = "db_bench",
    version,
    rename_all = "snake_case",
    args_override_self = true,
    after_help = "--help lists every benchmark, with examples.",
    after_long_help = format!("{}\n{EXAMPLES}", benchmarks::help_text())
)]
pub struct Args {
    /// Benchmarks to run, in order, separated by commas [default: every kind of work once, listed below].
    /// `name[X3]` runs one three times and prints average and median, `name[X3-W1]` after one warm-up
    #[arg(long, default_value = DEFAULT_BENCHMARKS, hide_default_value = true)]
    #[arg(help_heading = "What to run", value_name = "LIST")]
    pub benchmarks: Specs,

    /// Keys in the database; also operations per thread unless --reads or --writes says otherwise
    #[arg(long, value_name = "N", default_value = "1000000", value_parser = parse_count)]
    #[arg(help_heading = "What to run")]
    pub num: u64,

    /// Read operations per thread, -1 for --num
    #[arg(long, value_name = "N", default_value = "-1", value_parser = parse_count_or_none)]
    #[arg(allow_negative_numbers = true, help_heading = "What to run")]
    pub reads: i64,

    /// Write operations per thread, -1 for --num
    #[arg(long, value_name = "N", default_value = "-1", value_parser = parse_count_or_none)]
    #[arg(allow_negative_numbers = true, help_heading = "What to run")]
    pub writes: i64,

    /// Threads; each does the full number of operations, as in RocksDB's db_bench
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "What to run")]
    pub threads: usize,

    /// Seconds after which benchmarks in random order stop, whatever their number of operations; 0 counts
    /// operations instead
    #[arg(long, default_value = "0", value_parser = parse_count)]
    #[arg(value_name = "SECONDS", help_heading = "What to run")]
    pub duration: u64,

    /// Seed of every random choice; 0 takes one from the clock
    #[arg(long, value_name = "N", default_value = "1", value_parser = parse_count, help_heading = "What to run")]
    pub seed: u64,

    /// Directory of the database, kept afterwards [default: a temporary directory, removed at the end]. One that
    /// holds a database already is refused unless one of the next two flags says what is to become of it
    #[arg(long, value_name = "DIR", help_heading = "What to run")]
    pub db: Option<PathBuf>,

    /// Run against the database that --db names instead of a new one; benchmarks that need a new one are skipped
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true")]
    #[arg(require_equals = true)]
    #[arg(value_name = "BOOL", action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    #[arg(help_heading = "What to run")]
    pub use_existing_db: bool,

    /// DELETE the database that --db names, with everything in it, and start with a new one
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true")]
    #[arg(require_equals = true)]
    #[arg(value_name = "BOOL", action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    #[arg(help_heading = "What to run")]
    pub destroy_existing_db: bool,

    /// Bytes of a key [default: 16, or 24 with --key_shape=user]
    #[arg(long, value_name = "BYTES", help_heading = "Keys and values")]
    pub key_size: Option<usize>,

    /// How keys look
    #[arg(long, value_name = "SHAPE", value_enum, default_value_t = KeyShape::Int)]
    #[arg(help_heading = "Keys and values")]
    pub key_shape: KeyShape,

    /// Bytes of a value [default: 100]
    #[arg(long, value_parser = parse_size, value_name = "BYTES", help_heading = "Keys and values")]
    pub value_size: Option<usize>,

    /// How value sizes spread: all --value_size, or between --value_size_min and --value_size_max
    #[arg(long, value_name = "KIND", alias = "value_size_distribution_type", value_enum)]
    #[arg(default_value_t = SizeDistribution::Fixed)]
    #[arg(help_heading = "Keys and values")]
    pub value_size_distribution: SizeDistribution,

    /// Smallest value of the uniform and normal distributions [default: 100]
    #[arg(long, value_parser = parse_size, value_name = "BYTES", help_heading = "Keys and values")]
    pub value_size_min: Option<usize>,

    /// Largest value of the uniform and normal distributions [default: 102400]
    #[arg(long, value_parser = parse_size, value_name = "BYTES", help_heading = "Keys and values")]
    pub value_size_max: Option<usize>,

    /// Compressed size of values as a fraction of their size, by construction
    #[arg(long, default_value_t = 0.5, value_name = "FRACTION", help_heading = "Keys and values")]
    pub compression_ratio: f64,

    /// Operations per write batch or multi-get [default: 1; fillbatch 1000, multireadrandom 100]
    #[arg(long, value_name = "N", value_parser = parse_count, help_heading = "Operations")]
    pub batch_size: Option<u64>,

    /// Every write is on the device when it returns; the same as --durability=disk
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true")]
    #[arg(require_equals = true)]
    #[arg(value_name = "BOOL", action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    #[arg(help_heading = "Operations")]
    pub sync: bool,

    /// What a write survives when it returns [default: os, or disk with --sync; the library's own default is disk]
    #[arg(long, value_name = "LEVEL", value_enum, help_heading = "Operations")]
    pub durability: Option<DurabilityArg>,

    /// Isolation level of the txn_ benchmarks
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = IsolationArg::Serializable)]
    #[arg(help_heading = "Operations")]
    pub isolation: IsolationArg,

    /// The txn_ benchmarks take no locks before the commit
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true")]
    #[arg(require_equals = true)]
    #[arg(value_name = "BOOL", action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    #[arg(help_heading = "Operations")]
    pub optimistic: bool,

    /// Entries read after each seek of seekrandom
    #[arg(long, value_name = "N", default_value = "0", value_parser = parse_count)]
    #[arg(help_heading = "Operations")]
    pub seek_nexts: u64,

    /// Reads among the operations of readrandomwriterandom, in percent
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(0..=100))]
    #[arg(value_name = "PERCENT", help_heading = "Operations")]
    pub readwritepercent: u32,

    /// Bytes a second that all writers together may write, 0 for no limit
    #[arg(long, default_value = "0", value_parser = parse_bytes, value_name = "BYTES")]
    #[arg(help_heading = "Operations")]
    pub benchmark_write_rate_limit: u64,

    /// Operations a second that all readers together may do, 0 for no limit
    #[arg(long, default_value = "0", value_parser = parse_count, value_name = "OPS")]
    #[arg(help_heading = "Operations")]
    pub benchmark_read_rate_limit: u64,

    /// Compression of blocks
    #[arg(long, value_name = "KIND", value_enum, default_value_t = CompressionArg::Lz4)]
    #[arg(help_heading = "Engine")]
    pub compression_type: CompressionArg,

    /// Filter bits per key, 0 for no filter [default: 10]
    #[arg(long, value_name = "BITS", help_heading = "Engine")]
    pub bloom_bits: Option<u32>,

    /// Kind of filter
    #[arg(long, value_name = "KIND", value_enum, default_value_t = FilterArg::Blocked)]
    #[arg(help_heading = "Engine")]
    pub filter: FilterArg,

    /// Uncompressed bytes of a block
    #[arg(long, default_value = "4096", value_parser = parse_size, value_name = "BYTES")]
    #[arg(help_heading = "Engine")]
    pub block_size: usize,

    /// Bytes of memory the engine may use in all [default: the engine's]
    #[arg(long, value_parser = parse_bytes, value_name = "BYTES", help_heading = "Engine")]
    pub memory_budget: Option<u64>,

    /// Bytes of the block cache [default: the engine's, from its memory budget]
    #[arg(long, value_parser = parse_bytes, value_name = "BYTES", help_heading = "Engine")]
    pub cache_size: Option<u64>,

    /// Bytes of a memtable [default: the engine's, from its memory budget]
    #[arg(long, value_parser = parse_bytes, value_name = "BYTES", help_heading = "Engine")]
    pub write_buffer_size: Option<u64>,

    /// How tables are read
    #[arg(long, value_name = "MODE", value_enum, default_value_t = ReadModeArg::Mmap)]
    #[arg(help_heading = "Engine")]
    pub read_mode: ReadModeArg,

    /// Shape in which compaction keeps the tree
    #[arg(long, value_name = "STYLE", value_enum, default_value_t = CompactionArg::Lazy)]
    #[arg(help_heading = "Engine")]
    pub compaction_style: CompactionArg,

    /// Threads for flush and compaction [default: the engine's]
    #[arg(long, value_name = "THREADS", help_heading = "Engine")]
    pub background_threads: Option<usize>,

    /// Measure the latency of every operation and print its distribution
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true")]
    #[arg(require_equals = true)]
    #[arg(value_name = "BOOL", action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    #[arg(help_heading = "Output")]
    pub histogram: bool,

    /// Print the engine's statistics at the end
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true")]
    #[arg(require_equals = true)]
    #[arg(value_name = "BOOL", action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    #[arg(help_heading = "Output")]
    pub statistics: bool,

    /// Seconds between rows of --report_file, 0 for no such file
    #[arg(long, default_value = "0", value_parser = parse_count)]
    #[arg(value_name = "SECONDS", help_heading = "Output")]
    pub report_interval_seconds: u64,

    /// Where --report_interval_seconds writes throughput over time (CSV: secs_elapsed,interval_qps) [default:
    /// report.csv]
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub report_file: Option<PathBuf>,

    /// Write machine, settings and results, with percentiles and throughput over time, as JSON
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub json: Option<PathBuf>,

    /// Write a page of charts and results (one HTML file that loads nothing else)
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub report: Option<PathBuf>,

    /// Show progress on standard error when that is a terminal
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true")]
    #[arg(require_equals = true)]
    #[arg(value_name = "BOOL", action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    #[arg(help_heading = "Output")]
    pub progress: bool,
}

impl Args {
    /// What the parser cannot see: flags that contradict each other or the shape of keys.
    pub fn check(&self) -> Result<()> {
        if self.threads == 0 || self.num == 0 {
            bail!("--threads and --num must be at least 1");
        }
        if self.batch_size == Some(0) {
            bail!("--batch_size must be at least 1");
        }
        if self.sync && self.durability.is_some_and(|durability| durability != DurabilityArg::Disk) {
            bail!("--sync asks for --durability=disk, and --durability says otherwise: give one of them");
        }
        if !(self.compression_ratio > 0.0 && self.compression_ratio <= 1.0) {
            bail!("--compression_ratio must be above 0 and at most 1, is {}", self.compression_ratio);
        }
        self.check_database()?;
        self.check_unused()?;
        self.check_values()?;
        self.check_keys()
    }

    fn check_database(&self) -> Result<()> {
        if self.db.is_none() && (self.use_existing_db || self.destroy_existing_db) {
            bail!("--use_existing_db and --destroy_existing_db need --db to name the database");
        }
        if self.use_existing_db && self.destroy_existing_db {
            bail!(
                "--use_existing_db keeps the database and --destroy_existing_db deletes it: give one of them"
            );
        }
        match benchmarks::first_reader(&self.benchmarks, false)? {
            Some(reader) if !self.use_existing_db => Err(nothing_to_read(reader)),
            _ => Ok(()),
        }
    }

    /// A flag that would do nothing is a mistake, and worse than one that is refused: the numbers look right.
    fn check_unused(&self) -> Result<()> {
        let fixed = self.value_size_distribution == SizeDistribution::Fixed;
        if fixed && (self.value_size_min.is_some() || self.value_size_max.is_some()) {
            bail!("--value_size_min and --value_size_max need --value_size_distribution=uniform or normal");
        }
        if !fixed && self.value_size.is_some() {
            bail!(
                "--value_size is for --value_size_distribution=fixed; give --value_size_min and --value_size_max"
            );
        }
        if self.report_file.is_some() && self.report_interval_seconds == 0 {
            bail!("--report_file needs --report_interval_seconds, such as 1");
        }
        if self.filter == FilterArg::None && self.bloom_bits.is_some_and(|bits| bits > 0) {
            bail!("--bloom_bits needs a filter, and --filter=none asks for none: give one of them");
        }
        Ok(())
    }

    fn check_values(&self) -> Result<()> {
        match self.value_sizes() {
            ValueSizes::Uniform { min, max } | ValueSizes::Normal { min, max } if min > max => {
                bail!("--value_size_min {min} is above --value_size_max {max}")
            }
            _ => Ok(()),
        }
    }

    fn check_keys(&self) -> Result<()> {
        let (shape, size) = (self.key_shape, self.key_size());
        if size < shape.size_min() {
            bail!("--key_shape={shape} needs --key_size of at least {}, is {size}", shape.size_min());
        }
        if self.num > shape.ids_max(size) {
            bail!("keys of {size} bytes (--key_shape={shape}) cannot tell {} ids apart", self.num);
        }
        Ok(())
    }

    /// Bytes of a key.
    pub fn key_size(&self) -> usize {
        self.key_size.unwrap_or(self.key_shape.size_default())
    }

    /// What a write survives when it returns.
    pub fn durability(&self) -> DurabilityArg {
        let implied = if self.sync { DurabilityArg::Disk } else { DurabilityArg::Os };
        self.durability.unwrap_or(implied)
    }

    /// Sizes of the values.
    pub fn value_sizes(&self) -> ValueSizes {
        let (min, max) = (self.value_size_min.unwrap_or(100), self.value_size_max.unwrap_or(102_400));
        match self.value_size_distribution {
            SizeDistribution::Fixed => ValueSizes::Fixed(self.value_size.unwrap_or(100)),
            SizeDistribution::Uniform => ValueSizes::Uniform { min, max },
            SizeDistribution::Normal => ValueSizes::Normal { min, max },
        }
    }

    /// Filter bits per key.
    pub fn bloom_bits(&self) -> u32 {
        if self.filter == FilterArg::None { 0 } else { self.bloom_bits.unwrap_or(10) }
    }

    /// Where throughput over time is written as CSV.
    pub fn report_file(&self) -> &Path {
        self.report_file.as_deref().unwrap_or(Path::new("report.csv"))
    }

    /// Operations of a reading benchmark.
    pub fn reads(&self) -> u64 {
        u64::try_from(self.reads).unwrap_or(self.num)
    }

    /// Operations of a benchmark that reads and writes: the larger of --reads and --writes.
    pub fn reads_and_writes(&self) -> u64 {
        u64::try_from(self.reads.max(self.writes)).unwrap_or(self.num)
    }

    /// Whether anything asks for latencies; otherwise operations are only counted.
    pub fn wants_latency(&self) -> bool {
        self.histogram || self.json.is_some() || self.report.is_some()
    }

    /// Whether anything asks for throughput over time.
    pub fn wants_series(&self) -> bool {
        self.json.is_some() || self.report.is_some()
    }
}

macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$item_doc:meta])* $item:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
        #[serde(rename_all = "lowercase")]
        pub enum $name { $($(#[$item_doc])* $item),+ }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($name::$item => $text),+ })
            }
        }
    };
}

named! {
    /// What a write survives when it returns.
    DurabilityArg {
        /// A power cut: on the device when the write returns
        Disk = "disk",
        /// The process being killed: in the page cache
        Os = "os",
        /// Nothing: not logged
        Memory = "memory",
    }
}

named! {
    /// Isolation level of transactions.
    IsolationArg {
        /// Sees what others have not committed
        #[value(alias = "ru")]
        ReadUncommitted = "read-uncommitted",
        /// Each read sees what is committed
        #[value(alias = "rc")]
        ReadCommitted = "read-committed",
        /// All reads see one state
        #[value(alias = "rr")]
        RepeatableRead = "repeatable-read",
        /// As if one after the other
        #[value(alias = "ser")]
        Serializable = "serializable",
    }
}

named! {
    /// Compression of blocks.
    CompressionArg {
        /// Stored as they are
        None = "none",
        /// LZ4
        Lz4 = "lz4",
    }
}

named! {
    /// Kind of filter.
    FilterArg {
        /// Bloom filter in cache lines: one cache miss per check
        Blocked = "blocked",
        /// Classic Bloom filter
        Standard = "standard",
        /// No filter
        None = "none",
    }
}

named! {
    /// How tables are read.
    ReadModeArg {
        /// Through a memory map
        Mmap = "mmap",
        /// By system calls
        Pread = "pread",
    }
}

named! {
    /// Shape in which compaction keeps the tree.
    CompactionArg {
        /// Several runs in upper levels, one in the last
        Lazy = "lazy",
        /// One run per level
        Leveled = "leveled",
        /// Several runs per level
        Tiered = "tiered",
        /// No merging
        Fifo = "fifo",
    }
}

/// The refusal of a benchmark that would measure an empty database.
pub fn nothing_to_read(reader: &Benchmark) -> anyhow::Error {
    let name = reader.name;
    anyhow!(
        "{name} reads, and the database is empty: put a benchmark that fills it before, such as \
         --benchmarks=fillrandom,{name}, or name a full one with --db and --use_existing_db"
    )
}

const NOT_A_COUNT: &str = "expected a whole number, optionally with K, M, G or T (powers of 1000)";
const NOT_BYTES: &str = "expected a whole number of bytes, optionally with K, M, G or T (powers of 1024)";

/// How many of something: `10M` is ten million.
pub fn parse_count(text: &str) -> Result<u64, String> {
    let (number, suffix) = split_number(text).ok_or(NOT_A_COUNT)?;
    let power = power(&suffix).ok_or(NOT_A_COUNT)?;
    number.checked_mul(1000u64.pow(power)).ok_or_else(|| "too large".to_string())
}

/// The same, or -1 for what another flag says.
pub fn parse_count_or_none(text: &str) -> Result<i64, String> {
    match text {
        "-1" => Ok(-1),
        _ => i64::try_from(parse_count(text)?).map_err(|_| "too large".to_string()),
    }
}

/// A number of bytes: `64M`, `64MB` and `64MiB` are the same.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let (number, suffix) = split_number(text).ok_or(NOT_BYTES)?;
    let unit = suffix.strip_suffix("ib").filter(|unit| !unit.is_empty());
    let unit = unit.or(suffix.strip_suffix('b')).unwrap_or(&suffix);
    let power = power(unit).ok_or(NOT_BYTES)?;
    number.checked_mul(1 << (10 * power)).ok_or_else(|| "too large".to_string())
}

/// Digits and what follows them in small letters. A number beyond 64 bits is no number.
fn split_number(text: &str) -> Option<(u64, String)> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()?;
    Some((number, text[digits.len()..].trim().to_ascii_lowercase()))
}

fn power(suffix: &str) -> Option<u32> {
    ["", "k", "m", "g", "t"].iter().position(|unit| *unit == suffix).map(|power| power as u32)
}

/// The same for sizes of things held in memory.
pub fn parse_size(text: &str) -> Result<usize, String> {
    let count = parse_bytes(text)?;
    // One key or value; the engine's own limits are lower still for keys.
    if count > 1 << 30 {
        return Err("must be at most 1 GiB".to_string());
    }
    Ok(count as usize)
}

#[cfg(test)]
mod tests;
