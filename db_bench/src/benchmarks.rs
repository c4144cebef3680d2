//! The catalogue of benchmarks: one row each, with what it does to the database and to the settings.

use crate::args::{DEFAULT_BENCHMARKS, DurabilityArg};
use crate::runner::{Plan, Worker};
use crate::stats::Totals;
use crate::values::ValueSizes;
use crate::workloads::{maintenance, mixed, read, scan, txn, write, ycsb};
use anyhow::{Result, anyhow, bail};
use serde::{Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// What a benchmark wants to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// An empty database, made anew.
    Fresh,
    /// Whatever is there.
    Any,
    /// Data: refused when there never was any.
    Data,
    /// All keys: they are loaded first when the database is empty.
    Loaded,
}

/// Who does the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crew {
    /// `--threads` of the same kind.
    Threads,
    /// The same and one writer more, which is not measured.
    ThreadsAndWriter,
    /// One thread, whatever `--threads` says.
    One,
    /// One thread that prints instead of being measured.
    Printer,
}

/// One benchmark.
pub struct Benchmark {
    /// Its name on the command line.
    pub name: &'static str,
    /// One line for `--help`.
    pub summary: &'static str,
    /// What it wants to find.
    pub needs: Needs,
    /// Who does it.
    pub crew: Crew,
    /// What it changes in the settings.
    pub tune: fn(&mut Plan),
    /// What each thread does.
    pub run: fn(&mut Worker<'_>) -> Result<()>,
    /// The remark at the end of its result line.
    pub remark: fn(&Totals) -> String,
}

fn as_set(_: &mut Plan) {}

fn thousandth(plan: &mut Plan) {
    plan.num = (plan.num / 1000).max(1);
    plan.writes = plan.writes_asked.unwrap_or(plan.num);
}

fn durable_thousandth(plan: &mut Plan) {
    thousandth(plan);
    plan.durability = DurabilityArg::Disk;
}

fn large_thousandth(plan: &mut Plan) {
    thousandth(plan);
    plan.value_sizes = ValueSizes::Fixed(LARGE_VALUE_BYTES);
}

fn large_batches(plan: &mut Plan) {
    plan.batch = plan.batch_asked.unwrap_or(1000);
}

fn read_batches(plan: &mut Plan) {
    plan.batch = plan.batch_asked.unwrap_or(100);
}

/// Longer than any key there is, so that no filter, block or range can hold it.
fn longer_keys(plan: &mut Plan) {
    plan.key_size += 1;
}

/// Bytes of a value of fill100K.
pub const LARGE_VALUE_BYTES: usize = 100 * 1000;

/// The load that the ycsb benchmarks do first on an empty database.
pub const LOAD: &str = "filluniquerandom";

use Crew::{One, Printer, Threads, ThreadsAndWriter};
use Needs::{Any, Data, Fresh, Loaded};

#[rustfmt::skip]
static BENCHMARKS: &[Benchmark] = &[
    row("fillseq", Fresh, Threads, as_set, write::sequential, Totals::silent, "write keys in order"),
    row("fillrandom", Fresh, Threads, as_set, write::random, Totals::silent, "write keys in random order, some of them more than once, some never"),
    row("filluniquerandom", Fresh, Threads, as_set, write::unique, Totals::silent, "write every key once in random order, shared out among the threads"),
    row("overwrite", Any, Threads, as_set, write::random, Totals::silent, "write keys in random order over what is there"),
    row("fillsync", Fresh, Threads, durable_thousandth, write::random, Totals::silent, "write num/1000 keys in random order, each on the device before the next"),
    row("fillbatch", Fresh, Threads, large_batches, write::sequential, Totals::silent, "write keys in order in batches of 1000, or --batch_size"),
    row("fill100K", Fresh, Threads, large_thousandth, write::random, Totals::silent, "write num/1000 values of 100,000 bytes in random order"),
    row("deleteseq", Any, Threads, as_set, write::delete_sequential, Totals::silent, "delete keys in order"),
    row("deleterandom", Any, Threads, as_set, write::delete_random, Totals::silent, "delete keys in random order"),
    row("readseq", Data, Threads, as_set, scan::forward, Totals::silent, "read in order from the first key"),
    row("readreverse", Data, Threads, as_set, scan::backward, Totals::silent, "read in reverse order from the last key"),
    row("readrandom", Data, Threads, as_set, read::random, Totals::found, "read keys in random order"),
    row("readmissing", Data, Threads, longer_keys, read::random, Totals::found, "read keys that do not exist (longer by a byte)"),
    row("readhot", Data, Threads, as_set, read::hot, Totals::found, "read keys of the first 1 % in random order"),
    row("multireadrandom", Data, Threads, read_batches, read::multi, Totals::found, "read 100 random keys at once, or --batch_size"),
    row("seekrandom", Data, Threads, as_set, scan::seek_random, Totals::found, "seek to random keys, then read --seek_nexts entries"),
    row("readwhilewriting", Data, ThreadsAndWriter, as_set, mixed::read_while_writing, Totals::found, "readrandom beside one thread that overwrites (--benchmark_write_rate_limit), which is not counted"),
    row("updaterandom", Data, Threads, as_set, mixed::update_random, Totals::updates, "read a random key, then write it"),
    row("readrandomwriterandom", Data, Threads, as_set, mixed::read_random_write_random, Totals::mixed, "read (--readwritepercent) or write random keys"),
    row("ycsba", Loaded, Threads, as_set, ycsb::a, Totals::ycsb, "YCSB A: 50 % reads, 50 % updates, Zipfian"),
    row("ycsbb", Loaded, Threads, as_set, ycsb::b, Totals::ycsb, "YCSB B: 95 % reads, 5 % updates, Zipfian"),
    row("ycsbc", Loaded, Threads, as_set, ycsb::c, Totals::ycsb, "YCSB C: reads only, Zipfian"),
    row("ycsbd", Loaded, Threads, as_set, ycsb::d, Totals::ycsb, "YCSB D: 95 % reads of the latest, 5 % inserts"),
    row("ycsbe", Loaded, Threads, as_set, ycsb::e, Totals::ycsb, "YCSB E: 95 % scans of 1 to 100 entries, 5 % inserts, Zipfian"),
    row("ycsbf", Loaded, Threads, as_set, ycsb::f, Totals::ycsb, "YCSB F: 50 % reads, 50 % reads followed by a write, Zipfian"),
    row("txn_put", Any, Threads, as_set, txn::put, Totals::transactions, "write random keys, each in a transaction (--isolation, --optimistic)"),
    row("txn_readwrite", Any, Threads, as_set, txn::read_write, Totals::transactions, "transactions that read two random keys and write two others"),
    row("txn_transfer", Any, Threads, as_set, txn::transfer, Totals::transactions, "transactions that move money between two random accounts, after TPC-B"),
    row("txn_hot", Any, Threads, as_set, txn::hot, Totals::transactions, "txn_readwrite among 100 keys"),
    row("flush", Any, One, as_set, maintenance::flush, Totals::silent, "write the memtables to tables"),
    row("compact", Any, One, as_set, maintenance::compact, Totals::silent, "compact the whole key range"),
    row("waitforcompaction", Any, One, as_set, maintenance::wait, Totals::silent, "wait until flush and compaction have nothing left to do"),
    row("verify", Any, One, as_set, maintenance::verify, Totals::note, "read and check every block of every table"),
    row("stats", Any, Printer, as_set, maintenance::print_stats, Totals::silent, "print the engine's statistics"),
];

const fn row(
    name: &'static str,
    needs: Needs,
    crew: Crew,
    tune: fn(&mut Plan),
    run: fn(&mut Worker<'_>) -> Result<()>,
    remark: fn(&Totals) -> String,
    summary: &'static str,
) -> Benchmark {
    Benchmark { name, summary, needs, crew, tune, run, remark }
}

/// The benchmark of this name; an error names the nearest one.
pub fn find(name: &str) -> Result<&'static Benchmark> {
    if let Some(benchmark) = BENCHMARKS.iter().find(|benchmark| benchmark.name == name) {
        return Ok(benchmark);
    }
    let distance = |candidate: &&Benchmark| strsim::damerau_levenshtein(candidate.name, name);
    let nearest = BENCHMARKS.iter().min_by_key(distance);
    match nearest.filter(|nearest| distance(nearest) <= 1 + name.len() / 3) {
        Some(nearest) => Err(anyhow!("unknown benchmark '{name}'; did you mean '{}'?", nearest.name)),
        None => Err(anyhow!("unknown benchmark '{name}'; --help lists them all")),
    }
}

/// The benchmark that comes before any that could have written something, if it needs data. With `existing` those that
/// need a new database are skipped.
pub fn first_reader(specs: &Specs, existing: bool) -> Result<Option<&'static Benchmark>> {
    for spec in &specs.0 {
        let benchmark = find(&spec.name)?;
        if matches!(benchmark.crew, One | Printer) || (existing && benchmark.needs == Fresh) {
            continue;
        }
        return Ok((benchmark.needs == Data).then_some(benchmark));
    }
    Ok(None)
}

