//! The lines before the results: where, with what and on what they were measured.

use super::bytes;
use crate::args::{Args, DurabilityArg};
use crate::keys::KeyShape;
use crate::machine::utc;
use crate::session::Report;

const MIB: f64 = 1_048_576.0;

/// Every setting in force, in the manner of RocksDB's db_bench.
pub fn text(report: &Report<'_>) -> String {
    let lines = settings(report);
    let width = lines.iter().map(|(name, _)| name.len() + 2).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in lines {
        let name = format!("{name}:");
        text.push_str(&format!("{name:<width$}{value}\n"));
    }
    text.push_str("------------------------------------------------\n");
    text.push_str(&format!("DB path: [{}] ({})\n", report.db_path.display(), report.file_system));
    text
}

/// The settings as pairs of name and value.
pub fn settings(report: &Report<'_>) -> Vec<(&'static str, String)> {
    let (args, machine, in_force) = (report.args, &report.machine, &report.in_force);
    let value_bytes = args.value_sizes().mean();
    let raw = (args.key_size() as f64 + value_bytes) * args.num as f64 / MIB;
    let packed = (args.key_size() as f64 + value_bytes * args.compression_ratio) * args.num as f64 / MIB;
    let shape = match args.key_shape {
        KeyShape::Int => "int, 8 bytes big-endian and '0's",
        KeyShape::User => "user, like user:00000001:0000000042",
    };
    vec![
        ("esker", format!("version {}", env!("CARGO_PKG_VERSION"))),
        ("Date", utc(report.started_unix_seconds)),
        ("CPU", format!("{} * {}", machine.cores, machine.cpu)),
        ("CPUCache", machine.cpu_cache.clone()),
        ("Memory", bytes(machine.memory_bytes)),
        ("Kernel", machine.kernel.clone()),
        ("Keys", format!("{} bytes each ({shape})", args.key_size())),
        (
            "Values",
            format!(
                "{} ({:.0} bytes after compression)",
                args.value_sizes(),
                value_bytes * args.compression_ratio
            ),
        ),
        ("Entries", args.num.to_string()),
        ("RawSize", format!("{raw:.1} MB (estimated)")),
        ("FileSize", format!("{packed:.1} MB (estimated)")),
        ("Reads", format!("{} per thread", args.reads())),
        ("Threads", args.threads.to_string()),
        ("Batch", args.batch_size.map_or("default of each benchmark".to_string(), |size| size.to_string())),
        ("Duration", limit(args.duration, "seconds")),
        ("Write rate", limit(args.benchmark_write_rate_limit, "bytes/second")),
        ("Read rate", limit(args.benchmark_read_rate_limit, "ops/second")),
        ("Read percent", args.readwritepercent.to_string()),
        ("Seek nexts", args.seek_nexts.to_string()),
        ("Durability", durability(args.durability()).to_string()),
        ("Transactions", transactions(args)),
        ("Compression", in_force.compression.to_string()),
        ("Bloom bits", format!("{} ({})", in_force.bloom_bits, in_force.filter)),
        ("Block size", bytes(in_force.block_size)),
        ("Memory budget", bytes(in_force.memory_budget)),
        ("Cache", bytes(in_force.cache_size)),
        ("Write buffer", bytes(in_force.write_buffer_size)),
        ("Read mode", args.read_mode.to_string()),
        ("Compaction style", in_force.compaction_style.to_string()),
        ("Background threads", in_force.background_threads.to_string()),
        ("Existing db", args.use_existing_db.to_string()),
        ("Latency", if args.wants_latency() { "measured per operation" } else { "not measured" }.to_string()),
        ("Seed", args.seed.to_string()),
    ]
}

fn limit(limit: u64, unit: &str) -> String {
    if limit == 0 { "no limit".to_string() } else { format!("{limit} {unit}") }
}

fn transactions(args: &Args) -> String {
    let kind = if args.optimistic { "optimistic" } else { "pessimistic" };
    format!("{}, {kind}", args.isolation)
}

fn durability(durability: DurabilityArg) -> &'static str {
    match durability {
        DurabilityArg::Disk => "disk (on the device when a write returns; survives a power cut)",
        DurabilityArg::Os => "os (in the page cache when a write returns; survives the process being killed)",
        DurabilityArg::Memory => "memory (not logged; lost with the process)",
    }
}
