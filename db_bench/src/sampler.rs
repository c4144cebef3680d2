//! Looks at the threads' counters while they run: throughput over time, the CSV report, the progress bar.

use crate::stats::Progress;
use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(100);
/// More samples than this are thinned out, so that a run of days makes no larger a report than one of minutes.
const SAMPLES_MAX: usize = 1200;

/// Throughput of one stretch of a run.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Sample {
    /// Seconds from the start of the run to the end of the stretch.
    pub seconds: f64,
    /// Operations per second in it.
    pub ops_per_second: f64,
}

/// Operations done by points in time; throughput is what lies between.
#[derive(Debug)]
struct Series {
    points: Vec<(f64, u64)>,
    /// Every how many ticks a point is kept.
    stride: u64,
    ticks: u64,
}

impl Series {
    fn new() -> Series {
        Series { points: vec![(0.0, 0)], stride: 1, ticks: 0 }
    }

    fn tick(&mut self, seconds: f64, operations: u64) {
        self.ticks += 1;
        if !self.ticks.is_multiple_of(self.stride) {
            return;
        }
        self.points.push((seconds, operations));
        if self.points.len() > SAMPLES_MAX {
            let mut index = 0;
            self.points.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.stride *= 2;
        }
    }

    fn finish(mut self, seconds: f64, operations: u64) -> Vec<Sample> {
        // A last stretch much shorter than the others would only be noise.
        let tick = TICK.as_secs_f64() * self.stride as f64;
        if self.points.len() > 1 && self.points.last().is_some_and(|last| seconds - last.0 < tick / 2.0) {
            self.points.pop();
        }
        self.points.push((seconds, operations));
        self.points.windows(2).map(|pair| rate(pair[0], pair[1])).collect()
    }
}

fn rate(from: (f64, u64), to: (f64, u64)) -> Sample {
    let seconds = (to.0 - from.0).max(1e-9);
    Sample { seconds: to.0, ops_per_second: to.1.saturating_sub(from.1) as f64 / seconds }
}

/// The file of `--report_file`: one row per interval, over all benchmarks of the run.
pub struct CsvReport {
    file: BufWriter<File>,
    interval: Duration,
    opened: Instant,
}

impl CsvReport {
    /// Creates the file and writes its header.
    pub fn create(path: &Path, interval_seconds: u64) -> Result<CsvReport> {
        let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        let mut file = BufWriter::new(file);
        writeln!(file, "secs_elapsed,interval_qps").context("cannot write the report file")?;
        file.flush().context("cannot write the report file")?;
        Ok(CsvReport { file, interval: Duration::from_secs(interval_seconds), opened: Instant::now() })
    }

    fn row(&mut self, operations_per_second: f64) -> Result<()> {
        let seconds = self.opened.elapsed().as_secs_f64().round();
        writeln!(self.file, "{seconds},{}", operations_per_second as u64)
            .and_then(|()| self.file.flush())
            .context("cannot write the report file")
    }
}

/// The rows of one benchmark.
struct CsvRows<'a> {
    csv: &'a mut CsvReport,
    /// Number of the next row.
    next: u32,
    /// Time and operations at the one before.
    before: (Duration, u64),
}

impl CsvRows<'_> {
    /// Writes a row if one is due: after each interval, and at the end for what remains, unless that is so short that
    /// its rate would be noise.
    fn look(&mut self, elapsed: Duration, operations: u64, ended: bool) -> Result<()> {
        let interval = self.csv.interval;
        let since = elapsed.saturating_sub(self.before.0);
        if elapsed < interval * self.next && !(ended && since >= interval / 2) {
            return Ok(());
        }
        self.csv.row(operations.saturating_sub(self.before.1) as f64 / since.as_secs_f64().max(1e-9))?;
        self.next += 1;
        self.before = (elapsed, operations);
        Ok(())
    }
}

/// A progress bar on standard error.
pub struct Bar<'a> {
    bar: ProgressBar,
    goal: &'a AtomicU64,
    seconds: Option<u64>,
}

