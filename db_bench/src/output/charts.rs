//! Charts as SVG for the HTML page. They have no background and take the page's text colour, so that one drawing is
//! readable on light and on dark.

use super::bytes;
use crate::sampler::Sample;
use crate::stats::{Op, micros};
use crate::store::LevelShape;
use anyhow::{Result, anyhow};
use hdrhistogram::Histogram;
use plotters::coord::Shift;
use plotters::prelude::*;

/// Stands for the page's text colour: replaced by `currentColor` in the finished SVG.
const INK: RGBColor = RGBColor(1, 2, 3);
const INK_HEX: &str = "#010203";
/// Readable on white and on near-black.
const COLORS: [RGBColor; 6] = [
    RGBColor(59, 130, 246),
    RGBColor(234, 120, 30),
    RGBColor(34, 160, 90),
    RGBColor(200, 70, 160),
    RGBColor(150, 110, 230),
    RGBColor(200, 160, 30),
];
const WIDTH: u32 = 560;
const HEIGHT: u32 = 220;
const FONT_SIZE: u32 = 12;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws into a string; the XML namespace is not needed inside HTML and would be the page's only address.
fn svg(label: &str, height: u32, draw: impl FnOnce(&Area<'_>) -> Result<()>) -> Result<String> {
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
    draw(&area)?;
    area.present().map_err(problem)?;
    drop(area);
    let open = format!("<svg role=\"img\" aria-label=\"{label}\"");
    Ok(text
        .replace(" xmlns=\"http://www.w3.org/2000/svg\"", "")
        .replacen("<svg", &open, 1)
        .replace(INK_HEX, "currentColor"))
}

fn problem(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("cannot draw a chart: {error}")
}

/// The colour of the series with this number, as CSS.
pub fn css_color(index: usize) -> String {
    let RGBColor(red, green, blue) = COLORS[index % COLORS.len()];
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// Operations per second over time.
pub fn throughput(samples: &[Sample]) -> Result<String> {
    let end = samples.last().map_or(1.0, |sample| sample.seconds);
    let top = samples.iter().map(|sample| sample.ops_per_second).fold(1.0, f64::max) * 1.08;
    // A sample says what happened up to its time, so the line starts with the first one's height.
    let first = samples.first().map(|sample| (0.0, sample.ops_per_second));
    let points: Vec<(f64, f64)> = first
        .into_iter()
        .chain(samples.iter().map(|sample| (sample.seconds, sample.ops_per_second)))
        .collect();
    svg("operations per second over time", HEIGHT, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .margin_right(30)
            .x_label_area_size(34)
            .y_label_area_size(58)
            .build_cartesian_2d(0.0..end, 0.0..top)
            .map_err(problem)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(6)
            .y_labels(5)
            .x_desc("seconds")
            .x_label_formatter(&|seconds| trimmed(*seconds))
            .y_label_formatter(&|rate| short(*rate))
            .bold_line_style(INK.mix(0.15))
            .light_line_style(TRANSPARENT)
            .axis_style(INK.mix(0.4))
            .label_style(("sans-serif", FONT_SIZE).into_font().color(&INK))
            .draw()
            .map_err(problem)?;
        let below = points.iter().copied().chain([(end, 0.0), (0.0, 0.0)]).collect::<Vec<_>>();
        chart.draw_series([Polygon::new(below, COLORS[0].mix(0.15))]).map_err(problem)?;
        chart.draw_series(LineSeries::new(points, COLORS[0].stroke_width(2))).map_err(problem)?;
        Ok(())
    })
}

/// Latency over percentiles, one line per kind of operation; each nine takes as much room as the one before.
pub fn latency(histograms: &[(Op, &Histogram<u64>)]) -> Result<String> {
    let count = histograms.iter().map(|(_, histogram)| histogram.len()).max().unwrap_or(1);
    // As many nines as there are operations to tell them apart.
    let nines = (count.max(10) as f64).log10().floor().clamp(1.0, 6.0);
    let lines: Vec<Vec<(f64, f64)>> =
        histograms.iter().map(|(_, histogram)| percentile_line(histogram, nines)).collect();
    let values = || lines.iter().flatten().map(|point| point.1);
    // Whole powers of ten, so that the axis has a label at either end.
    let low = 10f64.powf(values().fold(f64::INFINITY, f64::min).clamp(0.01, 1e9).log10().floor());
    let high = 10f64.powf(values().fold(low * 2.0, f64::max).log10().ceil());
    svg("latency percentiles", HEIGHT, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .margin_right(30)
            .x_label_area_size(34)
            .y_label_area_size(58)
            .build_cartesian_2d(0.0..nines, (low..high).log_scale())
            .map_err(problem)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(nines as usize + 1)
            .y_labels(5)
            .x_desc("percentile")
            .x_label_formatter(&|nines| percentile_name(*nines))
            .y_label_formatter(&|micros| duration(*micros))
            .bold_line_style(INK.mix(0.15))
            .light_line_style(TRANSPARENT)
            .axis_style(INK.mix(0.4))
            .label_style(("sans-serif", FONT_SIZE).into_font().color(&INK))
            .draw()
            .map_err(problem)?;
        for (index, line) in lines.into_iter().enumerate() {
            let color = COLORS[index % COLORS.len()];
            chart.draw_series(LineSeries::new(line, color.stroke_width(2))).map_err(problem)?;
        }
        Ok(())
    })
}

