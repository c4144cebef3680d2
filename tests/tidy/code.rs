//! What code may not do: reach outside past `Env`, be unsafe without an argument, silence lints, leave things behind.

use crate::Complaint;
use crate::source::{Source, paths, tokens};

/// A path that only some files may use.
struct Ban {
    /// Segments that stand next to each other in a path; a macro ends with `!`.
    path: &'static str,
    /// What to use.
    instead: &'static str,
    /// Files and folders for which it is meant.
    allowed: &'static [&'static str],
}

const fn ban(path: &'static str, instead: &'static str, allowed: &'static [&'static str]) -> Ban {
    Ban { path, instead, allowed }
}

/// The system behind `Env`.
const DOOR: &[&str] = &["src/env/os"];

/// Library code outside tests.
const BANS: &[Ban] = &[
    ban("std::fs", "`env::Fs`", DOOR),
    ban("std::net", "nothing: the library has no network", &[]),
    ban("std::process", "nothing: the library starts and ends no process", DOOR),
    ban("std::env", "an option: the library reads no environment variables", &[]),
    ban("Instant::now", "`env::Clock::now`", DOOR),
    ban("SystemTime::now", "`env::Clock::unix_micros`", DOOR),
    ban("thread::spawn", "`env::Spawner::spawn`", DOOR),
    ban("thread::scope", "`env::Spawner::spawn`", DOOR),
    ban("thread::Builder", "`env::Spawner::spawn`", DOOR),
    ban("thread::sleep", "`env::Clock::sleep`", DOOR),
    ban("thread::park", "`base::sync::Waiter` or `base::sync::Condvar`", &["src/base/sync.rs"]),
    ban("rand", "`base::random`, seeded from `Env`", &[]),
    ban("thread_rng", "`base::random`, seeded from `Env`", &[]),
    ban("std::sync::Mutex", "`base::sync::Mutex`, which has a rank", &[]),
    ban("std::sync::RwLock", "`base::sync::RwLock`, which has a rank", &[]),
    ban("std::sync::Condvar", "`base::sync::Condvar`", &[]),
    ban("parking_lot", "`base::sync`", &["src/base/sync.rs"]),
    ban("libc", "`env`", DOOR),
    ban("memmap2", "`env::ReadFile::map`", DOOR),
    ban("xxhash_rust", "`base::checksum`", &["src/base/checksum.rs"]),
    ban("crossbeam_skiplist", "`memtable`", &["src/memtable"]),
    ban("crossbeam_epoch", "`engine::epoch_cell`", &["src/memtable", "src/engine"]),
    ban("lz4_flex", "`sstable::frame`", &["src/sstable"]),
    ban("bloomfilter", "`sstable::filter`", &["src/sstable"]),
    ban("quick_cache", "`cache`", &["src/cache", "src/engine/tables.rs"]),
    ban(
        "rayon::spawn",
        "`env::Spawner::spawn`: rayon is for CPU work inside one job, in a pool of its own",
        &[],
    ),
    ban("rayon::join", "a pool of its own and `ThreadPool::install`", &[]),
    ban("rayon::scope", "a pool of its own and `ThreadPool::install`", &[]),
    ban("println!", "an event or an error: a library does not print", &[]),
    ban("print!", "an event or an error: a library does not print", &[]),
    ban("eprintln!", "an event or an error: a library does not print", &[]),
    ban("eprint!", "an event or an error: a library does not print", &[]),
];

/// Uses of banned paths.
pub fn check_banned(file: &Source) -> Vec<Complaint> {
    let tokens = tokens(&file.code);
    let mut complaints = Vec::new();
    for path in paths(&tokens) {
        for ban in BANS {
            let is_allowed = ban.allowed.iter().any(|place| is_within(&file.path, place));
            if !is_allowed && contains(&path.segments, &segments_of(ban.path)) {
                let Ban { path: what, instead, .. } = ban;
                complaints.push(format!("{}:{}: `{what}`: use {instead}", file.path, path.line));
            }
        }
    }
    complaints
}

fn is_within(path: &str, place: &str) -> bool {
    path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || rest == ".rs")
}

