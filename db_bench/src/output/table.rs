//! All results side by side, for people.

use super::grouped;
use super::line::{self, Figures};
use crate::session::RunResult;
use crate::stats::Percentiles;

/// Column heads and rows. Latencies have columns only if they were measured.
pub fn cells(results: &[RunResult]) -> (Vec<&'static str>, Vec<Vec<String>>) {
    let mut head = vec!["benchmark", "ops/sec", "micros/op", "MB/s", "seconds", "operations", "CPU s"];
    let with_latency = results.iter().any(|result| result.outcome.merged.latencies.is_some());
    if with_latency {
        head.extend(["p50 us", "p99 us", "p99.9 us", "max us"]);
    }
    let mut rows = Vec::new();
    for (index, result) in results.iter().enumerate() {
        rows.push(row(result, with_latency));
        let (run, runs) = result.repetition;
        if run == runs && runs > 1 {
            let same = &results[(index + 1).saturating_sub(runs as usize)..=index];
            rows.push(summary(&format!("AVG {runs} runs"), same, line::mean, head.len()));
            rows.push(summary(&format!("MEDIAN {runs} runs"), same, line::median, head.len()));
        }
    }
    (head, rows)
}

/// Several runs of the same as one row.
fn summary(title: &str, runs: &[RunResult], combine: fn(&[f64]) -> f64, columns: usize) -> Vec<String> {
    let of = |figure: fn(&RunResult) -> f64| combine(&runs.iter().map(figure).collect::<Vec<_>>());
    let rates: Option<Vec<f64>> = runs.iter().map(|run| Figures::of(run).mib_per_second).collect();
    let mut row = vec![
        format!("  {title}"),
        grouped(of(|run| Figures::of(run).operations_per_second) as u64),
        format!("{:.3}", of(|run| Figures::of(run).micros_per_operation)),
        rates.map_or_else(String::new, |rates| format!("{:.1}", combine(&rates))),
        format!("{:.2}", of(|run| run.outcome.merged.seconds)),
    ];
    if runs.iter().any(|run| run.is_single) {
        row[1..3].fill(String::new());
    }
    row.resize(columns, String::new());
    row
}

fn row(result: &RunResult, with_latency: bool) -> Vec<String> {
    let figures = Figures::of(result);
    let merged = &result.outcome.merged;
    let cpu = result.usage.cpu_user_seconds + result.usage.cpu_system_seconds;
    let mut row = vec![
        result.name.to_string(),
        grouped(figures.operations_per_second as u64),
        format!("{:.3}", figures.micros_per_operation),
        figures.mib_per_second.map_or_else(String::new, |rate| format!("{rate:.1}")),
        format!("{:.2}", merged.seconds),
        grouped(merged.operations),
        format!("{cpu:.2}"),
    ];
    if result.is_single {
        row[1..3].fill(String::new());
    }
    if with_latency {
        let overall = merged.latencies.as_ref().and_then(|latencies| latencies.overall());
        match overall.as_ref().map(Percentiles::of) {
            Some(found) => row
                .extend([found.p50, found.p99, found.p99_9, found.max].map(|micros| format!("{micros:.1}"))),
            None => row.extend([const { String::new() }; 4]),
        }
    }
    row
}

/// The table as text.
pub fn text(results: &[RunResult]) -> String {
    let (head, rows) = cells(results);
    let head: Vec<String> = head.iter().map(|name| name.to_string()).collect();
    let width =
        |column: usize| rows.iter().chain([&head]).map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    let mut text = String::new();
    for row in [&head, &rule].into_iter().chain(&rows) {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            line.push_str(&if column == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") });
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::line::tests::sample_result;

    #[test]
    fn columns_line_up() {
        let results = [sample_result(1000, 0.5, 1.0, 1 << 20, ""), sample_result(5, 0.5, 1.0, 0, "")];
        let expect = "\
benchmark   ops/sec   micros/op  MB/s  seconds  operations  CPU s
----------  -------  ----------  ----  -------  ----------  -----
fillrandom    2,000    1000.000   2.0     0.50       1,000   0.00
fillrandom       10  200000.000           0.50           5   0.00
";
        assert_eq!(text(&results), expect);
    }

    #[test]
    fn repetitions_are_summed_up_and_single_calls_have_a_time_only() {
        let mut results = [1.0, 2.0, 6.0, 0.25].map(|seconds| sample_result(1000, seconds, seconds, 0, ""));
        for (run, result) in (1..=3).zip(&mut results) {
            result.repetition = (run, 3);
        }
        results[3].is_single = true;
        let expect = "\
benchmark        ops/sec  micros/op  MB/s  seconds  operations  CPU s
---------------  -------  ---------  ----  -------  ----------  -----
fillrandom         1,000   1000.000           1.00       1,000   0.00
fillrandom           500   2000.000           2.00       1,000   0.00
fillrandom           166   6000.000           6.00       1,000   0.00
  AVG 3 runs         555   3000.000           3.00
  MEDIAN 3 runs      500   2000.000           2.00
fillrandom                                    0.25       1,000   0.00
";
        assert_eq!(text(&results), expect);
    }
}
