//! One step: a new database, filled, then transactions by some threads for some seconds, then the check.
//!
//! Only the transactions are timed. CPU time is that of the whole process, background work included: no other
//! database is open meanwhile.

use crate::data::Values;
use crate::engine::{Engine, Variant};
use crate::workload::{Worker, Workload};
use anyhow::{Context, Result};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

/// What is the same for every engine.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// What a transaction does.
    pub workload: Workload,
    /// Threads that run transactions.
    pub threads: usize,
    /// Keys.
    pub num: u64,
    /// Bytes of a value, where it is not a number.
    pub value_bytes: usize,
    /// How long.
    pub duration: Duration,
    /// Of all random choices.
    pub seed: u64,
}

/// What came out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// Committed transactions a second.
    pub rate: f64,
    /// CPU microseconds a committed transaction.
    pub cpu_us: f64,
    /// Attempts that met a conflict, a thousand committed transactions.
    pub conflicts: f64,
}

/// Runs the step in a directory of its own below `dir`.
pub fn run(step: Step, variant: Variant, dir: &Path) -> Result<Outcome> {
    let dir = tempfile::tempdir_in(dir)?;
    let mut rng = SmallRng::seed_from_u64(step.seed);
    let values = Values::new(step.value_bytes, &mut rng);
    let engine = variant.create(dir.path())?;
    step.workload.fill(&*engine, step.num, &values, &mut rng).context("fill")?;
    let (outcome, added) = measure(step, &*engine, &values)?;
    step.workload.check(&*engine, step.num, step.value_bytes, added).context("the check of what it left")?;
    Ok(outcome)
}

/// The measured part, and the sum of what was added to each set of counters.
pub fn measure(step: Step, engine: &dyn Engine, values: &Values) -> Result<(Outcome, u64)> {
    let stop = AtomicBool::new(false);
    let start = Barrier::new(step.threads + 1);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..step.threads)
            .map(|thread| {
                let seed = step.seed.wrapping_mul(1000).wrapping_add(thread as u64 + 1);
                let rng = SmallRng::seed_from_u64(seed);
                let read = Vec::new();
                let worker = Worker { engine, num: step.num, values, rng, read, conflicts: 0, added: 0 };
                let (start, stop) = (&start, &stop);
                scope.spawn(move || work(worker, step.workload, start, stop))
            })
            .collect();
        start.wait();
        let (begun, cpu) = (Instant::now(), cpu_seconds()?);
        thread::sleep(step.duration);
        stop.store(true, Ordering::Relaxed);
        let (mut committed, mut conflicts, mut added) = (0, 0, 0);
        for worker in workers {
            let done = worker.join().expect("a worker does not panic")?;
            committed += done.0;
            conflicts += done.1;
            added += done.2;
        }
        let committed = f64::max(committed as f64, 1.0);
        let outcome = Outcome {
            rate: committed / begun.elapsed().as_secs_f64(),
            cpu_us: (cpu_seconds()? - cpu) * 1e6 / committed,
            conflicts: conflicts as f64 * 1000.0 / committed,
        };
        Ok((outcome, added))
    })
}

/// Committed transactions, conflicts, and the sum added to each set.
fn work(
    mut worker: Worker,
    workload: Workload,
    start: &Barrier,
    stop: &AtomicBool,
) -> Result<(u64, u64, u64)> {
    start.wait();
    let mut committed = 0;
    while !stop.load(Ordering::Relaxed) {
        worker.run(workload)?;
        committed += 1;
    }
    Ok((committed, worker.conflicts, worker.added))
}

/// User and system time of this process. Linux counts it in hundredths of a second.
fn cpu_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The second field is a name in parentheses, which may hold spaces; the 14th and 15th are the times.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let times = fields.split_whitespace().skip(11).take(2);
    Ok(times.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0)
}
