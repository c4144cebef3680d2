//! Runs one benchmark once: threads that start together, a stop when one fails, and the sampler beside them.

use crate::args::{Args, DurabilityArg};
use crate::benchmarks::{Benchmark, Crew, Needs};
use crate::keys::{Key, KeyShape, uniform};
use crate::limiter::Limiter;
use crate::sampler::{self, Bar, CsvReport, Sample};
use crate::stats::{Merged, Progress, ThreadStats};
use crate::store::{Store, TransactionMode, WriteMode};
use crate::values::{ValuePool, ValueSizes, Values};
use anyhow::{Result, anyhow};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use std::io::IsTerminal;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Settings of one run, after the benchmark changed what it changes.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Keys in the database.
    pub num: u64,
    /// Reads per thread.
    pub reads: u64,
    /// Writes per thread.
    pub writes: u64,
    /// `--writes`, if given.
    pub writes_asked: Option<u64>,
    /// Operations per thread that reads and writes.
    pub reads_and_writes: u64,
    /// Measured threads.
    pub threads: usize,
    /// Operations per batch.
    pub batch: u64,
    /// `--batch_size`, if given.
    pub batch_asked: Option<u64>,
    /// How keys look.
    pub key_shape: KeyShape,
    /// Bytes of a key.
    pub key_size: usize,
    /// Sizes of values.
    pub value_sizes: ValueSizes,
    /// What writes survive.
    pub durability: DurabilityArg,
    /// Limit of benchmarks in random order, instead of a number of operations.
    pub duration: Option<Duration>,
    /// Entries read after a seek.
    pub seek_nexts: u64,
    /// Percentage of reads.
    pub read_percent: u32,
    /// How transactions begin.
    pub transactions: TransactionMode,
    write_rate: u64,
    read_rate: u64,
    with_latency: bool,
    /// Seed of the order that filluniquerandom writes in.
    pub order_seed: u64,
}

impl Plan {
    /// Settings of `benchmark` under these arguments.
    pub fn new(args: &Args, benchmark: &Benchmark, seed: u64) -> Plan {
        let writes_asked = u64::try_from(args.writes).ok();
        let mut plan = Plan {
            num: args.num,
            reads: args.reads(),
            writes: writes_asked.unwrap_or(args.num),
            writes_asked,
            reads_and_writes: args.reads_and_writes(),
            threads: args.threads,
            batch: args.batch_size.unwrap_or(1),
            batch_asked: args.batch_size,
            key_shape: args.key_shape,
            key_size: args.key_size(),
            value_sizes: args.value_sizes(),
            durability: args.durability(),
            duration: (args.duration > 0).then(|| Duration::from_secs(args.duration)),
            seek_nexts: args.seek_nexts,
            read_percent: args.readwritepercent,
            transactions: TransactionMode { isolation: args.isolation, optimistic: args.optimistic },
            write_rate: args.benchmark_write_rate_limit,
            read_rate: args.benchmark_read_rate_limit,
            with_latency: args.wants_latency(),
            order_seed: seed,
        };
        if matches!(benchmark.crew, Crew::One | Crew::Printer) {
            plan.threads = 1;
        }
        (benchmark.tune)(&mut plan);
        plan
    }
}

/// What the threads of one run share.
#[derive(Debug)]
pub struct Shared<'a> {
    /// Keys that exist, for benchmarks that insert new ones.
    pub keys: &'a AtomicU64,
    failed: AtomicBool,
    measured_running: AtomicUsize,
    /// Operations that the measured threads set out to do, for the progress bar.
    goal: AtomicU64,
}

impl Shared<'_> {
    /// Whether measured threads are still at work.
    pub fn measured_running(&self) -> bool {
        self.measured_running.load(Ordering::Acquire) > 0
    }

    fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }
}

/// What one thread works with.
pub struct Worker<'a> {
    pub plan: &'a Plan,
    pub store: &'a Store,
    pub shared: &'a Shared<'a>,
    pub rng: SmallRng,
    pub key: Key,
    pub values: Values<'a>,
    pub stats: ThreadStats<'a>,
    pub mode: WriteMode,
    /// Number of this thread among the measured ones; the extra writer's is the number of threads.
    pub index: usize,
    write_limit: Limiter,
    read_limit: Limiter,
}