/// The list for `--help`.
pub fn help_text() -> String {
    let mut text = String::from("Benchmarks (\"fresh\" ones start with a new database):\n");
    for benchmark in BENCHMARKS {
        let fresh = if benchmark.needs == Fresh { "fresh: " } else { "" };
        text.push_str(&format!("  {:<22} {fresh}{}\n", benchmark.name, benchmark.summary));
    }
    text.push_str(&format!("Run by default:\n  {}\n", DEFAULT_BENCHMARKS.replace(',', ", ")));
    text
}

/// A benchmark as named on the command line: `name`, `name[X3]`, `name[X3-W1]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Which one.
    pub name: String,
    /// Measured runs.
    pub repeats: u32,
    /// Runs before them whose results are dropped.
    pub warmups: u32,
}

impl FromStr for Spec {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Spec> {
        let (name, suffix) = match text.trim().split_once('[') {
            Some((name, rest)) => match rest.strip_suffix(']') {
                Some(suffix) => (name, suffix),
                None => bail!("'{text}' lacks a closing ']'"),
            },
            None => (text.trim(), ""),
        };
        find(name)?;
        let mut spec = Spec { name: name.to_string(), repeats: 1, warmups: 0 };
        for part in suffix.split('-').filter(|part| !part.is_empty()) {
            let number = |digits: &str| {
                digits.parse().map_err(|_| anyhow!("'{part}' in '{text}' is not X or W and a number"))
            };
            match (part.strip_prefix('X'), part.strip_prefix('W')) {
                (Some(digits), _) => spec.repeats = number(digits)?,
                (None, Some(digits)) => spec.warmups = number(digits)?,
                (None, None) => bail!("'{part}' in '{text}' is not X (repeat) or W (warm up) and a number"),
            }
        }
        if spec.repeats == 0 {
            bail!("'{text}' would not run at all");
        }
        Ok(spec)
    }
}

