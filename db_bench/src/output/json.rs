//! The whole of a run as JSON.

use super::line::Figures;
use crate::args::Args;
use crate::machine::{Machine, Usage, utc};
use crate::sampler::Sample;
use crate::session::{Report, RunResult};
use crate::stats::{Op, Percentiles};
use crate::store::{EngineStats, InForce};
use anyhow::Result;
use serde::Serialize;
use std::fs::File;
use std::io::{BufWriter, Write};

/// Raised when a field changes its meaning or goes away.
const SCHEMA_VERSION: u32 = 1;

#[derive(Serialize)]
struct Document<'a> {
    schema_version: u32,
    esker_version: &'static str,
    date: String,
    machine: &'a Machine,
    db_path: String,
    file_system: &'a str,
    settings: &'a Args,
    resolved: &'a InForce,
    results: Vec<Entry<'a>>,
    engine: &'a EngineStats,
}

#[derive(Serialize)]
struct Entry<'a> {
    name: &'static str,
    operations: u64,
    seconds: f64,
    ops_per_sec: f64,
    micros_per_op: f64,
    mib_per_sec: Option<f64>,
    remark: &'a str,
    usage: Usage,
    /// Of all operations, in microseconds.
    latency_micros: Option<Percentiles>,
    latency_micros_by_op: Vec<OpLatency>,
    throughput: &'a [Sample],
}

#[derive(Serialize)]
struct OpLatency {
    op: Op,
    #[serde(flatten)]
    percentiles: Percentiles,
}

fn entry(result: &RunResult) -> Entry<'_> {
    let figures = Figures::of(result);
    let merged = &result.outcome.merged;
    let latencies = merged.latencies.as_ref();
    let by_op = latencies.iter().flat_map(|latencies| latencies.iter());
    Entry {
        name: result.name,
        operations: merged.operations,
        seconds: merged.seconds,
        ops_per_sec: figures.operations_per_second,
        micros_per_op: figures.micros_per_operation,
        mib_per_sec: figures.mib_per_second,
        remark: &result.remark,
        usage: result.usage,
        latency_micros: latencies.and_then(|latencies| latencies.overall()).as_ref().map(Percentiles::of),
        latency_micros_by_op: by_op
            .map(|(op, histogram)| OpLatency { op, percentiles: Percentiles::of(histogram) })
            .collect(),
        throughput: &result.outcome.series,
    }
}

/// Writes the document.
pub fn write(report: &Report<'_>, file: File) -> Result<()> {
    let document = Document {
        schema_version: SCHEMA_VERSION,
        esker_version: env!("CARGO_PKG_VERSION"),
        date: utc(report.started_unix_seconds),
        machine: &report.machine,
        db_path: report.db_path.display().to_string(),
        file_system: &report.file_system,
        settings: report.args,
        resolved: &report.in_force,
        results: report.results.iter().map(entry).collect(),
        engine: &report.engine,
    };
    let mut writer = BufWriter::new(file);
    serde_json::to_writer_pretty(&mut writer, &document)?;
    writer.write_all(b"\n")?;
    Ok(writer.flush()?)
}
