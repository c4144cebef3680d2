//! The binary from the outside: every benchmark on a tiny database, the formats of what it prints and writes, and what
//! it refuses.

use signal_hook::consts::{SIGINT, SIGTERM};
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const BENCHMARKS: [&str; 30] = [
    "fillseq",
    "fillrandom",
    "filluniquerandom",
    "overwrite",
    "fillsync",
    "fillbatch",
    "fill100K",
    "deleteseq",
    "deleterandom",
    "readseq",
    "readreverse",
    "readrandom",
    "readmissing",
    "readhot",
    "multireadrandom",
    "seekrandom",
    "readwhilewriting",
    "updaterandom",
    "readrandomwriterandom",
    "ycsba",
    "ycsbb",
    "ycsbc",
    "ycsbd",
    "ycsbe",
    "ycsbf",
    "flush",
    "compact",
    "waitforcompaction",
    "verify",
    "stats",
];

/// Those of which only the time says something.
const SINGLE: [&str; 4] = ["flush", "compact", "waitforcompaction", "verify"];

fn db_bench(flags: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_db_bench")).args(flags).output().unwrap()
}

/// Standard output of a run that must succeed.
fn run(flags: &[&str]) -> String {
    let output = db_bench(flags);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{flags:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The result line of a benchmark.
fn line<'a>(stdout: &'a str, name: &str) -> &'a str {
    let start = format!("{name:<12} : ");
    stdout
        .lines()
        .find(|line| line.starts_with(&start))
        .unwrap_or_else(|| panic!("no line of {name} in {stdout}"))
}

/// Reads a result line as tools do: micros/op, ops/sec, seconds, operations.
fn figures(line: &str) -> (f64, u64, f64, u64) {
    let (_, rest) = line.split_once(" : ").unwrap();
    let words: Vec<&str> = rest.split_whitespace().collect();
    assert_eq!(
        (words[1], words[3], words[5], words[7]),
        ("micros/op", "ops/sec", "seconds", "operations;"),
        "{line}"
    );
    (
        words[0].parse().unwrap(),
        words[2].parse().unwrap(),
        words[4].parse().unwrap(),
        words[6].parse().unwrap(),
    )
}

/// Reads the result line of a single call.
fn seconds(line: &str) -> f64 {
    let (_, rest) = line.split_once(" : ").unwrap();
    let (seconds, unit) = rest.trim_start().split_once(' ').unwrap();
    assert!(unit.starts_with("seconds"), "{line}");
    seconds.parse().unwrap()
}

fn path_flag(flag: &str, path: &Path) -> String {
    format!("--{flag}={}", path.display())
}

#[test]
fn every_benchmark_runs_alone_on_a_database_of_its_own() {
    for name in BENCHMARKS {
        let stdout =
            run(&[&format!("--benchmarks=fillseq,{name}"), "--num=500", "--seek_nexts=3", "--histogram"]);
        if SINGLE.contains(&name) {
            assert!(seconds(line(&stdout, name)) >= 0.0, "{name}: {stdout}");
        } else if name != "stats" {
            let (micros, _, _, operations) = figures(line(&stdout, name));
            assert!(micros > 0.0 && operations > 0, "{name}: {stdout}");
        }
    }
}

#[test]
fn every_benchmark_runs_after_all_the_others_with_threads() {
    let list = format!("--benchmarks={}", BENCHMARKS.join(","));
    for flags in [["--threads=1", "--batch_size=1"], ["--threads=3", "--batch_size=7"]] {
        let stdout =
            run(&[&list, "--num=2000", flags[0], flags[1], "--key_shape=user", "--write_buffer_size=64K"]);
        for name in BENCHMARKS.iter().filter(|name| **name != "stats") {
            let line = line(&stdout, name);
            let time = if SINGLE.contains(name) { seconds(line) } else { figures(line).2 };
            assert!(time >= 0.0, "{line}");
        }
    }
}