/// The benchmarks of `--benchmarks`. Not a list to the parser, which would add a second one to the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Specs(pub Vec<Spec>);

impl FromStr for Specs {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Specs> {
        Ok(Specs(text.split(',').map(str::parse).collect::<Result<_>>()?))
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match (self.repeats, self.warmups) {
            (1, 0) => Ok(()),
            (repeats, 0) => write!(f, "[X{repeats}]"),
            (repeats, warmups) => write!(f, "[X{repeats}-W{warmups}]"),
        }
    }
}

impl Serialize for Spec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Result<(&str, u32, u32), &str>) {
        let found = text.parse::<Spec>().map_err(|error| error.to_string());
        match (found, expect) {
            (Ok(spec), Ok((name, repeats, warmups))) => {
                assert_eq!((spec.name.as_str(), spec.repeats, spec.warmups), (name, repeats, warmups));
            }
            (Err(found), Err(expect)) => assert!(found.contains(expect), "{text}: {found}"),
            (found, expect) => panic!("{text}: found {found:?}, expected {expect:?}"),
        }
    }

    #[test]
    fn specs_are_read_with_their_suffixes() {
        check("fillseq", Ok(("fillseq", 1, 0)));
        check("readrandom[X3]", Ok(("readrandom", 3, 0)));
        check("readrandom[X10-W2]", Ok(("readrandom", 10, 2)));
        check("readrandom[X0]", Err("not run at all"));
        check("readrandom[X3", Err("closing"));
        check("readrandom[Y3]", Err("'Y3'"));
        check("readrandom[Xthree]", Err("'Xthree'"));
        check("fillsek", Err("did you mean 'fillseq'?"));
        check("filrandom", Err("did you mean 'fillrandom'?"));
        check("zzzzzzzzzz", Err("--help"));
    }

    #[test]
    fn a_benchmark_that_reads_what_nobody_wrote_is_found() {
        let check = |list: &str, existing: bool, expect: Option<&str>| {
            let found = first_reader(&list.parse().unwrap(), existing).unwrap();
            assert_eq!(found.map(|benchmark| benchmark.name), expect, "{list} {existing}");
        };
        check("readrandom", false, Some("readrandom"));
        check("stats,compact,readseq,fillseq", false, Some("readseq"));
        check("fillseq,readrandom", false, None);
        check("fillseq,readrandom", true, Some("readrandom"));
        check("overwrite,readrandom", true, None);
        check("ycsba,readrandom", false, None);
        check("stats,verify", false, None);
    }

    #[test]
    fn names_are_unique_and_the_load_and_the_defaults_exist() {
        let mut names: Vec<_> = BENCHMARKS.iter().map(|benchmark| benchmark.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), BENCHMARKS.len());
        assert!(find(LOAD).is_ok());
        for name in DEFAULT_BENCHMARKS.split(',') {
            assert!(find(name).is_ok(), "{name}");
        }
    }
}
