//! The life of one invocation: the database's directory, the benchmarks in order, and the results at the end.

use crate::args::{Args, nothing_to_read};
use crate::benchmarks::{self, Benchmark, Crew, LARGE_VALUE_BYTES, LOAD, Needs, Spec};
use crate::interrupt;
use crate::machine::{Machine, Usage, unix_seconds};
use crate::output::{self, header, html, json, line, table};
use crate::runner::{Bench, Outcome};
use crate::sampler::CsvReport;
use crate::store::{self, EngineStats, InForce, Store};
use crate::values::ValuePool;
use anyhow::{Context, Result};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use tempfile::TempDir;

/// One measured run of one benchmark.
pub struct RunResult {
    /// Name of the benchmark.
    pub name: &'static str,
    /// What was measured.
    pub outcome: Outcome,
    /// The remark of its result line.
    pub remark: String,
    /// What the process used meanwhile.
    pub usage: Usage,
    /// Whether it was one call, of which only the time says something.
    pub is_single: bool,
    /// Which run of how many of the same, from 1.
    pub repetition: (u32, u32),
}

/// Everything that was found out, for the reports.
pub struct Report<'a> {
    pub args: &'a Args,
    pub machine: Machine,
    pub in_force: InForce,
    pub started_unix_seconds: u64,
    pub db_path: PathBuf,
    pub file_system: String,
    pub results: Vec<RunResult>,
    /// The engine's own figures at the end.
    pub engine: EngineStats,
}

