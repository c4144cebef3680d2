//! What the command line accepts and what it says to what it does not.

use super::*;

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

#[test]
fn sizes_have_suffixes() {
    let check = |text: &str, expect: Result<u64, &str>| match (parse_count(text), expect) {
        (Ok(found), Ok(expect)) => assert_eq!(found, expect, "{text}"),
        (Err(found), Err(expect)) => assert!(found.contains(expect), "{text}: {found}"),
        (found, expect) => panic!("{text}: found {found:?}, expected {expect:?}"),
    };
    check("0", Ok(0));
    check("64", Ok(64));
    check("64b", Ok(64));
    check("64K", Ok(64 << 10));
    check("64MiB", Ok(64 << 20));
    check("2gb", Ok(2 << 30));
    check("1T", Ok(1 << 40));
    check("64i", Err("suffix"));
    check("64x", Err("suffix"));
    check("", Err("empty"));
    check("M", Err("empty"));
    check("99999999T", Err("large"));
    check("18446744073709551616", Err("large"));
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
    let names = |args: &Args| args.benchmarks.iter().map(Spec::to_string).collect::<Vec<_>>().join(",");
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
    check_refused(&["--use_existing_db"], "--db");
    check_refused(&["--compression_ratio=0"], "--compression_ratio");
    check_refused(&["--compression_ratio=nan"], "--compression_ratio");
    check_refused(&["--value_size_min=7", "--value_size_max=6"], "--value_size_min");
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
    assert!(help.contains("ycsbf") && help.contains("Examples:"), "{help}");
}
