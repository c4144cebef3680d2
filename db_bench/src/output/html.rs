//! The page of `--report`: one file that loads nothing else, for a browser in light or dark.

use super::{charts, header, table};
use crate::machine::utc;
use crate::session::{Report, RunResult};
use crate::stats::Op;
use anyhow::Result;
use hdrhistogram::Histogram;
use std::fmt::Write;

const STYLE: &str = include_str!("html.css");

/// The whole page.
pub fn page(report: &Report<'_>) -> Result<String> {
    let machine = &report.machine;
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>esker db_bench</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <h1>esker db_bench</h1>\n<p class=\"soft\">{} on {} &times; {}, {}, {}</p>\n",
        utc(report.started_unix_seconds),
        machine.cores,
        escape(&machine.cpu),
        escape(&machine.kernel),
        escape(&report.file_system),
    );
    page.push_str(&results(&report.results));
    page.push_str("<h2>Benchmarks</h2>\n");
    for result in &report.results {
        page.push_str(&card(result)?);
    }
    page.push_str(&tree(report)?);
    page.push_str(&settings(report));
    let _ =
        write!(page, "<h2>Engine statistics</h2>\n<pre>{}</pre>\n", escape(report.engine.text.trim_end()));
    page.push_str("</body>\n</html>\n");
    Ok(page)
}

fn results(results: &[RunResult]) -> String {
    let (head, rows) = table::cells(results);
    let mut text = String::from("<h2>Results</h2>\n<div class=\"scroll\"><table>\n<thead><tr>");
    for name in head {
        let _ = write!(text, "<th>{}</th>", escape(name));
    }
    text.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        text.push_str("<tr>");
        for cell in row {
            let _ = write!(text, "<td>{}</td>", escape(&cell));
        }
        text.push_str("</tr>\n");
    }
    text.push_str("</tbody>\n</table></div>\n");
    text
}

fn card(result: &RunResult) -> Result<String> {
    let merged = &result.outcome.merged;
    let mut figures = String::new();
    if result.outcome.series.len() > 1 {
        let chart = charts::throughput(&result.outcome.series)?;
        let _ = writeln!(figures, "<figure><figcaption>operations per second</figcaption>{chart}</figure>");
    }
    let histograms: Vec<(Op, &Histogram<u64>)> = merged
        .latencies
        .iter()
        .flat_map(|latencies| latencies.iter())
        .filter(|(op, _)| *op != Op::Other)
        .collect();
    if !histograms.is_empty() {
        let chart = charts::latency(&histograms)?;
        let _ = writeln!(
            figures,
            "<figure><figcaption>latency{}</figcaption>{chart}</figure>",
            legend(&histograms)
        );
    }
    if figures.is_empty() {
        return Ok(String::new());
    }
    Ok(format!(
        "<section class=\"card\"><h3>{}</h3>\n<p class=\"soft\">{}</p>\n<div class=\"pair\">\n{figures}</div></section>\n",
        escape(result.name),
        escape(super::line::result(result).split_once(" : ").map_or("", |line| line.1).trim()),
    ))
}

fn legend(histograms: &[(Op, &Histogram<u64>)]) -> String {
    let mut text = String::new();
    for (index, (op, _)) in histograms.iter().enumerate() {
        let color = charts::css_color(index);
        let _ = write!(text, "<span class=\"key\" style=\"background:{color}\"></span>{}", op.name());
    }
    text
}

fn tree(report: &Report<'_>) -> Result<String> {
    let levels = &report.engine.levels;
    let drawing = match levels.is_empty() {
        true => "<p class=\"soft\">No tables: everything is still in memory.</p>".to_string(),
        false => format!("<figure class=\"tree\">{}</figure>", charts::tree(levels)?),
    };
    Ok(format!("<h2>Tree at the end</h2>\n{drawing}\n"))
}

fn settings(report: &Report<'_>) -> String {
    let mut text = String::from("<h2>Settings</h2>\n<dl class=\"settings\">\n");
    for (name, value) in header::settings(report) {
        let _ = writeln!(text, "<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(&value));
    }
    text.push_str("</dl>\n");
    text
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(escape("a<b> & \"c\""), "a&lt;b&gt; &amp; &quot;c&quot;");
    }

    #[test]
    fn the_style_sheet_loads_nothing() {
        assert!(!STYLE.contains("url(") && !STYLE.contains("@import") && !STYLE.contains("http"));
    }
}
