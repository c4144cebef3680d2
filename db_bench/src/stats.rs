//! What is counted while a benchmark runs, per thread, and what comes of it when the threads are merged.
//!
//! Latencies are kept in nanoseconds in HdrHistograms, one per kind of operation. As in RocksDB's db_bench the clock is
//! read once per operation, at its end: a latency is the time since the end of the one before and so includes choosing
//! the key. Without latencies nothing but a counter is touched.

use hdrhistogram::Histogram;
use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longest latency told apart, in nanoseconds; longer ones count as this.
const LATENCY_MAX: u64 = 3_600_000_000_000;

/// Kinds of operations, by the names RocksDB's db_bench gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    Read,
    Write,
    Delete,
    Seek,
    Update,
    Scan,
    Insert,
    /// Anything else.
    #[serde(rename = "op")]
    Other,
}

impl Op {
    /// All of them, in the order of their numbers.
    pub const ALL: [Op; 8] =
        [Op::Read, Op::Write, Op::Delete, Op::Seek, Op::Update, Op::Scan, Op::Insert, Op::Other];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Op::Read => "read",
            Op::Write => "write",
            Op::Delete => "delete",
            Op::Seek => "seek",
            Op::Update => "update",
            Op::Scan => "scan",
            Op::Insert => "insert",
            Op::Other => "op",
        }
    }
}

/// A thread's count of finished operations where others may look at it, on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Progress(AtomicU64);

impl Progress {
    /// Operations finished so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Sums over all threads, for the remark at the end of a result line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Keys looked up.
    pub reads: u64,
    /// Of them, found.
    pub found: u64,
    /// Writes of keys that exist, or of any key.
    pub writes: u64,
    /// Writes of new keys.
    pub inserts: u64,
    /// Range scans.
    pub scans: u64,
    /// Attempts of transactions that failed because of others.
    pub aborts: u64,
    /// Words of the benchmark itself.
    pub note: String,
}

impl Totals {
    fn add(&mut self, other: &Totals) {
        self.reads += other.reads;
        self.found += other.found;
        self.writes += other.writes;
        self.inserts += other.inserts;
        self.scans += other.scans;
        self.aborts += other.aborts;
        if self.note.is_empty() {
            self.note.clone_from(&other.note);
        }
    }

    /// No remark.
    pub fn silent(&self) -> String {
        String::new()
    }

    /// `(12 of 20 found)`
    pub fn found(&self) -> String {
        format!("({} of {} found)", self.found, self.reads)
    }

    /// As updaterandom prints.
    pub fn updates(&self) -> String {
        format!("( updates:{} found:{})", self.writes, self.found)
    }

    /// As readrandomwriterandom prints.
    pub fn mixed(&self) -> String {
        let total = self.reads + self.writes;
        format!("( reads:{} writes:{} total:{total} found:{})", self.reads, self.writes, self.found)
    }

    /// `(1000 committed, 12 attempts failed, 1.19 %)`
    pub fn transactions(&self) -> String {
        let attempts = (self.writes + self.aborts).max(1);
        let share = 100.0 * self.aborts as f64 / attempts as f64;
        format!("({} committed, {} attempts failed, {share:.2} %)", self.writes, self.aborts)
    }

    /// What is not zero, in the same manner.
    pub fn ycsb(&self) -> String {
        let parts = [
            ("reads", self.reads),
            ("updates", self.writes),
            ("inserts", self.inserts),
            ("scans", self.scans),
        ];
        let mut text = String::from("(");
        for (name, count) in parts.iter().filter(|part| part.1 > 0) {
            text.push_str(&format!(" {name}:{count}"));
        }
        if self.reads > 0 {
            text.push_str(&format!(" found:{}", self.found));
        }
        text + ")"
    }

    /// The benchmark's own words.
    pub fn note(&self) -> String {
        format!("({})", self.note)
    }
}

/// Latencies of one thread, or of all.
#[derive(Debug, Clone)]
pub struct Latencies {
    by_op: [Option<Box<Histogram<u64>>>; Op::ALL.len()],
}

