//! The examples do what they say: run as programs, on small data.

use crate::process::{example, text_of};
use crate::support::{Random, seed};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

fn run(name: &str, arguments: &[&str]) -> Output {
    example(name).args(arguments).output().expect("start an example")
}

/// What a program prints that ends well.
fn prints(name: &str, arguments: &[&str]) -> String {
    let output = run(name, arguments);
    assert!(output.status.success(), "{name} {arguments:?}: {}", text_of(&output));
    String::from_utf8(output.stdout).expect("text").trim_end().to_string()
}

/// What a program says that fails in an orderly way.
fn complains(name: &str, arguments: &[&str]) -> String {
    let output = run(name, arguments);
    assert_eq!(output.status.code(), Some(1), "{name} {arguments:?}: {}", text_of(&output));
    String::from_utf8(output.stderr).expect("text").trim_end().to_string()
}

#[test]
fn the_quick_start_runs_twice_on_one_database() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path().to_str().expect("text");
    let expect = "\"user:2\" = \"grace\"\n\"user:1\" = \"ada\"";
    assert_eq!(prints("quickstart", &[dir]), expect);
    assert_eq!(prints("quickstart", &[dir]), expect);
}

#[test]
fn the_tour_shows_what_it_promises() {
    let expect = "\
earth is Some(\"ocean\")
vulcan is None
pluto is None, was Some(\"ice\")
planet:earth has ocean
planet:mars has dust
planet:venus has clouds
the last planet is planet:venus
mars/deimos takes 30.3 h
mars/phobos takes 7.7 h
keyspaces: default, moons, orbits";
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path().to_str().expect("text");
    assert_eq!(prints("tour", &[]), expect);
    assert_eq!(prints("tour", &[dir]), expect);
    assert_eq!(prints("tour", &[dir]), expect, "on the database of the first run");
}

fn write(root: &Path, name: &str, contents: impl AsRef<[u8]>) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().expect("below the root")).expect("create a directory");
    fs::write(path, contents).expect("write a file");
}

/// A tree of files of random words, some repeated often, some rare.
fn random_tree(root: &Path, files: u64, random: &mut Random) {
    for file in 0..files {
        let mut text = String::new();
        for _ in 0..random.below(300) {
            let rare = random.chance(20);
            let word = if rare { random.below(100_000) } else { random.below(50) };
            write!(text, "word{word} ").expect("write to a string");
        }
        write(root, &format!("directory{}/file{file}.txt", file % 7), text);
    }
    write(root, "binary", b"\0\x01\x02");
}

/// Starts a program and kills it after a random time of at most this, unless it is through by then: then the answer
/// is true.
fn gets_through(name: &str, arguments: &[&str], life_micros_max: u64, random: &mut Random) -> bool {
    let mut program = example(name);
    program.args(arguments).stdout(Stdio::null()).stderr(Stdio::inherit());
    let mut child = program.spawn().expect("start an example");
    std::thread::sleep(Duration::from_micros(random.below(life_micros_max)));
    child.kill().expect("kill the example");
    let status = child.wait().expect("wait for the example");
    assert!(status.success() || status.signal() == Some(9), "{name} failed by itself");
    status.success()
}

#[test]
fn an_index_built_with_kills_equals_one_built_without() {
    let seed = seed(0xC0DE);
    println!("ESKER_SEED={seed}");
    let mut random = Random::new(seed);
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name).to_str().expect("text").to_string();
    let (tree, whole, killed) = (path("tree"), path("whole"), path("killed"));
    random_tree(Path::new(&tree), 300, &mut random);
    assert!(prints("code_index", &[&whole, "load", &tree]).starts_with("300 files indexed"));
    let mut through = false;
    let kills = (0..10).take_while(|_| {
        through = gets_through("code_index", &[&killed, "load", &tree], 40_000, &mut random);
        !through
    });
    println!("{} kills", kills.count());
    if !through {
        prints("code_index", &[&killed, "load", &tree]);
    }
    prints("code_index", &[&killed, "check"]);
    let (expect, found) =
        (prints("code_index", &[&whole, "digest"]), prints("code_index", &[&killed, "digest"]));
    assert_eq!(found, expect);
    let again = prints("code_index", &[&killed, "load", &tree]);
    assert!(again.starts_with("0 files indexed (0 bytes), 301 unchanged"), "{again}");
    assert_eq!(prints("code_index", &[&killed, "digest"]), expect);
}

