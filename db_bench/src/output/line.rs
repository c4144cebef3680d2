//! Result lines and histograms in the format of RocksDB's db_bench, which tools parse.

use crate::session::RunResult;
use crate::stats::micros;
use hdrhistogram::Histogram;
use std::fmt::Write;

const MIB: f64 = 1_048_576.0;

/// What a result line says, in numbers.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// Time of all threads together per operation.
    pub micros_per_operation: f64,
    /// Operations of all threads per second.
    pub operations_per_second: f64,
    /// MiB of keys and values per second; `None` where none were moved.
    pub mib_per_second: Option<f64>,
}

impl Figures {
    /// Of one run.
    pub fn of(result: &RunResult) -> Figures {
        let merged = &result.outcome.merged;
        let operations = merged.operations.max(1) as f64;
        let seconds = merged.seconds.max(1e-9);
        Figures {
            micros_per_operation: merged.thread_seconds * 1e6 / operations,
            operations_per_second: operations / seconds,
            mib_per_second: (merged.bytes > 0).then(|| merged.bytes as f64 / MIB / seconds),
        }
    }
}

/// The result line of one call: `compact      :       1.234 seconds`.
fn single(result: &RunResult) -> String {
    let gap = if result.remark.is_empty() { "" } else { " " };
    let seconds = result.outcome.merged.seconds;
    format!("{:<12} : {seconds:11.3} seconds{gap}{}\n", result.name, result.remark)
}

/// The result line: `fillrandom   :       1.234 micros/op 810000 ops/sec 1.234 seconds 1000000 operations;   89.6 MB/s`.
pub fn result(result: &RunResult) -> String {
    if result.is_single {
        return single(result);
    }
    let figures = Figures::of(result);
    let merged = &result.outcome.merged;
    let mut extra = figures.mib_per_second.map_or_else(String::new, |rate| format!("{rate:6.1} MB/s"));
    if !result.remark.is_empty() {
        if !extra.is_empty() {
            extra.push(' ');
        }
        extra.push_str(&result.remark);
    }
    let gap = if extra.is_empty() { "" } else { " " };
    format!(
        "{:<12} : {:11.3} micros/op {} ops/sec {:.3} seconds {} operations;{gap}{extra}\n",
        result.name,
        figures.micros_per_operation,
        figures.operations_per_second as u64,
        merged.seconds,
        merged.operations.max(1),
    )
}

/// Average with its 95 % confidence interval, and median, of several runs; nothing for one, and nothing of single
/// calls, of which the field has no such lines.
pub fn combined(name: &str, results: &[RunResult]) -> String {
    if results.len() < 2 || results.iter().any(|result| result.is_single) {
        return String::new();
    }
    let runs = results.len();
    let figures: Vec<Figures> = results.iter().map(Figures::of).collect();
    let operations: Vec<f64> = figures.iter().map(|figures| figures.operations_per_second).collect();
    let rates: Option<Vec<f64>> = figures.iter().map(|figures| figures.mib_per_second).collect();
    let (average, spread) = (mean(&operations) as i64, confidence(&operations) as i64);
    let middle = median(&operations) as i64;
    match rates {
        Some(rates) => format!(
            "{name} [AVG    {runs} runs] : {average} (\u{b1} {spread}) ops/sec; {:6.1} (\u{b1} {:.1}) MB/sec\n\
             {name} [MEDIAN {runs} runs] : {middle} ops/sec; {:6.1} MB/sec\n",
            mean(&rates),
            confidence(&rates),
            median(&rates),
        ),
        None => format!(
            "{name} [AVG    {runs} runs] : {average} (\u{b1} {spread}) ops/sec\n\
             {name} [MEDIAN {runs} runs] : {middle} ops/sec\n"
        ),
    }
}

/// The mean.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The one in the middle, or the mean of the two there.
pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

/// Half the width of the 95 % confidence interval of the mean, taking the runs as normally distributed.
fn confidence(values: &[f64]) -> f64 {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let deviation = (squares / (values.len() as f64 - 1.0)).sqrt();
    1.96 * deviation / (values.len() as f64).sqrt()
}

/// The distribution of latencies, one per kind of operation.
pub fn histograms(result: &RunResult) -> String {
    let mut text = String::new();
    for (op, histogram) in result.outcome.merged.latencies.iter().flat_map(|latencies| latencies.iter()) {
        let _ = write!(text, "Microseconds per {}:\n{}\n", op.name(), distribution(histogram));
    }
    text
}

/// One distribution of nanoseconds, printed in microseconds with RocksDB's bucket limits.
fn distribution(histogram: &Histogram<u64>) -> String {
    let at = |percent: f64| micros(histogram.value_at_percentile(percent));
    let whole = |nanos: u64| micros(nanos).round() as u64;
    let mut text = format!(
        "Count: {} Average: {:.4}  StdDev: {:.2}\nMin: {}  Median: {:.4}  Max: {}\n",
        histogram.len(),
        histogram.mean() / 1000.0,
        histogram.stdev() / 1000.0,
        whole(histogram.min()),
        at(50.0),
        whole(histogram.max()),
    );
    let _ = writeln!(
        text,
        "Percentiles: P50: {:.2} P75: {:.2} P99: {:.2} P99.9: {:.2} P99.99: {:.2}",
        at(50.0),
        at(75.0),
        at(99.0),
        at(99.9),
        at(99.99)
    );
    text.push_str("------------------------------------------------------\n");
    text + &buckets(histogram)
}

fn buckets(histogram: &Histogram<u64>) -> String {
    let limits = bucket_limits();
    let mut counts = vec![0u64; limits.len()];
    for recorded in histogram.iter_recorded() {
        let limit = micros(recorded.value_iterated_to());
        let bucket = limits.partition_point(|candidate| (*candidate as f64) < limit);
        counts[bucket.min(limits.len() - 1)] += recorded.count_at_value();
    }
    let percent = 100.0 / histogram.len().max(1) as f64;
    let mut text = String::new();
    let mut cumulative = 0;
    for (bucket, count) in counts.into_iter().enumerate().filter(|(_, count)| *count > 0) {
        cumulative += count;
        let (bracket, left) = if bucket == 0 { ('[', 0) } else { ('(', limits[bucket - 1]) };
        let share = percent * count as f64;
        // 20 marks for all of them.
        let marks = "#".repeat((share / 5.0 + 0.5) as usize);
        let _ = writeln!(
            text,
            "{bracket} {left:7}, {:7} ] {count:8} {share:7.3}% {:7.3}% {marks}",
            limits[bucket],
            percent * cumulative as f64
        );
    }
    text
}

/// Upper limits of the buckets in microseconds: each half as large again as the one before, cut to two digits.
fn bucket_limits() -> Vec<u64> {
    let mut limits = vec![1u64, 2];
    let mut exact = 2.0f64;
    while exact * 1.5 < 1e13 {
        exact *= 1.5;
        let mut limit = exact as u64;
        let mut scale = 1;
        while limit / 10 > 10 {
            limit /= 10;
            scale *= 10;
        }
        limits.push(limit * scale);
    }
    limits
}

#[cfg(test)]
pub mod tests;