impl Latencies {
    fn new() -> Latencies {
        Latencies { by_op: Default::default() }
    }

    #[inline]
    fn record(&mut self, op: Op, nanos: u64) {
        self.of(op).saturating_record(nanos);
    }

    fn of(&mut self, op: Op) -> &mut Histogram<u64> {
        self.by_op[op as usize].get_or_insert_with(|| Box::new(empty_histogram()))
    }

    fn add(&mut self, other: &Latencies) {
        for (op, histogram) in other.iter() {
            // Same bounds on both sides, so that adding cannot fail.
            let _ = self.of(op).add(histogram);
        }
    }

    /// The kinds of operations that happened, with their latencies in nanoseconds.
    pub fn iter(&self) -> impl Iterator<Item = (Op, &Histogram<u64>)> {
        Op::ALL.into_iter().zip(&self.by_op).filter_map(|(op, histogram)| Some((op, histogram.as_deref()?)))
    }

    /// All kinds together; `None` when nothing was measured.
    pub fn overall(&self) -> Option<Histogram<u64>> {
        let mut histograms = self.iter().map(|(_, histogram)| histogram);
        let mut all = histograms.next()?.clone();
        for histogram in histograms {
            // Same bounds on both sides, so that adding cannot fail.
            let _ = all.add(histogram);
        }
        Some(all)
    }
}

/// An empty histogram of nanoseconds, exact to three digits.
pub fn empty_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX, 3).expect("constant bounds are valid")
}

/// What one thread counts.
#[derive(Debug)]
pub struct ThreadStats<'a> {
    progress: &'a Progress,
    operations: u64,
    /// Bytes of keys and values moved, for MB/s.
    pub bytes: u64,
    /// For the remark.
    pub totals: Totals,
    latencies: Option<Latencies>,
    started: Instant,
    last_end: Instant,
    finished: Instant,
}

