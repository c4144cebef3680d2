//! All results side by side, for people.

use super::grouped;
use super::line::Figures;
use crate::session::RunResult;
use crate::stats::Percentiles;

/// Column heads and rows. Latencies have columns only if they were measured.
pub fn cells(results: &[RunResult]) -> (Vec<&'static str>, Vec<Vec<String>>) {
    let mut head = vec!["benchmark", "ops/sec", "micros/op", "MB/s", "seconds", "operations", "CPU s"];
    let with_latency = results.iter().any(|result| result.outcome.merged.latencies.is_some());
    if with_latency {
        head.extend(["p50 us", "p99 us", "p99.9 us", "max us"]);
    }
    (head, results.iter().map(|result| row(result, with_latency)).collect())
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
}