impl Worker<'_> {
    /// Whether this is the writer beside the measured threads.
    pub fn is_extra_writer(&self) -> bool {
        self.index == self.plan.threads
    }

    /// Makes `key` that of a random number below `n`.
    #[inline]
    pub fn random_key(&mut self, n: u64) {
        let id = uniform(&mut self.rng, n);
        self.key.set(id);
    }

    /// Waits as `--benchmark_read_rate_limit` wants.
    #[inline]
    pub fn pace_reads(&mut self, operations: u64) {
        let waited = self.read_limit.take(operations);
        self.stats.forget(waited);
    }

    /// Waits as `--benchmark_write_rate_limit` wants.
    #[inline]
    pub fn pace_writes(&mut self, bytes: u64) {
        let waited = self.write_limit.take(bytes);
        self.stats.forget(waited);
    }

    /// Looks up the key at hand and counts it, and whether it was found.
    #[inline]
    pub fn lookup(&mut self) -> Result<()> {
        let value = self.store.get(self.key.bytes())?;
        self.stats.totals.reads += 1;
        if let Some(value) = value {
            self.stats.totals.found += 1;
            self.stats.bytes += (self.key.bytes().len() + value.len()) as u64;
        }
        Ok(())
    }

    /// Writes the key at hand with the next value.
    #[inline]
    pub fn write(&mut self) -> Result<()> {
        let value = self.values.next(&mut self.rng);
        let bytes = (self.key.bytes().len() + value.len()) as u64;
        self.pace_writes(bytes);
        self.store.put(self.key.bytes(), value, self.mode)?;
        self.stats.bytes += bytes;
        Ok(())
    }

    /// A number of operations, or `--duration` when that is given.
    pub fn timed(&self, operations: u64) -> Quota {
        match self.plan.duration {
            // A time beyond all times is none.
            Some(duration) => {
                Quota { left: u64::MAX, deadline: Instant::now().checked_add(duration), calls: 0 }
            }
            None => self.counted(operations),
        }
    }

    /// A number of operations, whatever `--duration` says.
    pub fn counted(&self, operations: u64) -> Quota {
        if !self.is_extra_writer() {
            self.shared.goal.fetch_add(operations, Ordering::Relaxed);
        }
        Quota { left: operations, deadline: None, calls: 0 }
    }
}

/// How much a thread still has to do.
#[derive(Debug)]
pub struct Quota {
    left: u64,
    deadline: Option<Instant>,
    calls: u64,
}

/// How often the clock is looked at to see whether the time is over.
const CALLS_PER_LOOK: u64 = 16;

impl Quota {
    /// How many operations to do now, at most `batch`; 0 at the end.
    #[inline]
    pub fn take(&mut self, batch: u64, shared: &Shared<'_>) -> u64 {
        let granted = batch.min(self.left);
        self.left -= granted;
        self.calls += 1;
        if self.calls.is_multiple_of(CALLS_PER_LOOK) && self.over(shared) {
            return 0;
        }
        granted
    }

    fn over(&self, shared: &Shared<'_>) -> bool {
        shared.failed() || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// What one run gave.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What the threads counted.
    pub merged: Merged,
    /// Throughput over time; empty when nothing asked for it.
    pub series: Vec<Sample>,
}

/// What runs share through the life of the program.
pub struct Bench<'a> {
    pub args: &'a Args,
    pub pool: ValuePool,
    pub csv: Option<CsvReport>,
    /// Seed of the next thread; every thread of every run has its own.
    pub next_seed: u64,
    /// Keys that exist in the database at hand.
    pub keys: AtomicU64,
}