#[test]
fn queries_rank_files_and_follow_changes() {
    let dir = tempfile::tempdir().expect("a directory");
    let tree = dir.path().join("tree");
    write(&tree, "often.rs", "cache cache cache compaction compaction");
    write(&tree, "once.rs", "fn cache() { compaction }");
    write(&tree, "half.rs", "Cache_line cache; // no more");
    write(&tree, "none.rs", "nothing of it");
    let db = dir.path().join("db").to_str().expect("text").to_string();
    let tree_name = tree.to_str().expect("text");
    let files = |words: &[&str]| -> Vec<String> {
        let answer = prints("code_index", &[&[db.as_str(), "query"], words].concat());
        let hits = answer.lines().filter_map(|line| line.split_once(". "));
        let names = hits.filter_map(|(_, hit)| hit.split("  ").next());
        names.map(|name| name.rsplit('/').next().unwrap_or(name).to_string()).collect()
    };
    prints("code_index", &[&db, "load", tree_name]);
    assert_eq!(files(&["CACHE", "compaction"]), ["often.rs", "once.rs", "half.rs"]);
    assert_eq!(files(&["cache_line"]), ["half.rs"]);
    assert_eq!(files(&["absent"]), [""; 0]);

    write(&tree, "once.rs", "compaction compaction compaction compaction, changed");
    fs::remove_file(tree.join("often.rs")).expect("remove a file");
    let report = prints("code_index", &[&db, "load", tree_name]);
    assert!(report.starts_with("1 files indexed") && report.contains("1 removed"), "{report}");
    assert_eq!(files(&["cache"]), ["half.rs"]);
    assert_eq!(files(&["compaction"]), ["once.rs"]);
    let checked = prints("code_index", &[&db, "check"]);
    assert!(checked.contains("index: 3 files"), "{checked}");
}

#[test]
fn code_index_says_what_is_wrong() {
    let dir = tempfile::tempdir().expect("a directory");
    let missing = dir.path().join("missing");
    let missing = missing.to_str().expect("text");
    write(dir.path(), "foreign/notes.txt", "not a database");
    let foreign = dir.path().join("foreign");
    let foreign = foreign.to_str().expect("text");
    let check = |arguments: &[&str], expect: &str| {
        let message = complains("code_index", arguments);
        assert!(message.contains(expect), "{arguments:?}: {message}");
    };
    check(&[], "usage");
    check(&[missing, "load"], "usage");
    check(&[missing, "query", "word"], "there is no database");
    check(&[foreign, "load", foreign], "not a database of esker");
    check(&[missing, "load", "/no/such/tree"], "/no/such/tree");
}

#[test]
fn accounts_lock_out_and_expire() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = dir.path().join("db");
    let db = db.to_str().expect("text");
    let at =
        |now: &'static str, command: &[&str]| prints("accounts", &[&[db, "--now", now], command].concat());
    let fails = |now: &'static str, command: &[&str], expect: &str| {
        let message = complains("accounts", &[&[db, "--now", now], command].concat());
        assert!(message.contains(expect), "{command:?}: {message}");
    };
    at("0", &["register", "ada", "secret"]);
    at("0", &["register", "bob", "other"]);
    fails("0", &["register", "ada", "again"], "taken");
    fails("0", &["login", "ada", "wrong"], "wrong name or password");
    fails("0", &["login", "eve", "wrong"], "wrong name or password");
    assert_eq!(at("0", &["list"]), "ada: 0 sessions, 1 wrong attempts\nbob: 0 sessions, 0 wrong attempts");

    let early = at("1000", &["login", "ada", "secret"]);
    let late = at("5000", &["login", "ada", "secret"]);
    let other = at("5000", &["login", "bob", "other"]);
    assert_eq!(at("6000", &["whoami", &early]), "ada");
    assert_eq!(at("6000", &["list"]), "ada: 2 sessions, 0 wrong attempts\nbob: 1 sessions, 0 wrong attempts");

    // The first session expires 14 days after second 1000.
    fails("1210600", &["whoami", &early], "expired");
    assert_eq!(at("1210600", &["sweep"]), "1 sessions expired");
    assert_eq!(at("1210600", &["whoami", &late]), "ada");
    assert_eq!(at("1210600", &["logout-all", "ada"]), "1 sessions ended");
    fails("1210600", &["whoami", &late], "no such session");
    at("1210600", &["logout", &other]);
    fails("1210600", &["logout", &other], "no such session");

    assert_eq!(at("2000000", &["race", "ada", "24"]), "5 counted, 19 refused by the lock");
    fails("2000000", &["login", "ada", "secret"], "locked");
    at("2000000", &["unlock", "ada"]);
    at("2000000", &["login", "ada", "secret"]);
}

