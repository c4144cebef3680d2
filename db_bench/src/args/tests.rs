//! What the command line accepts and what it says to what it does not.

use super::*;
use crate::benchmarks::Spec;

fn parse(flags: &[&str]) -> Result<Args, String> {
    let args = Args::try_parse_from([&["db_bench"], flags].concat()).map_err(|error| error.to_string())?;
    args.check().map_err(|error| error.to_string())?;
    Ok(args)
}

fn check<T: PartialEq + fmt::Debug>(flags: &[&str], read: fn(&Args) -> T, expect: T) {
    match parse(flags) {
        Ok(args) => assert_eq!(read(&args), expect, "{flags:?}"),
        Err(error) => panic!("{flags:?}: {error}"),
    }
}

fn check_refused(flags: &[&str], expect: &str) {
    match parse(flags) {
        Ok(_) => panic!("{flags:?} was accepted"),
        Err(error) => assert!(error.contains(expect), "{flags:?}: {error}"),
    }
}

#[test]
fn both_spellings_of_a_flag_are_read() {
    check(&["--num=1000"], |args| args.num, 1000);
    check(&["--num", "1000"], |args| args.num, 1000);
    check(&[], |args| args.num, 1_000_000);
    check(&["--reads=-1", "--num=7"], Args::reads, 7);
    check(&["--reads", "5", "--writes", "9"], Args::reads_and_writes, 9);
    check(
        &["--value_size_distribution_type=normal"],
        |args| args.value_size_distribution,
        SizeDistribution::Normal,
    );
}

#[test]
fn switches_are_true_false_1_0_or_alone() {
    for (flag, expect) in [
        ("--sync", true),
        ("--sync=true", true),
        ("--sync=1", true),
        ("--sync=0", false),
        ("--sync=false", false),
    ] {
        check(&[flag], |args| args.sync, expect);
    }
    check(&["--progress=0", "--histogram=1"], |args| (args.progress, args.histogram), (false, true));
    check_refused(&["--sync=maybe"], "maybe");
}

fn check_number(
    parse: fn(&str) -> std::result::Result<u64, String>,
    text: &str,
    expect: std::result::Result<u64, &str>,
) {
    match (parse(text), expect) {
        (Ok(found), Ok(expect)) => assert_eq!(found, expect, "{text}"),
        (Err(found), Err(expect)) => assert!(found.contains(expect), "{text}: {found}"),
        (found, expect) => panic!("{text}: found {found:?}, expected {expect:?}"),
    }
}

#[test]
fn bytes_have_binary_suffixes() {
    let check = |text: &str, expect| check_number(parse_bytes, text, expect);
    check("0", Ok(0));
    check("64", Ok(64));
    check("64b", Ok(64));
    check("64K", Ok(64 << 10));
    check("64MiB", Ok(64 << 20));
    check("2gb", Ok(2 << 30));
    check("1T", Ok(1 << 40));
    for text in ["64i", "64ib", "64x", "64kk", "", "M", "-5", "1e5", "0.5", "18446744073709551616"] {
        check(text, Err("expected a whole number of bytes, optionally with K, M, G or T"));
    }
    check("99999999T", Err("large"));
}

#[test]
fn counts_have_decimal_suffixes() {
    let check = |text: &str, expect| check_number(parse_count, text, expect);
    check("0", Ok(0));
    check("64", Ok(64));
    check("64k", Ok(64_000));
    check("1M", Ok(1_000_000));
    check("2G", Ok(2_000_000_000));
    check("1T", Ok(1_000_000_000_000));
    for text in ["64x", "1MiB", "", "M", "-5", "1e5", "0.5", "18446744073709551616"] {
        check(text, Err("expected a whole number, optionally with K, M, G or T"));
    }
    check("99999999T", Err("large"));
}

#[test]
fn every_number_says_what_it_expects() {
    check_refused(&["--num=1e5"], "expected a whole number");
    check_refused(&["--reads=-5"], "expected a whole number");
    check_refused(&["--duration=0.5"], "expected a whole number");
    check_refused(&["--cache_size=0.5G"], "expected a whole number of bytes");
    check(&["--num=1M", "--reads=2K"], Args::reads, 2000);
}

#[test]
fn of_a_flag_given_twice_the_last_counts() {
    check(&["--num=100000", "--sync", "--num=5"], |args| args.num, 5);
    check(&["--sync", "--sync=0"], |args| args.sync, false);
    check(
        &["--benchmarks=fillseq,readseq", "--benchmarks=fillrandom"],
        |args| args.benchmarks.clone(),
        "fillrandom".parse().unwrap(),
    );
}