impl Bench<'_> {
    /// Runs `benchmark` once.
    pub fn run_once(&mut self, benchmark: &Benchmark, store: &Store) -> Result<Outcome> {
        let plan = Plan::new(self.args, benchmark, self.next_seed);
        if benchmark.needs == Needs::Fresh {
            self.keys.store(plan.num, Ordering::Relaxed);
        }
        let writers = usize::from(benchmark.crew == Crew::ThreadsAndWriter);
        let members = plan.threads + writers;
        let first_seed = self.next_seed;
        self.next_seed = self.next_seed.wrapping_add(members as u64);
        let shared = Shared {
            keys: &self.keys,
            failed: AtomicBool::new(false),
            measured_running: AtomicUsize::new(plan.threads),
            goal: AtomicU64::new(0),
        };
        let progress: Vec<Progress> = (0..members).map(|_| Progress::default()).collect();
        let barrier = Barrier::new(members + 1);
        let crew = CrewContext { plan: &plan, store, shared: &shared, pool: &self.pool, barrier: &barrier };
        let watch = &Watch::new(self.args, benchmark, &shared.goal, self.csv.is_some());
        let csv = self.csv.as_mut();
        let (threads, series) = thread::scope(|scope| {
            let members: Vec<_> = progress
                .iter()
                .enumerate()
                .map(|(index, progress)| {
                    let (crew, run) = (&crew, benchmark.run);
                    let seed = first_seed.wrapping_add(index as u64);
                    scope.spawn(move || crew.work(index, seed, progress, run))
                })
                .collect();
            barrier.wait();
            let (stop, stopped) = mpsc::channel();
            let measured = &progress[..plan.threads];
            let sampler = watch.needed().then(|| scope.spawn(move || watch.sample(measured, &stopped, csv)));
            let threads: Result<Vec<_>> = members
                .into_iter()
                .map(|member| member.join().unwrap_or_else(|_| Err(anyhow!("a thread panicked"))))
                .collect();
            drop(stop);
            let series = sampler
                .map(|sampler| sampler.join().unwrap_or_else(|_| Err(anyhow!("the sampler panicked"))));
            (threads, series)
        });
        let merged = Merged::of(&threads?[..plan.threads]);
        Ok(Outcome { merged, series: series.transpose()?.unwrap_or_default() })
    }
}

/// What every thread of one run starts from.
struct CrewContext<'a> {
    plan: &'a Plan,
    store: &'a Store,
    shared: &'a Shared<'a>,
    pool: &'a ValuePool,
    barrier: &'a Barrier,
}

impl<'a> CrewContext<'a> {
    fn work(
        &self,
        index: usize,
        seed: u64,
        progress: &'a Progress,
        run: fn(&mut Worker<'_>) -> Result<()>,
    ) -> Result<ThreadStats<'a>> {
        let plan = self.plan;
        let mut rng = SmallRng::seed_from_u64(seed);
        let values = self.pool.values(plan.value_sizes, &mut rng);
        self.barrier.wait();
        let extra_writer = index == plan.threads;
        let mut worker = Worker {
            plan,
            store: self.store,
            shared: self.shared,
            rng,
            key: Key::new(plan.key_shape, plan.key_size),
            values,
            stats: ThreadStats::start(progress, plan.with_latency && !extra_writer),
            mode: WriteMode::new(plan.durability),
            index,
            write_limit: Limiter::shared(plan.write_rate, if extra_writer { 1 } else { plan.threads }),
            read_limit: Limiter::shared(plan.read_rate, plan.threads),
        };
        let result = run(&mut worker);
        worker.stats.stop();
        if !extra_writer {
            self.shared.measured_running.fetch_sub(1, Ordering::Release);
        }
        if result.is_err() {
            self.shared.failed.store(true, Ordering::Relaxed);
        }
        result.map(|()| worker.stats)
    }
}

/// Which onlookers a run has.
struct Watch<'a> {
    series: bool,
    csv: bool,
    bar: Option<Bar<'a>>,
}

impl<'a> Watch<'a> {
    fn new(args: &Args, benchmark: &Benchmark, goal: &'a AtomicU64, csv: bool) -> Watch<'a> {
        let measured = !matches!(benchmark.crew, Crew::One | Crew::Printer);
        let visible = measured && args.progress && std::io::stderr().is_terminal();
        let seconds = (args.duration > 0).then_some(args.duration);
        Watch {
            series: measured && args.wants_series(),
            csv: measured && csv,
            bar: visible.then(|| Bar::new(benchmark.name, goal, seconds)),
        }
    }

    fn needed(&self) -> bool {
        self.series || self.csv || self.bar.is_some()
    }

    fn sample(
        &self,
        progress: &[Progress],
        stopped: &mpsc::Receiver<()>,
        csv: Option<&mut CsvReport>,
    ) -> Result<Vec<Sample>> {
        let samples = sampler::sample(progress, stopped, csv.filter(|_| self.csv), self.bar.as_ref());
        if let Some(bar) = &self.bar {
            bar.clear();
        }
        samples
    }
}