impl<'a> ThreadStats<'a> {
    /// Starts the clock.
    pub fn start(progress: &'a Progress, with_latency: bool) -> ThreadStats<'a> {
        let now = Instant::now();
        ThreadStats {
            progress,
            operations: 0,
            bytes: 0,
            totals: Totals::default(),
            latencies: with_latency.then(Latencies::new),
            started: now,
            last_end: now,
            finished: now,
        }
    }

    /// Counts operations that just ended together.
    #[inline]
    pub fn finish(&mut self, op: Op, operations: u64) {
        self.operations += operations;
        self.progress.0.store(self.operations, Ordering::Relaxed);
        if let Some(latencies) = &mut self.latencies {
            let now = Instant::now();
            latencies.record(op, now.duration_since(self.last_end).as_nanos() as u64);
            self.last_end = now;
        }
    }

    /// Leaves time spent waiting for a rate limit out of the next latency.
    #[inline]
    pub fn forget(&mut self, waited: Duration) {
        self.last_end += waited;
    }

    /// Stops the clock.
    pub fn stop(&mut self) {
        self.finished = Instant::now();
    }
}

/// What all threads of one run counted.
#[derive(Debug, Clone)]
pub struct Merged {
    /// Operations.
    pub operations: u64,
    /// Bytes of keys and values moved.
    pub bytes: u64,
    /// For the remark.
    pub totals: Totals,
    /// Latencies, if they were asked for.
    pub latencies: Option<Latencies>,
    /// From the first thread's start to the last one's end.
    pub seconds: f64,
    /// The threads' times added up.
    pub thread_seconds: f64,
}

impl Merged {
    /// Adds threads up; there must be at least one.
    pub fn of(threads: &[ThreadStats<'_>]) -> Merged {
        let mut merged = Merged {
            operations: 0,
            bytes: 0,
            totals: Totals::default(),
            latencies: None,
            seconds: 0.0,
            thread_seconds: 0.0,
        };
        for thread in threads {
            merged.operations += thread.operations;
            merged.bytes += thread.bytes;
            merged.totals.add(&thread.totals);
            merged.thread_seconds += thread.finished.duration_since(thread.started).as_secs_f64();
            if let Some(latencies) = &thread.latencies {
                merged.latencies.get_or_insert_with(Latencies::new).add(latencies);
            }
        }
        let start = threads.iter().map(|thread| thread.started).min();
        let end = threads.iter().map(|thread| thread.finished).max();
        if let (Some(start), Some(end)) = (start, end) {
            merged.seconds = end.duration_since(start).as_secs_f64();
        }
        merged
    }
}

/// Percentiles of a histogram, in microseconds.
#[derive(Debug, Clone, Serialize, PartialEq)]
pub struct Percentiles {
    pub count: u64,
    pub mean: f64,
    pub min: f64,
    pub p50: f64,
    pub p75: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub p99_99: f64,
    pub max: f64,
}

impl Percentiles {
    /// Of latencies in nanoseconds.
    pub fn of(histogram: &Histogram<u64>) -> Percentiles {
        let at = |percent: f64| micros(histogram.value_at_percentile(percent));
        Percentiles {
            count: histogram.len(),
            mean: histogram.mean() / 1000.0,
            min: micros(histogram.min()),
            p50: at(50.0),
            p75: at(75.0),
            p90: at(90.0),
            p95: at(95.0),
            p99: at(99.0),
            p99_9: at(99.9),
            p99_99: at(99.99),
            max: micros(histogram.max()),
        }
    }
}

/// Nanoseconds in microseconds.
pub fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_add_up_and_kinds_stay_apart() {
        let progress = [Progress::default(), Progress::default()];
        let mut threads: Vec<_> =
            progress.iter().map(|progress| ThreadStats::start(progress, true)).collect();
        threads[0].finish(Op::Read, 1);
        threads[0].finish(Op::Write, 10);
        threads[1].finish(Op::Read, 1);
        threads[1].bytes = 7;
        threads[1].totals.found = 3;
        threads.iter_mut().for_each(ThreadStats::stop);
        let merged = Merged::of(&threads);
        assert_eq!((merged.operations, merged.bytes, merged.totals.found), (12, 7, 3));
        assert_eq!(progress[0].get(), 11);
        assert!(merged.thread_seconds >= merged.seconds);
        let latencies = merged.latencies.unwrap();
        let counts: Vec<_> = latencies.iter().map(|(op, histogram)| (op, histogram.len())).collect();
        assert_eq!(counts, [(Op::Read, 2), (Op::Write, 1)]);
        assert_eq!(latencies.overall().unwrap().len(), 3);
    }

    #[test]
    fn without_latency_only_a_counter_moves() {
        let progress = Progress::default();
        let mut stats = ThreadStats::start(&progress, false);
        stats.finish(Op::Read, 5);
        stats.stop();
        assert!(Merged::of(&[stats]).latencies.is_none());
        assert_eq!(progress.get(), 5);
    }

    #[test]
    fn remarks_read_as_in_the_field() {
        let totals = Totals { reads: 90, found: 57, writes: 10, ..Totals::default() };
        assert_eq!(totals.found(), "(57 of 90 found)");
        assert_eq!(totals.updates(), "( updates:10 found:57)");
        assert_eq!(totals.mixed(), "( reads:90 writes:10 total:100 found:57)");
        assert_eq!(totals.ycsb(), "( reads:90 updates:10 found:57)");
    }

    #[test]
    fn percentiles_are_in_microseconds() {
        let mut histogram = empty_histogram();
        (1..=1000u64).for_each(|micros| histogram.saturating_record(micros * 1000));
        let found = Percentiles::of(&histogram);
        // Three digits are kept.
        let check =
            |found: f64, expect: f64| assert!((found / expect - 1.0).abs() < 0.002, "{found} for {expect}");
        check(found.min, 1.0);
        check(found.p50, 500.0);
        check(found.p99, 990.0);
        check(found.max, 1000.0);
    }
}