impl<'a> Bar<'a> {
    /// Counts up to `seconds`, or else to the operations in `goal`, which may grow while the threads start.
    pub fn new(name: &str, goal: &'a AtomicU64, seconds: Option<u64>) -> Bar<'a> {
        let template = match seconds {
            None => "{msg:<22} [{bar:40}] {percent:>3}%  {per_sec}  eta {eta}",
            Some(_) => "{msg:<22} [{bar:40}] {percent:>3}%  eta {eta}",
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr());
        bar.set_style(style.progress_chars("=> "));
        bar.set_message(name.to_string());
        Bar { bar, goal, seconds }
    }

    fn update(&self, elapsed: Duration, operations: u64) {
        let (length, position) = match self.seconds {
            Some(seconds) => (seconds * 1000, elapsed.as_millis() as u64),
            None => (self.goal.load(Ordering::Relaxed), operations),
        };
        self.bar.set_length(length);
        self.bar.set_position(position);
    }

    /// Takes the bar off the screen.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// Samples until the sender of `stop` is dropped.
pub fn sample(
    progress: &[Progress],
    stop: &Receiver<()>,
    csv: Option<&mut CsvReport>,
    bar: Option<&Bar<'_>>,
) -> Result<Vec<Sample>> {
    let start = Instant::now();
    let mut series = Series::new();
    let mut csv = csv.map(|csv| CsvRows { csv, next: 1, before: (Duration::ZERO, 0) });
    let mut next_tick = TICK;
    loop {
        let ended = match stop.recv_timeout(next_tick.saturating_sub(start.elapsed())) {
            Err(RecvTimeoutError::Timeout) => false,
            Ok(()) | Err(RecvTimeoutError::Disconnected) => true,
        };
        let elapsed = start.elapsed();
        let operations = progress.iter().map(Progress::get).sum();
        if let Some(csv) = &mut csv {
            csv.look(elapsed, operations, ended)?;
        }
        if ended {
            return Ok(series.finish(elapsed.as_secs_f64(), operations));
        }
        series.tick(elapsed.as_secs_f64(), operations);
        if let Some(bar) = bar {
            bar.update(elapsed, operations);
        }
        next_tick += TICK;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throughput_is_what_lies_between_two_looks() {
        let mut series = Series::new();
        series.tick(0.1, 100);
        series.tick(0.2, 100);
        let samples = series.finish(0.3, 160);
        let rates: Vec<_> = samples.iter().map(|sample| sample.ops_per_second.round()).collect();
        assert_eq!(rates, [1000.0, 0.0, 600.0]);
    }

    #[test]
    fn a_short_last_stretch_joins_the_one_before() {
        let mut series = Series::new();
        series.tick(0.1, 100);
        series.tick(0.2, 200);
        let samples = series.finish(0.21, 210);
        assert_eq!(samples.len(), 2);
        assert_eq!(samples[1].ops_per_second.round(), 1000.0);
    }

    #[test]
    fn a_long_run_is_thinned_out_and_loses_no_operation() {
        let mut series = Series::new();
        let ticks = 10_000u64;
        (1..=ticks).for_each(|tick| series.tick(tick as f64 * 0.1, tick * 50));
        let seconds = ticks as f64 * 0.1;
        let samples = series.finish(seconds, ticks * 50);
        assert!(samples.len() <= SAMPLES_MAX + 1, "{}", samples.len());
        assert!(samples.len() > SAMPLES_MAX / 3, "{}", samples.len());
        assert!(samples.iter().all(|sample| (sample.ops_per_second - 500.0).abs() < 1.0));
    }

    /// The interval that ended with the run was lost.
    #[test]
    fn the_report_has_a_row_for_every_interval() {
        let check = |looks: &[(u64, u64, bool)], expect: &[u64]| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("report.csv");
            let mut csv = CsvReport::create(&path, 1).unwrap();
            let mut rows = CsvRows { csv: &mut csv, next: 1, before: (Duration::ZERO, 0) };
            for (millis, operations, ended) in looks {
                rows.look(Duration::from_millis(*millis), *operations, *ended).unwrap();
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let rates: Vec<u64> =
                text.lines().skip(1).map(|row| row.split_once(',').unwrap().1.parse().unwrap()).collect();
            assert_eq!(rates, expect, "{looks:?}");
        };
        check(&[(900, 9, false), (1000, 10, false), (1900, 30, false), (2000, 40, true)], &[10, 30]);
        check(&[(1000, 10, false), (1500, 20, true)], &[10, 20]);
        check(&[(1000, 10, false), (1400, 20, true)], &[10]);
        check(&[(300, 10, true)], &[]);
    }

    #[test]
    fn sampling_ends_with_its_sender() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let progress = &[Progress::default()];
        let samples = std::thread::scope(|scope| {
            let sampler = scope.spawn(move || sample(progress, &receiver, None, None));
            drop(sender);
            sampler.join().unwrap().unwrap()
        });
        assert_eq!(samples.len(), 1);
    }
}