#[test]
fn a_flag_that_would_do_nothing_is_refused() {
    check_refused(&["--value_size_min=7"], "--value_size_distribution");
    check_refused(&["--value_size_max=7"], "--value_size_distribution");
    check_refused(&["--value_size=7", "--value_size_distribution=uniform"], "--value_size_min");
    check_refused(&["--report_file=x.csv"], "--report_interval_seconds");
    check_refused(&["--filter=none", "--bloom_bits=10"], "--filter=none");
    check(&["--filter=none"], Args::bloom_bits, 0);
    check(&["--filter=none", "--bloom_bits=0"], Args::bloom_bits, 0);
    check(&[], Args::bloom_bits, 10);
    check(
        &["--value_size_distribution=uniform", "--value_size_max=7000"],
        Args::value_sizes,
        ValueSizes::Uniform { min: 100, max: 7000 },
    );
}

#[test]
fn a_database_is_used_or_deleted_and_has_a_name() {
    check_refused(&["--use_existing_db"], "--db");
    check_refused(&["--destroy_existing_db"], "--db");
    check_refused(&["--db=x", "--use_existing_db", "--destroy_existing_db"], "one of them");
    check(&["--db=x", "--destroy_existing_db"], |args| args.destroy_existing_db, true);
}

#[test]
fn a_benchmark_that_only_reads_needs_something_to_read() {
    check_refused(&["--benchmarks=readrandom"], "--benchmarks=fillrandom,readrandom");
    check_refused(&["--benchmarks=stats,readwhilewriting"], "--use_existing_db");
    check(&["--benchmarks=readrandom", "--db=x", "--use_existing_db"], |args| args.use_existing_db, true);
}

/// What the help shows must work as it stands.
#[test]
fn the_examples_of_the_help_are_accepted() {
    let commands: Vec<&str> = EXAMPLES.lines().filter_map(|line| line.strip_prefix("  db_bench")).collect();
    assert!(commands.len() > 4, "{commands:?}");
    for command in commands {
        let flags: Vec<&str> = command.split_whitespace().collect();
        parse(&flags).unwrap_or_else(|error| panic!("{command}: {error}"));
    }
}

#[test]
fn durability_follows_sync_unless_it_is_given() {
    check(&[], Args::durability, DurabilityArg::Os);
    check(&["--sync"], Args::durability, DurabilityArg::Disk);
    check(&["--durability=memory"], Args::durability, DurabilityArg::Memory);
    check(&["--sync=1", "--durability=disk"], Args::durability, DurabilityArg::Disk);
    check_refused(&["--sync=1", "--durability=os"], "--durability");
}

#[test]
fn benchmarks_are_a_list_with_suffixes() {
    let names = |args: &Args| args.benchmarks.0.iter().map(Spec::to_string).collect::<Vec<_>>().join(",");
    check(&["--benchmarks=fillseq,readrandom[X3-W1]"], names, "fillseq,readrandom[X3-W1]".to_string());
    check(&[], names, DEFAULT_BENCHMARKS.to_string());
    check_refused(&["--benchmarks=fillsek"], "did you mean 'fillseq'?");
}

#[test]
fn an_unknown_flag_is_answered_with_the_nearest_one() {
    check_refused(&["--valuesize=7"], "--value_size");
    check_refused(&["--key-size=7"], "--key_size");
    check_refused(&["stray"], "stray");
}

#[test]
fn what_cannot_work_is_refused_before_anything_starts() {
    check_refused(&["--threads=0"], "--threads");
    check_refused(&["--num=0"], "--num");
    check_refused(&["--batch_size=0"], "--batch_size");
    check_refused(&["--compression_ratio=0"], "--compression_ratio");
    check_refused(&["--compression_ratio=nan"], "--compression_ratio");
    let uniform = "--value_size_distribution=uniform";
    check_refused(&[uniform, "--value_size_min=7", "--value_size_max=6"], "--value_size_min 7");
    check_refused(&["--key_size=0"], "--key_size");
    check_refused(&["--key_size=1", "--num=257"], "cannot tell");
    check_refused(&["--key_shape=user", "--key_size=16"], "--key_size");
    check_refused(&["--readwritepercent=101"], "101");
    check_refused(&["--compression_type=snappy"], "lz4");
}

#[test]
fn help_names_every_benchmark_and_every_flag_has_a_heading() {
    use clap::CommandFactory;
    let command = Args::command();
    for flag in command.get_arguments() {
        assert!(
            flag.get_help_heading().is_some() || flag.get_id() == "help" || flag.get_id() == "version",
            "{flag}"
        );
        assert!(flag.get_help().is_some(), "{flag}");
    }
    let help = Args::command().render_long_help().to_string();
    let words: Vec<&str> = help.split_whitespace().collect();
    assert!(words.join(" ").contains(&DEFAULT_BENCHMARKS.replace(',', ", ")), "{help}");
    assert!(help.contains("ycsbf") && help.contains("Examples:"), "{help}");
}