/// The segments of a banned path. A path of one segment means a crate: it must begin a path.
fn segments_of(path: &str) -> Vec<&str> {
    match path.strip_suffix('!') {
        Some(name) => vec![name, "!"],
        None => path.split("::").collect(),
    }
}

fn contains(path: &[&str], banned: &[&str]) -> bool {
    match banned {
        [only] => path.len() > 1 && path.first() == Some(only),
        _ => path.windows(banned.len()).any(|window| window == banned),
    }
}

/// Files that may contain `unsafe`, each small and with a safe surface.
const UNSAFE_FILES: [&str; 7] = [
    "src/memtable/list.rs",
    "src/memtable/tests/accounting.rs",
    "src/engine/epoch_cell.rs",
    "src/env/os/guard.rs",
    "src/env/os/region.rs",
    "src/env/os/sys.rs",
    "src/env/os/tests/",
];

/// Lines above an `unsafe` in which its argument is looked for, if no empty line comes between.
const ARGUMENT_LINES_MAX: usize = 12;

/// `unsafe` outside its files, and `unsafe` blocks and impls without an argument.
pub fn check_unsafe(file: &Source) -> Vec<Complaint> {
    let tokens = tokens(&file.code);
    let mut complaints = Vec::new();
    let is_allowed = UNSAFE_FILES.iter().any(|place| file.path == *place || file.path.starts_with(place));
    let lines: Vec<&str> = file.text.lines().collect();
    let comments: Vec<&str> = file.comments.lines().collect();
    for pair in tokens.windows(2).filter(|pair| pair[0].text == "unsafe") {
        let line = pair[0].line;
        if !is_allowed {
            complaints.push(format!("{}:{line}: `unsafe` in a file that is not for it", file.path));
        }
        if matches!(pair[1].text, "{" | "impl") && !is_argued(&lines, &comments, line) {
            complaints.push(format!("{}:{line}: `unsafe` without a `SAFETY:` comment above it", file.path));
        }
    }
    complaints
}

fn is_argued(lines: &[&str], comments: &[&str], line: usize) -> bool {
    let first = line.saturating_sub(ARGUMENT_LINES_MAX + 1);
    let above = (first..line).rev().take_while(|index| !lines[*index].trim().is_empty());
    above.into_iter().any(|index| comments[index].contains("SAFETY:"))
}

/// Attributes that silence a lint: in the library none without being expected, and nowhere without a reason.
pub fn check_lint_escapes(file: &Source, is_library: bool) -> Vec<Complaint> {
    let tokens = tokens(&file.code);
    let mut complaints = Vec::new();
    for (index, pair) in tokens.windows(2).enumerate().filter(|(_, pair)| pair[0].text == "[") {
        let (line, name) = (pair[1].line, pair[1].text);
        if !matches!(name, "allow" | "expect") || tokens.get(index + 2).map(|token| token.text) != Some("(") {
            continue;
        }
        let arguments = tokens[index..].iter().take_while(|token| token.text != "]");
        if !arguments.into_iter().any(|token| token.text == "reason") {
            complaints.push(format!("{}:{line}: `{name}` of a lint without `reason`", file.path));
        }
        if is_library && name == "allow" {
            complaints.push(format!("{}:{line}: `allow` of a lint: use `expect` with a reason", file.path));
        }
    }
    complaints
}

/// Tests that are ignored without saying why.
pub fn check_ignored(file: &Source) -> Vec<Complaint> {
    let tokens = tokens(&file.code);
    let bare = tokens
        .windows(3)
        .filter(|three| (three[0].text, three[1].text, three[2].text) == ("[", "ignore", "]"));
    bare.map(|three| format!("{}:{}: `#[ignore]` without a reason", file.path, three[0].line)).collect()
}

/// Macros that stand for work not done.
const LEFTOVER_MACROS: [&str; 3] = ["todo", "unimplemented", "dbg"];