/// It counted an error as a session.
#[test]
fn damage_is_not_counted_as_a_session() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = dir.path().to_str().expect("text");
    prints("accounts", &[db, "register", "ada", "engine"]);
    let login = || prints("accounts", &[db, "login", "ada", "engine"]);
    assert_ne!(login(), login());
    let whole = prints("accounts", &[db, "list"]);
    let mut found = 0;
    for entry in fs::read_dir(dir.path()).expect("list").flatten() {
        if entry.path().extension().is_none_or(|kind| kind != "sst") {
            continue;
        }
        let bytes = fs::read(entry.path()).expect("read a table");
        let mut damaged = bytes.clone();
        damaged[8] ^= 1;
        fs::write(entry.path(), &damaged).expect("damage a table");
        let output = run("accounts", &[db, "list"]);
        let printed = String::from_utf8_lossy(&output.stdout);
        found += usize::from(!output.status.success());
        assert!(
            !output.status.success() || printed.trim_end() == whole,
            "{}: {printed}",
            entry.path().display()
        );
        fs::write(entry.path(), &bytes).expect("repair a table");
    }
    assert!(found >= 2, "a table of each keyspace is read");
}

#[test]
fn every_event_is_applied_exactly_once() {
    let seed = seed(0x0CE);
    println!("ESKER_SEED={seed}");
    let mut random = Random::new(seed);
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name).to_str().expect("text").to_string();
    let (db, file) = (path("db"), path("events"));
    let mut expected = BTreeMap::new();
    let mut events = String::new();
    const EVENTS: u64 = 30_000;
    for _ in 0..EVENTS {
        let account = format!("account{:03}", random.below(300));
        let amount = random.below(2001) as i64 - 1000;
        writeln!(events, "{account} {amount}").expect("write to a string");
        *expected.entry(account).or_insert(0) += amount;
    }
    fs::write(&file, events).expect("write the events");
    for _ in 0..15 {
        if gets_through("exactly_once", &[&db, "ingest", &file], 60_000, &mut random) {
            break;
        }
        let first_line = |text: String| text.lines().next().unwrap_or_default().to_string();
        println!("killed after {}", first_line(prints("exactly_once", &[&db, "balances"])));
    }
    prints("exactly_once", &[&db, "ingest", &file]);
    let mut balances = format!("{EVENTS} events");
    for (account, balance) in expected {
        write!(balances, "\n{account} {balance}").expect("write to a string");
    }
    assert!(prints("exactly_once", &[&db, "balances"]) == balances, "some event was lost or applied twice");
    // A file with more events goes on where it ended; the same one changes nothing.
    let again = prints("exactly_once", &[&db, "ingest", &file]);
    assert_eq!(again, format!("{EVENTS} events applied, {EVENTS} of them before"));
    assert!(prints("exactly_once", &[&db, "balances"]) == balances);
    assert!(complains("exactly_once", &[&db]).contains("usage"));
    assert!(complains("exactly_once", &[&db, "ingest", "/no/such/file"]).contains("/no/such/file"));
}

/// Times in a text made equal.
fn without_times(text: &str) -> String {
    let is_time = |word: &str| {
        let number = word.trim_end_matches(|one: char| one.is_alphabetic());
        !number.is_empty() && number.len() < word.len() && number.parse::<f64>().is_ok()
    };
    let mut masked = String::new();
    for piece in text.split_inclusive(|one: char| !one.is_alphanumeric() && one != '.') {
        let word = piece.trim_end_matches(|one: char| !one.is_alphanumeric());
        let rest = &piece[word.len()..];
        masked.push_str(if is_time(word) { "TIME" } else { word });
        masked.push_str(rest);
    }
    masked
}

#[test]
fn times_are_masked_and_nothing_else() {
    assert_eq!(without_times("waits 1.5ms for t8, 12µs."), "waits TIME for t8, TIME.");
    assert_eq!(without_times("reads 101, then 10"), "reads 101, then 10");
}

/// What the document quotes is what the programs print.
#[test]
fn the_document_of_the_levels_quotes_the_examples() {
    let printed: Vec<String> =
        ["anomalies", "locks", "lockout"].iter().map(|name| without_times(&prints(name, &[]))).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join("docs/isolation.md")).expect("the document");
    let quotes: Vec<&str> =
        document.split("```text\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(quotes.len() >= 12, "{} quotes", quotes.len());
    for quote in quotes {
        let quote = without_times(quote.trim_end());
        let is_printed = printed.iter().any(|text| text.contains(&quote));
        assert!(is_printed, "no example prints\n{quote}\nbut\n{}", printed.join("\n\n"));
    }
}

#[test]
fn the_lockout_race_is_won_only_where_the_level_allows_it() {
    let lines = prints("lockout", &[]);
    let through: Vec<&str> =
        lines.lines().filter_map(|line| line.split(": ").nth(1)?.split(' ').next()).collect();
    assert_eq!(through, ["8", "8", "3", "3", "3"], "{lines}");
}

#[test]
fn the_bank_keeps_its_money_at_every_level() {
    let lines = prints("bank", &["4", "200"]);
    assert_eq!(lines.matches(": 800 transfers, ").count(), 4, "{lines}");
}