#[test]
fn operations_and_remarks_are_those_of_the_work() {
    let names = "fillseq,readseq,readreverse,readrandom,readmissing,readhot,multireadrandom,seekrandom";
    let stdout = run(&[&format!("--benchmarks={names}"), "--num=1000", "--threads=2"]);
    let check = |name: &str, operations: u64, remark: &str| {
        let line = line(&stdout, name);
        assert_eq!(figures(line).3, operations, "{line}");
        assert!(line.ends_with(remark), "{line}");
    };
    check("fillseq", 2000, " MB/s");
    check("readseq", 2000, " MB/s");
    check("readreverse", 2000, " MB/s");
    check("readrandom", 2000, "(2000 of 2000 found)");
    check("readmissing", 2000, "operations; (0 of 2000 found)");
    check("readhot", 2000, "(2000 of 2000 found)");
    check("multireadrandom", 2000, "(2000 of 2000 found)");
    check("seekrandom", 2000, "(2000 of 2000 found)");
}

#[test]
fn deletes_leave_nothing_behind() {
    let stdout =
        run(&["--benchmarks=filluniquerandom,deleteseq,readrandom,readseq", "--num=1000", "--batch_size=10"]);
    assert!(line(&stdout, "readrandom").ends_with("operations; (0 of 1000 found)"), "{stdout}");
    // The line of no operation at all counts one, as in the field.
    assert_eq!(figures(line(&stdout, "readseq")).3, 1, "{stdout}");
}

#[test]
fn the_thousandths_and_the_implied_load_hold() {
    let stdout = run(&["--benchmarks=fillsync,fill100K", "--num=3000"]);
    assert_eq!(figures(line(&stdout, "fillsync")).3, 3);
    assert_eq!(figures(line(&stdout, "fill100K")).3, 3);
    let stdout = run(&["--benchmarks=ycsbc,ycsbd,ycsbe", "--num=3000", "--threads=2"]);
    assert!(line(&stdout, "ycsbc").ends_with("( reads:6000 found:6000)"), "{stdout}");
    assert!(line(&stdout, "ycsbe").contains("scans:"), "{stdout}");
}

#[test]
fn the_header_states_the_settings() {
    let flags =
        ["--benchmarks=fillseq", "--num=100", "--value_size=400", "--sync", "--compression_type=none"];
    let stdout = run(&flags);
    let value = |name: &str| {
        let start = format!("{name}:");
        let line = stdout.lines().find(|line| line.starts_with(&start));
        line.unwrap_or_else(|| panic!("no {name} in {stdout}"))[start.len()..].trim().to_string()
    };
    assert_eq!(value("Values"), "400 bytes each (200 bytes after compression)");
    assert_eq!(value("Entries"), "100");
    assert_eq!(value("Compression"), "none");
    assert!(value("Durability").starts_with("disk"), "{stdout}");
    for name in ["Kernel", "CPU", "Cache", "Seed", "DB path"] {
        assert!(!value(name).is_empty(), "{name}");
    }
}

/// Those of the flags were printed, whatever the database was created with.
#[test]
fn the_header_states_what_is_in_force_in_an_existing_database() {
    let dir = tempfile::tempdir().unwrap();
    let db = path_flag("db", dir.path());
    let flags = ["--compression_type=none", "--bloom_bits=7", "--write_buffer_size=1M", "--block_size=8K"];
    run(&[&["--benchmarks=fillseq", "--num=100", &db][..], &flags[..]].concat());
    let flags = ["--use_existing_db", "--write_buffer_size=2M", "--filter=standard"];
    let stdout = run(&[&["--benchmarks=readseq", "--num=100", &db][..], &flags[..]].concat());
    for (name, value) in [
        ("Compression:", "none"),
        ("Bloom bits:", "7 (blocked)"),
        ("Write buffer:", "1 MiB"),
        ("Block size:", "8 KiB"),
    ] {
        let line = stdout.lines().find(|line| line.starts_with(name)).unwrap();
        assert_eq!(line[name.len()..].trim(), value, "{stdout}");
    }
}