/// Runs what the command line asks for.
pub fn run(mut args: Args) -> Result<()> {
    args.check()?;
    if args.seed == 0 {
        args.seed = unix_seconds();
    }
    let args = &args;
    store::check_options(args)?;
    let directory = Directory::new(args)?;
    // A path that cannot be written is better known now than in an hour.
    let json_file = args.json.as_deref().map(create).transpose()?;
    let html_file = args.report.as_deref().map(create).transpose()?;
    let mut session = Session::start(args, directory.path())?;
    let mut report = Report {
        args,
        machine: Machine::here(),
        in_force: session.store()?.in_force(),
        started_unix_seconds: unix_seconds(),
        db_path: directory.path().to_path_buf(),
        file_system: crate::machine::file_system(directory.path()),
        results: Vec::new(),
        engine: EngineStats::default(),
    };
    output::print(&header::text(&report))?;
    for spec in &args.benchmarks.0 {
        session.run(spec, &mut report.results)?;
    }
    report.engine = session.store()?.stats();
    session.finish()?;
    if report.results.len() > 1 {
        output::print(&format!("\n{}", table::text(&report.results)))?;
    }
    if args.statistics {
        output::print(&format!("STATISTICS:\n{}\n", report.engine.text.trim_end()))?;
    }
    if let Some((path, file)) = json_file {
        json::write(&report, file).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some((path, file)) = html_file {
        output::write_all(file, &html::page(&report)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    directory.remove()
}

fn create(path: &Path) -> Result<(PathBuf, File)> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    Ok((path.to_path_buf(), file))
}

/// Where the database lives.
enum Directory {
    Temporary(TempDir),
    Kept(PathBuf),
}

impl Directory {
    /// Refuses a directory that holds something, unless that is what was asked for.
    fn new(args: &Args) -> Result<Directory> {
        match &args.db {
            Some(path) => {
                if !args.use_existing_db && !args.destroy_existing_db {
                    store::check_vacant(path)?;
                }
                Ok(Directory::Kept(path.clone()))
            }
            None => {
                let dir = tempfile::Builder::new().prefix("db_bench-").tempdir();
                let dir = dir.context("cannot create a temporary directory; give one with --db")?;
                interrupt::remove_when_interrupted(dir.path().to_path_buf())?;
                Ok(Directory::Temporary(dir))
            }
        }
    }

    fn path(&self) -> &Path {
        match self {
            Directory::Temporary(dir) => dir.path(),
            Directory::Kept(path) => path,
        }
    }

    fn remove(self) -> Result<()> {
        match self {
            Directory::Temporary(dir) => dir.close().context("cannot remove the temporary directory"),
            Directory::Kept(_) => Ok(()),
        }
    }
}

/// The database and what runs share.
struct Session<'a> {
    bench: Bench<'a>,
    path: &'a Path,
    store: Option<Store>,
}

impl<'a> Session<'a> {
    fn start(args: &'a Args, path: &'a Path) -> Result<Session<'a>> {
        let csv = match args.report_interval_seconds {
            0 => None,
            seconds => Some(CsvReport::create(args.report_file(), seconds)?),
        };
        if args.destroy_existing_db {
            store::destroy(path)?;
        }
        let value_bytes_max = args.value_sizes().max().max(LARGE_VALUE_BYTES);
        let bench = Bench {
            args,
            pool: ValuePool::new(args.compression_ratio, value_bytes_max, args.seed),
            csv,
            next_seed: args.seed,
            keys: AtomicU64::new(args.num),
        };
        let session = Session { bench, path, store: Some(Store::open(args, path)?) };
        // Deletions may leave a database empty that a benchmark then reads: only one that is empty from the start is a
        // mistake.
        match benchmarks::first_reader(&args.benchmarks, args.use_existing_db)? {
            Some(reader) if session.store()?.is_empty()? => Err(nothing_to_read(reader)),
            _ => Ok(session),
        }
    }

    fn store(&self) -> Result<&Store> {
        self.store.as_ref().context("the database is closed")
    }

    /// All runs of one benchmark; its results are printed and added to `results`.
    fn run(&mut self, spec: &Spec, results: &mut Vec<RunResult>) -> Result<()> {
        let benchmark = benchmarks::find(&spec.name)?;
        if benchmark.needs == Needs::Fresh && self.bench.args.use_existing_db {
            return output::print(&format!("{:<12} : skipped (--use_existing_db is true)\n", benchmark.name));
        }
        for _ in 0..spec.warmups {
            self.run_once(benchmark, (1, 1))?;
        }
        let first = results.len();
        for repetition in 1..=spec.repeats {
            let Some(result) = self.run_once(benchmark, (repetition, spec.repeats))? else { continue };
            output::print(&line::result(&result))?;
            if self.bench.args.histogram {
                output::print(&line::histograms(&result))?;
            }
            results.push(result);
        }
        output::print(&line::combined(benchmark.name, &results[first..]))
    }

    /// One run; `None` when there is nothing to report of it.
    fn run_once(&mut self, benchmark: &Benchmark, repetition: (u32, u32)) -> Result<Option<RunResult>> {
        self.prepare(benchmark)?;
        let before = Usage::now();
        let outcome = self.measure(benchmark)?;
        if benchmark.crew == Crew::Printer {
            return Ok(None);
        }
        let remark = (benchmark.remark)(&outcome.merged.totals);
        Ok(Some(RunResult {
            name: benchmark.name,
            outcome,
            remark,
            usage: Usage::now().since(before),
            is_single: benchmark.crew == Crew::One,
            repetition,
        }))
    }

    fn measure(&mut self, benchmark: &Benchmark) -> Result<Outcome> {
        let store = self.store.as_ref().context("the database is closed")?;
        self.bench.run_once(benchmark, store).with_context(|| benchmark.name.to_string())
    }

    /// Gives the benchmark the database it needs.
    fn prepare(&mut self, benchmark: &Benchmark) -> Result<()> {
        match benchmark.needs {
            Needs::Fresh => self.recreate(),
            Needs::Any | Needs::Data => Ok(()),
            Needs::Loaded => {
                if self.store()?.is_empty()? {
                    eprintln!("{}: the database is empty; loading it with {LOAD} first", benchmark.name);
                    self.measure(benchmarks::find(LOAD)?)?;
                }
                Ok(())
            }
        }
    }

    fn recreate(&mut self) -> Result<()> {
        if let Some(store) = self.store.take() {
            store.close()?;
        }
        store::destroy(self.path)?;
        self.store = Some(Store::open(self.bench.args, self.path)?);
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        match self.store.take() {
            Some(store) => store.close(),
            None => Ok(()),
        }
    }
}