fn percentile_line(histogram: &Histogram<u64>, nines: f64) -> Vec<(f64, f64)> {
    let steps = 40.0 * nines;
    (0..=steps as u32)
        .map(|step| {
            let place = f64::from(step) / 40.0;
            let quantile = 1.0 - 10f64.powf(-place);
            (place, micros(histogram.value_at_quantile(quantile)).max(0.01))
        })
        .collect()
}

/// Bytes of each level as a bar.
pub fn tree(levels: &[LevelShape]) -> Result<String> {
    const ROW: i32 = 30;
    const LEFT: i32 = 44;
    const BAR_MAX: i32 = 200;
    let top = levels.iter().map(|level| level.bytes).max().unwrap_or(1).max(1) as f64;
    let height = ROW * levels.len().max(1) as i32 + 10;
    svg("bytes per level of the tree", height as u32, |area| {
        let style = ("sans-serif", FONT_SIZE + 1).into_font().color(&INK);
        for (index, level) in levels.iter().enumerate() {
            let y = 6 + ROW * index as i32;
            let width = ((level.bytes as f64 / top) * f64::from(BAR_MAX)).round().max(1.0) as i32;
            let color = COLORS[0].mix(0.8).filled();
            area.draw(&Rectangle::new([(LEFT, y), (LEFT + width, y + ROW - 8)], color)).map_err(problem)?;
            area.draw(&Text::new(format!("L{}", level.level), (8, y + 5), style.clone())).map_err(problem)?;
            let text = format!(
                "{}, {} in {}, {} entries",
                bytes(level.bytes),
                counted(level.tables, "table"),
                counted(level.runs, "run"),
                short(level.entries as f64)
            );
            area.draw(&Text::new(text, (LEFT + width + 8, y + 5), style.clone())).map_err(problem)?;
        }
        Ok(())
    })
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn trimmed(number: f64) -> String {
    let text = format!("{number:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

fn short(number: f64) -> String {
    match number {
        n if n >= 1e9 => format!("{}G", trimmed(n / 1e9)),
        n if n >= 1e6 => format!("{}M", trimmed(n / 1e6)),
        n if n >= 1e3 => format!("{}k", trimmed(n / 1e3)),
        n => trimmed(n),
    }
}

fn duration(micros: f64) -> String {
    match micros {
        us if us >= 1e6 => format!("{} s", trimmed(us / 1e6)),
        us if us >= 1e3 => format!("{} ms", trimmed(us / 1e3)),
        us if us >= 1.0 => format!("{} \u{b5}s", trimmed(us)),
        us => format!("{} ns", trimmed(us * 1e3)),
    }
}

fn percentile_name(nines: f64) -> String {
    match nines.round() as usize {
        0 => "min".to_string(),
        1 => "90".to_string(),
        2 => "99".to_string(),
        more => format!("99.{}", "9".repeat(more - 2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::empty_histogram;

    fn check_svg(svg: &str) {
        assert!(svg.trim_start().starts_with("<svg role=") && svg.trim_end().ends_with("</svg>"), "{svg}");
        assert!(!svg.contains("http") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert!(svg.contains("currentColor") && !svg.contains(INK_HEX), "{svg}");
    }

    #[test]
    fn charts_are_drawn_of_little_and_of_nothing() {
        let samples =
            [Sample { seconds: 0.1, ops_per_second: 0.0 }, Sample { seconds: 0.2, ops_per_second: 5e6 }];
        check_svg(&throughput(&samples).unwrap());
        check_svg(&throughput(&[]).unwrap());
        let mut histogram = empty_histogram();
        check_svg(&latency(&[(Op::Read, &histogram)]).unwrap());
        (1..100_000u64).for_each(|nanos| histogram.saturating_record(nanos));
        check_svg(&latency(&[(Op::Read, &histogram), (Op::Write, &histogram)]).unwrap());
        let level = LevelShape { level: 0, runs: 1, tables: 2, bytes: 0, entries: 0 };
        check_svg(&tree(&[level]).unwrap());
    }

    #[test]
    fn labels_are_short() {
        assert_eq!([short(0.0), short(999.0), short(1500.0), short(2e6)], ["0", "999", "1.5k", "2M"]);
        assert_eq!(
            [duration(0.5), duration(10.0), duration(2500.0), duration(3e6)],
            ["500 ns", "10 \u{b5}s", "2.5 ms", "3 s"]
        );
        assert_eq!([0.0, 1.0, 2.0, 3.0, 4.0].map(percentile_name), ["min", "90", "99", "99.9", "99.99"]);
    }
}