#[test]
fn repetitions_print_average_and_median_and_warm_ups_nothing() {
    let stdout = run(&["--benchmarks=fillseq,readrandom[X3-W1]", "--num=500"]);
    assert_eq!(stdout.lines().filter(|line| line.starts_with("readrandom   : ")).count(), 3, "{stdout}");
    assert!(
        stdout.contains("readrandom [AVG    3 runs] : ") && stdout.contains("readrandom [MEDIAN 3 runs] : "),
        "{stdout}"
    );
}

#[test]
fn the_same_seed_does_the_same_work() {
    let found = |seed: &str| {
        let stdout = run(&["--benchmarks=fillrandom,readrandom", "--num=2000", seed]);
        line(&stdout, "readrandom").split_once("; ").unwrap().1.split_once('(').unwrap().1.to_string()
    };
    assert_eq!(found("--seed=7"), found("--seed=7"));
    assert_ne!(found("--seed=7"), found("--seed=8"));
}

#[test]
fn time_limits_and_rate_limits_hold() {
    let stdout = run(&["--benchmarks=fillseq,readrandom", "--num=1000", "--duration=1"]);
    let (_, _, seconds, operations) = figures(line(&stdout, "readrandom"));
    assert!(seconds >= 1.0 && operations > 1000, "{stdout}");
    let flags = [
        "--num=300",
        "--benchmark_write_rate_limit=116000",
        "--benchmark_read_rate_limit=1000",
        "--threads=2",
    ];
    let stdout = run(&[&["--benchmarks=fillseq,readrandom"][..], &flags[..]].concat());
    // 600 operations at 1,000 a second: no machine is too slow for a lower bound.
    assert!(figures(line(&stdout, "fillseq")).2 > 0.5, "{stdout}");
    assert!(figures(line(&stdout, "readrandom")).2 > 0.5, "{stdout}");
}

#[test]
fn reports_are_complete_and_load_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let [json, html, csv] = ["run.json", "run.html", "run.csv"].map(|name| dir.path().join(name));
    run(&[
        "--benchmarks=fillrandom,readwhilewriting,stats",
        "--num=1000",
        "--duration=2",
        "--report_interval_seconds=1",
        &path_flag("json", &json),
        &path_flag("report", &html),
        &path_flag("report_file", &csv),
    ]);
    check_json(&serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap());
    check_html(&std::fs::read_to_string(&html).unwrap());
    let csv = std::fs::read_to_string(&csv).unwrap();
    let mut lines = csv.lines();
    assert_eq!(lines.next(), Some("secs_elapsed,interval_qps"));
    let rows: Vec<(u64, u64)> = lines
        .map(|row| row.split_once(',').unwrap())
        .map(|(seconds, rate)| (seconds.parse().unwrap(), rate.parse().unwrap()))
        .collect();
    assert!(!rows.is_empty() && rows.is_sorted_by_key(|row| row.0), "{csv}");
}

fn check_json(document: &serde_json::Value) {
    for key in ["machine", "settings", "resolved", "engine"] {
        assert!(document[key].is_object(), "{key}");
    }
    assert_eq!(document["settings"]["num"], 1000);
    assert_eq!(document["settings"]["durability"], serde_json::Value::Null);
    let results = document["results"].as_array().unwrap();
    assert_eq!(results.len(), 2, "stats is no result");
    for result in results {
        assert!(result["ops_per_sec"].as_f64().unwrap() > 0.0, "{result}");
        let latency = &result["latency_micros"];
        assert_eq!(latency["count"], result["operations"], "{result}");
        assert!(latency["p50"].as_f64().unwrap() <= latency["p99_9"].as_f64().unwrap(), "{result}");
        assert!(result["throughput"].as_array().unwrap().len() > 5, "{result}");
    }
    assert_eq!(results[1]["latency_micros_by_op"][0]["op"], "read");
}

fn check_html(page: &str) {
    assert!(page.starts_with("<!DOCTYPE html>") && page.trim_end().ends_with("</html>"));
    assert!(page.matches("<svg").count() >= 4, "two charts for each benchmark");
    for forbidden in ["http:", "https:", "src=", "href=", "url(", "@import", "<script"] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    assert!(page.contains("<td>readwhilewriting</td>"));
}

