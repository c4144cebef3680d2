//! The formats that tools parse, to the character.

use super::*;
use crate::machine::Usage;
use crate::runner::Outcome;
use crate::stats::{Merged, Totals, empty_histogram};

/// A result with these figures and nothing else.
pub fn sample_result(
    operations: u64,
    seconds: f64,
    thread_seconds: f64,
    bytes: u64,
    remark: &str,
) -> RunResult {
    let merged =
        Merged { operations, bytes, totals: Totals::default(), latencies: None, seconds, thread_seconds };
    RunResult {
        name: "fillrandom",
        outcome: Outcome { merged, series: Vec::new() },
        remark: remark.to_string(),
        usage: Usage::default(),
        is_single: false,
        repetition: (1, 1),
    }
}

fn check(run: RunResult, expect: &str) {
    assert_eq!(result(&run), format!("{expect}\n"));
}

#[test]
fn a_result_line_is_that_of_the_field() {
    check(
        sample_result(1_000_000, 1.234, 1.234, 116_000_000, ""),
        "fillrandom   :       1.234 micros/op 810372 ops/sec 1.234 seconds 1000000 operations;   89.6 MB/s",
    );
    check(
        sample_result(1_000_000, 2.0, 8.0, 116_000_000, "(632 of 1000 found)"),
        "fillrandom   :       8.000 micros/op 500000 ops/sec 2.000 seconds 1000000 operations;   55.3 MB/s (632 of 1000 found)",
    );
    check(
        sample_result(0, 0.25, 0.25, 0, ""),
        "fillrandom   :  250000.000 micros/op 4 ops/sec 0.250 seconds 1 operations;",
    );
    check(
        sample_result(100, 1.0, 1.0, 0, "(0 of 100 found)"),
        "fillrandom   :   10000.000 micros/op 100 ops/sec 1.000 seconds 100 operations; (0 of 100 found)",
    );
}

#[test]
fn of_a_single_call_only_the_time_is_printed() {
    let mut run = sample_result(1, 0.000022, 0.000022, 0, "");
    run.is_single = true;
    check(run, "fillrandom   :       0.000 seconds");
    let mut run = sample_result(1, 12.5, 12.5, 0, "(7 tables)");
    run.is_single = true;
    check(run, "fillrandom   :      12.500 seconds (7 tables)");
}

#[test]
fn a_name_longer_than_its_column_pushes_the_rest() {
    let mut run = sample_result(1, 1.0, 1.0, 0, "");
    run.name = "readrandomwriterandom";
    check(run, "readrandomwriterandom : 1000000.000 micros/op 1 ops/sec 1.000 seconds 1 operations;");
}

#[test]
fn several_runs_have_an_average_and_a_median() {
    let runs = [1.0, 2.0, 4.0].map(|seconds| sample_result(1000, seconds, seconds, 4 << 20, ""));
    assert_eq!(
        combined("fillrandom", &runs),
        "fillrandom [AVG    3 runs] : 583 (\u{b1} 432) ops/sec;    2.3 (\u{b1} 1.7) MB/sec\n\
         fillrandom [MEDIAN 3 runs] : 500 ops/sec;    2.0 MB/sec\n"
    );
    assert_eq!(combined("fillrandom", &runs[..1]), "");
    let runs = [1.0, 1.0].map(|seconds| sample_result(1000, seconds, seconds, 0, ""));
    assert_eq!(
        combined("readrandom", &runs),
        "readrandom [AVG    2 runs] : 1000 (\u{b1} 0) ops/sec\nreadrandom [MEDIAN 2 runs] : 1000 ops/sec\n"
    );
}

#[test]
fn bucket_limits_are_those_of_the_field() {
    let limits = bucket_limits();
    assert_eq!(limits[..16], [1, 2, 3, 4, 6, 10, 15, 22, 34, 51, 76, 110, 170, 250, 380, 580]);
}

#[test]
fn a_histogram_is_printed_as_in_the_field() {
    let mut histogram = empty_histogram();
    histogram.saturating_record_n(500, 5);
    histogram.saturating_record_n(3_500, 4);
    histogram.saturating_record(70_000);
    // HdrHistogram keeps three digits: 70,000 ns stand in a bucket of 32.
    let expect = "\
Count: 10 Average: 8.6488  StdDev: 20.49
Min: 1  Median: 0.5000  Max: 70
Percentiles: P50: 0.50 P75: 3.50 P99: 70.02 P99.9: 70.02 P99.99: 70.02
------------------------------------------------------
[       0,       1 ]        5  50.000%  50.000% ##########
(       3,       4 ]        4  40.000%  90.000% ########
(      51,      76 ]        1  10.000% 100.000% ##
";
    assert_eq!(distribution(&histogram), expect);
}