/// Leftover macros, in any Rust file.
pub fn check_leftover_macros(file: &Source) -> Vec<Complaint> {
    let tokens = tokens(&file.code);
    let mut complaints = Vec::new();
    for path in paths(&tokens) {
        if let [.., name, "!"] = path.segments[..]
            && LEFTOVER_MACROS.contains(&name)
        {
            complaints.push(format!("{}:{}: `{name}!` was left behind", file.path, path.line));
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(check: impl Fn(&Source) -> Vec<Complaint>, path: &str, text: &str) -> usize {
        check(&Source::new(path, text)).len()
    }

    #[test]
    fn every_ban_can_be_broken() {
        for ban in BANS {
            let call = match ban.path.strip_suffix('!') {
                Some(name) => format!("fn f() {{ {name}!(\"\"); }}"),
                None => format!("fn f() {{ {}::x(); }}", ban.path),
            };
            assert!(count(check_banned, "src/elsewhere/mod.rs", &call) >= 1, "{call}");
        }
    }

    #[test]
    fn banned_paths_are_found_in_any_form_and_nowhere_else() {
        for (text, expected) in [
            ("use std::fs::File;", 1),
            ("use std::{io, fs};", 1),
            ("use std::thread; fn f() { thread::sleep(d); }", 1),
            ("use std::thread::{sleep, Thread};", 1),
            ("use std::time::Instant; fn f(i: Instant) {}", 0),
            ("fn f() { clock.now(); spawner.spawn(x); }", 0),
            ("// std::fs::File\nfn f() { g(\"std::fs\"); }", 0),
            ("fn rand(x: u32) {} fn g() { rand(1); }", 0),
            ("use std::sync::{Arc, Mutex};", 1),
        ] {
            assert_eq!(count(check_banned, "src/engine/x.rs", text), expected, "{text}");
        }
        assert_eq!(count(check_banned, "src/env/os/mod.rs", "use std::fs::File;"), 0);
        assert_eq!(count(check_banned, "src/env/os.rs", "use std::fs::File;"), 0);
        assert_eq!(count(check_banned, "src/env/oslo.rs", "use std::fs::File;"), 1);
    }

    #[test]
    fn unsafe_needs_its_place_and_its_argument() {
        let argued = "fn f() {\n// SAFETY: because.\nlet x =\n    unsafe { g() };\n}";
        assert_eq!(count(check_unsafe, "src/env/os/sys.rs", argued), 0);
        assert_eq!(count(check_unsafe, "src/engine/db.rs", argued), 1);
        let silent = "// SAFETY: of something else.\n\nfn f() { unsafe { g() } }";
        assert_eq!(count(check_unsafe, "src/env/os/sys.rs", silent), 1);
        assert_eq!(count(check_unsafe, "src/env/os/sys.rs", "unsafe impl Send for X {}"), 1);
        assert_eq!(count(check_unsafe, "src/engine/db.rs", "#![deny(unsafe_code)] // unsafe { }"), 0);
    }

    #[test]
    fn lint_escapes_need_a_reason() {
        let path = "src/engine/db.rs";
        let library = |file: &Source| check_lint_escapes(file, true);
        let tests = |file: &Source| check_lint_escapes(file, false);
        let expected = "#[expect(clippy::panic, reason = \"why\")]\nfn f() {}";
        let allowed = "#[allow(clippy::panic, reason = \"why\")]\nfn f() {}";
        assert_eq!((count(library, path, expected), count(tests, path, expected)), (0, 0));
        assert_eq!((count(library, path, allowed), count(tests, path, allowed)), (1, 0));
        assert_eq!(count(tests, path, "#![expect(unsafe_code)]\n#[test] fn reason() {}"), 1);
        assert_eq!(count(tests, path, "#![cfg_attr(test, allow(clippy::panic))]\nx.expect(\"y\")"), 0);
    }

    #[test]
    fn ignored_tests_need_a_reason() {
        assert_eq!(count(check_ignored, "tests/x.rs", "#[test]\n#[ignore]\nfn f() {}"), 1);
        assert_eq!(count(check_ignored, "tests/x.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}"), 0);
    }

    #[test]
    fn leftover_macros_are_found() {
        assert_eq!(count(check_leftover_macros, "src/x.rs", "fn f() { todo!() }"), 1);
        assert_eq!(count(check_leftover_macros, "src/x.rs", "fn f() { std::dbg!(x) }"), 1);
        assert_eq!(count(check_leftover_macros, "src/x.rs", "// todo!()\nfn todo() {}"), 0);
    }
}