#[test]
fn a_named_database_is_kept_and_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let db = path_flag("db", &dir.path().join("kept"));
    run(&["--benchmarks=fillseq", "--num=1000", &db]);
    assert!(dir.path().join("kept").is_dir());
    let stdout = run(&["--benchmarks=fillseq,readseq", "--num=1000", "--use_existing_db", &db]);
    assert!(stdout.contains("fillseq      : skipped (--use_existing_db is true)"), "{stdout}");
    assert_eq!(figures(line(&stdout, "readseq")).3, 1000);
    let stdout = run(&["--benchmarks=fillseq,readseq", "--num=7", "--destroy_existing_db", &db]);
    assert_eq!(figures(line(&stdout, "readseq")).3, 7);
}

/// It deleted whatever database it was pointed at, even to print statistics.
#[test]
fn a_database_is_not_deleted_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let db = path_flag("db", dir.path());
    let json = dir.path().with_extension("json");
    run(&["--benchmarks=fillseq", "--num=1000", &db]);
    for benchmark in ["fillseq", "stats", "overwrite"] {
        let output =
            db_bench(&[&format!("--benchmarks={benchmark}"), "--num=10", &db, &path_flag("json", &json)]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{benchmark}: {stderr}");
        assert!(stderr.contains("--use_existing_db") && stderr.contains("--destroy_existing_db"), "{stderr}");
        assert!(output.stdout.is_empty() && !json.exists(), "{output:?}");
    }
    let refused = db_bench(&["--benchmarks=fillseq", "--destroy_existing_db", &db, "--bloom_bits=65"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("bloom_bits must be 0 to 64"), "{refused:?}");
    let stdout = run(&["--benchmarks=readseq", "--num=1000", "--use_existing_db", &db]);
    assert_eq!(figures(line(&stdout, "readseq")).3, 1000);
}

#[test]
fn reading_an_empty_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let db = path_flag("db", dir.path());
    let output = db_bench(&["--benchmarks=readrandom", "--num=10", &db]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("fillrandom,readrandom"), "{output:?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is touched");
    run(&["--benchmarks=fillseq,deleteseq", "--num=10", &db]);
    let output = db_bench(&["--benchmarks=stats,readrandom", "--num=10", &db, "--use_existing_db"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("the database is empty"), "{output:?}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_signal_ends_it_and_leaves_no_temporary_directory() {
    for signal in [SIGINT, SIGTERM] {
        let scratch = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_db_bench"))
            .args(["--benchmarks=fillrandom", "--duration=600", "--write_buffer_size=64K"])
            .env("TMPDIR", scratch.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait_for_tables(scratch.path());
        let pid = child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap().success());
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(signal), "{stderr}");
        assert_eq!(stderr, "");
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "signal {signal}");
    }
}

/// Until the engine is at work in a directory of this one.
fn wait_for_tables(scratch: &Path) {
    let is_table = |entry: std::fs::DirEntry| entry.path().extension().is_some_and(|kind| kind == "sst");
    loop {
        let databases = std::fs::read_dir(scratch).unwrap().flatten();
        if databases.filter_map(|entry| entry.path().read_dir().ok()).flatten().flatten().any(is_table) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn nothing_but_results_goes_to_standard_output() {
    let output = db_bench(&["--benchmarks=ycsbc", "--num=100"]);
    let (stdout, stderr) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(stderr.contains("loading it with filluniquerandom first"), "{stderr}");
    assert!(!stdout.contains("loading") && !stdout.contains('\r'), "{stdout}");
}

#[test]
fn mistakes_are_answered_with_a_hint_and_touch_nothing() {
    let check = |flags: &[&str], expect: &str| {
        let output = db_bench(flags);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(expect), "{flags:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{flags:?}");
    };
    check(&["--nun=7"], "--num");
    check(&["--benchmarks=readrandm"], "did you mean 'readrandom'?");
    check(&["--json=/no/such/directory/x.json"], "/no/such/directory/x.json");
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("letter.txt"), "dear").unwrap();
    check(&["--benchmarks=fillseq", "--num=10", &path_flag("db", dir.path())], "letter.txt");
    assert!(dir.path().join("letter.txt").exists());
}
