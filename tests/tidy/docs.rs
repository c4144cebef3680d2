//! Documents against code: what can be counted in both must agree.

use crate::Complaint;
use crate::source::{Source, tokens};

/// The toolchain file and the README say the version that the manifest claims.
pub fn check_toolchain(cargo: &str, toolchain: &str, readme: &str) -> Vec<Complaint> {
    let Some(version) = quoted_after(cargo, "rust-version = ") else {
        return vec!["Cargo.toml: no `rust-version`".to_string()];
    };
    let mut complaints = Vec::new();
    let channel = quoted_after(toolchain, "channel = ").unwrap_or_default();
    if channel != format!("{version}.0") {
        complaints.push(format!("rust-toolchain.toml: channel {channel}, Cargo.toml claims {version}"));
    }
    if !readme.contains(&format!("Rust {version}")) {
        complaints.push(format!("README.md: does not say `Rust {version}`"));
    }
    complaints
}

fn quoted_after<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim_matches('"').split('"').next()
}

/// Relative links name files or folders of the project.
pub fn check_links(path: &str, text: &str, all: &[String]) -> Vec<Complaint> {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut complaints = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for part in line.split("](").skip(1) {
            let target = part.split([')', '#']).next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let full = resolve(folder, target);
            let exists = all.iter().any(|file| *file == full || file.starts_with(&format!("{full}/")));
            if !exists {
                complaints.push(format!("{path}:{}: a link to {target}, which is not there", index + 1));
            }
        }
    }
    complaints
}

fn resolve(folder: &str, target: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    parts.join("/")
}

/// Headings that Keep a Changelog knows.
const CHANGE_KINDS: [&str; 6] = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"];

/// The changelog: a title, versions with the one of the manifest first, known headings, and entries under headings.
pub fn check_changelog(text: &str, cargo: &str) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    let mut say = |line: usize, what: &str| complaints.push(format!("CHANGELOG.md:{line}: {what}"));
    if text.lines().next() != Some("# Changelog") {
        say(1, "the first line is not `# Changelog`");
    }
    let versions: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let current = format!("[{}] - ", quoted_after(cargo, "version = ").unwrap_or_default());
    if !versions.first().is_some_and(|first| first.starts_with(&current)) {
        say(1, &format!("the first version is not `## {current}`"));
    }
    let (mut in_version, mut in_kind) = (false, false);
    for (index, line) in text.lines().enumerate() {
        if let Some(version) = line.strip_prefix("## ") {
            (in_version, in_kind) = (true, false);
            if !is_version_heading(version) {
                say(index + 1, "a version is not `[x.y.z] - YYYY-MM-DD` or `[x.y.z] - unreleased`");
            }
        } else if let Some(kind) = line.strip_prefix("### ") {
            in_kind = true;
            if !in_version || !CHANGE_KINDS.contains(&kind) {
                say(index + 1, "a heading that Keep a Changelog does not know, or outside a version");
            }
        } else if line.starts_with("* ") && !in_kind {
            say(index + 1, "an entry outside a heading");
        }
    }
    complaints
}

fn is_version_heading(heading: &str) -> bool {
    let Some((version, date)) = heading.strip_prefix('[').and_then(|rest| rest.split_once("] - ")) else {
        return false;
    };
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let is_date = || {
        let parts: Vec<&str> = date.split('-').collect();
        parts.len() == 3 && parts.iter().all(|part| is_number(part)) && date.len() == 10
    };
    version.split('.').count() == 3
        && version.split('.').all(is_number)
        && (date == "unreleased" || is_date())
}

/// Headings that every decision has.
const DECISION_PARTS: [&str; 4] =
    ["## Context", "## Options", "## Choice", "## How we would notice that it was wrong"];

/// Decisions: numbered from 0001 without gap, complete, one page, and listed in ARCHITECTURE.md.
pub fn check_decisions(decisions: &[(String, String)], architecture: &str) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for (index, (name, text)) in decisions.iter().enumerate() {
        let mut say = |what: String| complaints.push(format!("docs/decisions/{name}: {what}"));
        let number = format!("{:04}", index + 1);
        if !name.starts_with(&format!("{number}-")) || !name.ends_with(".md") {
            say(format!("its name should begin with {number}- and end with .md"));
        }
        if !text.starts_with(&format!("# {number}. ")) {
            say(format!("its first line should begin with `# {number}. `"));
        }
        for part in DECISION_PARTS {
            if !text.lines().any(|line| line == part) {
                say(format!("it has no `{part}`"));
            }
        }
        if text.lines().count() > 80 {
            say("it is longer than a page (80 lines)".to_string());
        }
        if !architecture.contains(&format!("docs/decisions/{name}")) {
            say("ARCHITECTURE.md does not list it".to_string());
        }
    }
    if decisions.is_empty() {
        complaints.push("docs/decisions: empty".to_string());
    }
    complaints
}

/// A name with the number it has on disk or in an order.
type Numbered = (String, String);

/// `Name = 1,` in an enum.
fn numbered_variants(code: &str, name: &str) -> Vec<Numbered> {
    let tokens = tokens(code);
    let head = ["enum", name, "{"];
    let Some(start) = tokens.windows(3).position(|three| three.iter().map(|token| token.text).eq(head))
    else {
        return Vec::new();
    };
    let body = tokens[start..].split(|token| token.text == "}").next().unwrap_or_default();
    let pairs = body.windows(3).filter(|three| three[1].text == "=");
    pairs.map(|three| (three[2].text.to_string(), three[0].text.to_string())).collect()
}

/// Variants of an enum without numbers.
fn variants(code: &str, name: &str) -> Vec<String> {
    let tokens = tokens(code);
    let head = ["enum", name, "{"];
    let Some(start) = tokens.windows(3).position(|three| three.iter().map(|token| token.text).eq(head))
    else {
        return Vec::new();
    };
    let body = tokens[start + 2..].split(|token| token.text == "}").next().unwrap_or_default();
    let named = body.windows(2).filter(|two| two[1].text == ",");
    named.map(|two| two[0].text.to_string()).collect()
}

/// `const NAME: u64 = 1;`, or any unsigned type, where the value is a plain number.
fn numbered_constants(code: &str) -> Vec<Numbered> {
    let tokens = tokens(code);
    let constants = tokens.windows(7).filter(|seven| {
        (seven[0].text, seven[2].text, seven[4].text, seven[6].text) == ("const", ":", "=", ";")
            && seven[5].text.bytes().all(|byte| byte.is_ascii_digit())
    });
    constants.map(|seven| (seven[5].text.to_string(), seven[1].text.to_string())).collect()
}

/// `(1, "name"` in the text itself: tuples of a number and a literal.
fn numbered_names(text: &str) -> Vec<Numbered> {
    let tuples = text.split('(').skip(1).filter_map(|part| {
        let (number, rest) = part.split_once(", \"")?;
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| (number.to_string(), rest.split('"').next().unwrap_or_default().to_string()))
    });
    tuples.collect()
}

/// Ranks of locks stand in docs/locking.md as `| 4 | `Commit` |`, all and no others, in their order.
pub fn check_ranks_listed(sync: &str, locking: &str) -> Vec<Complaint> {
    let ranks = numbered_variants(&Source::new("sync.rs", sync).code, "Rank");
    let rows: Vec<Numbered> = locking.lines().filter_map(numbered_row).collect();
    if ranks.is_empty() {
        return vec!["src/base/sync.rs: no ranks found".to_string()];
    }
    if ranks == rows {
        return Vec::new();
    }
    vec![format!("docs/locking.md: ranks {rows:?}, src/base/sync.rs has {ranks:?}")]
}

/// Number and name of a row `| 4 | `Commit` | … |`.
fn numbered_row(line: &str) -> Option<Numbered> {
    let mut cells = line.strip_prefix("| ")?.split(" | ");
    let (number, name) = (cells.next()?, cells.next()?);
    let name = name.strip_prefix('`')?.strip_suffix('`')?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then(|| (number.to_string(), name.to_string()))
}

/// Options stand in docs/tuning.md as rows that begin with their name, all and no others.
pub fn check_options_listed(options: &str, tuning: &str) -> Vec<Complaint> {
    let code = Source::new("options", options).code;
    let tokens = tokens(&code);
    let setters: Vec<&str> = tokens
        .windows(6)
        .filter(|six| {
            (six[0].text, six[1].text, six[3].text, six[4].text, six[5].text)
                == ("pub", "fn", "(", "mut", "self")
        })
        .map(|six| six[2].text)
        .collect();
    if setters.is_empty() {
        return vec!["src/engine/options: no setters found".to_string()];
    }
    let rows = tuning.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let rows: Vec<&str> = rows.filter(|name| name.starts_with(char::is_lowercase)).collect();
    let missing = setters.iter().filter(|name| !rows.contains(name));
    let stale = rows.iter().filter(|name| !setters.contains(name));
    let missing = missing.map(|name| format!("docs/tuning.md: option `{name}` has no row"));
    missing.chain(stale.map(|name| format!("docs/tuning.md: there is no option `{name}`"))).collect()
}

/// Every kind of error has a row in docs/durability.md.
pub fn check_errors_listed(error: &str, durability: &str) -> Vec<Complaint> {
    let kinds = variants(&Source::new("error.rs", error).code, "ErrorKind");
    if kinds.is_empty() {
        return vec!["src/base/error.rs: no kinds of error found".to_string()];
    }
    let missing = kinds.iter().filter(|kind| !durability.contains(&format!("\n| `{kind}` |")));
    missing.map(|kind| format!("docs/durability.md: error kind `{kind}` has no row")).collect()
}

/// A text that docs/format.md must contain, and where it comes from.
pub struct Fact {
    origin: &'static str,
    text: String,
}

/// What the code says of bytes on disk.
pub fn format_facts(read: &dyn Fn(&str) -> String) -> Vec<Fact> {
    let code = |path: &str| Source::new(path, &read(path)).code;
    let mut facts = Vec::new();
    let mut add = |origin: &'static str, least: usize, numbered: Vec<Numbered>, quote: &str| {
        assert!(numbered.len() >= least, "{origin}: only {numbered:?} found");
        let rows = numbered.into_iter().map(|(number, name)| format!("| {number} | {quote}{name}{quote} |"));
        facts.extend(rows.map(|text| Fact { origin, text }));
    };
    for (path, name, least) in [
        ("src/base/checksum.rs", "FileTag", 3),
        ("src/base/types.rs", "EntryKind", 2),
        ("src/record/frame.rs", "RecordKind", 4),
        ("src/record/frame.rs", "Part", 4),
        ("src/sstable/mod.rs", "Compression", 2),
        ("src/sstable/mod.rs", "FilterKind", 3),
        ("src/mvcc/record.rs", "SystemRecord", 2),
    ] {
        add(path, least, numbered_variants(&code(path), name), "`");
    }
    add("src/base/types.rs", 5, numbered_names(&read("src/base/types.rs")), "");
    add("src/record/frame.rs", 4, numbered_names(&read("src/record/frame.rs")), "");
    add("src/manifest/settings.rs", 12, numbered_names(&read("src/manifest/settings.rs")), "`");
    let is_tag = |(_, name): &Numbered| name.len() > 4;
    let edit_tags = numbered_constants(&code("src/manifest/edit.rs"));
    add("src/manifest/edit.rs", 12, edit_tags.into_iter().filter(is_tag).collect(), "`");
    let properties = numbered_constants(&code("src/sstable/meta.rs"));
    let properties =
        properties.into_iter().filter(|(_, name)| !matches!(name.as_str(), "MAY_IGNORE" | "TAGS"));
    add("src/sstable/meta.rs", 15, properties.collect(), "`");
    for (path, least) in [("src/mvcc/session.rs", 2), ("src/mvcc/prepared.rs", 8)] {
        add(path, least, numbered_constants(&code(path)), "`");
    }
    for (origin, constant, title) in [
        ("src/record/header.rs", "FORMAT_VERSION", "Logs and manifests: version"),
        ("src/sstable/footer.rs", "VERSION", "Tables: version"),
    ] {
        let constants = numbered_constants(&code(origin));
        let version = constants.into_iter().find(|(_, name)| name == constant);
        let (version, _) = version.unwrap_or_else(|| panic!("{origin}: no {constant}"));
        facts.push(Fact { origin, text: format!("{title} {version}") });
    }
    facts
}

/// Numbers and names on disk stand in docs/format.md.
pub fn check_format_numbers(facts: &[Fact], format: &str) -> Vec<Complaint> {
    let missing = facts.iter().filter(|fact| !format.contains(&fact.text));
    missing.map(|fact| format!("docs/format.md: no `{}`, as in {}", fact.text, fact.origin)).collect()
}

/// The README's quick start is the example, which is compiled and run.
pub fn check_quickstart(readme: &str, example: &str) -> Vec<Complaint> {
    let shown = readme.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next());
    let code: Vec<&str> = example.lines().skip_while(|line| line.starts_with("//!")).collect();
    if shown.is_some_and(|shown| shown.lines().eq(code.iter().copied())) {
        return Vec::new();
    }
    vec!["README.md: its first Rust block is not examples/quickstart.rs".to_string()]
}

/// The README has the one test command that the checks run, and the one benchmark command.
pub fn check_readme_commands(readme: &str) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for command in ["cargo test", "cargo run --release -p db_bench"] {
        let count = readme.lines().filter(|line| line.starts_with(command)).count();
        if count != 1 {
            complaints.push(format!("README.md: {count} lines begin with `{command}`, one is wanted"));
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toolchain_that_differs_is_found() {
        let cargo = "[workspace.package]\nrust-version = \"1.95\"\n";
        let toolchain = "[toolchain]\nchannel = \"1.95.0\"\n";
        assert_eq!(check_toolchain(cargo, toolchain, "needs Rust 1.95").len(), 0);
        assert_eq!(check_toolchain(cargo, "channel = \"1.96.0\"", "needs Rust 1.94").len(), 2);
        assert_eq!(check_toolchain("", toolchain, "").len(), 1);
    }

    #[test]
    fn dead_links_are_found() {
        let all = ["docs/a.md".to_string(), "README.md".to_string()];
        let text = "[a](a.md#part) [r](../README.md) [d](../docs) [w](https://example.org) [s](#here)";
        assert_eq!(check_links("docs/b.md", text, &all).len(), 0);
        assert_eq!(check_links("docs/b.md", "[a](c.md) and [r](README.md)", &all).len(), 2);
    }

    #[test]
    fn a_changelog_out_of_shape_is_found() {
        let cargo = "version = \"0.1.0\"\n";
        let good =
            "# Changelog\n\n## [0.1.0] - unreleased\n\n### Added\n\n* A thing.\n\n## [0.0.1] - 2026-01-02\n";
        assert_eq!(check_changelog(good, cargo), Vec::<String>::new());
        for (bad, why) in [
            (good.replace("# Changelog\n", "# Changes\n"), "title"),
            (good.replace("[0.1.0]", "[0.2.0]"), "version"),
            (good.replace("### Added", "### News"), "heading"),
            (good.replace("### Added\n", ""), "entry"),
            (good.replace("2026-01-02", "soon"), "date"),
        ] {
            assert_eq!(check_changelog(&bad, cargo).len(), 1, "{why}");
        }
    }

    #[test]
    fn an_incomplete_decision_is_found() {
        let body = DECISION_PARTS.join("\n\ntext\n\n");
        let good = ("0001-name.md".to_string(), format!("# 0001. Name\n\n{body}\n"));
        let listed = "see docs/decisions/0001-name.md";
        assert_eq!(check_decisions(std::slice::from_ref(&good), listed).len(), 0);
        assert_eq!(check_decisions(std::slice::from_ref(&good), "").len(), 1);
        assert_eq!(check_decisions(&[], listed).len(), 1);
        assert_eq!(check_decisions(&[("0002-name.md".into(), good.1.clone())], "0002-name.md").len(), 2);
        let partial = good.1.replace("## Options", "## Ideas");
        assert_eq!(check_decisions(&[(good.0.clone(), partial)], listed).len(), 1);
        let long = format!("{}{}", good.1, "line\n".repeat(80));
        assert_eq!(check_decisions(&[(good.0, long)], listed).len(), 1);
    }

    #[test]
    fn a_rank_that_is_not_listed_is_found() {
        let sync = "pub(crate) enum Rank {\n/// First.\nCommit = 4,\nLeaf = 10,\n}";
        let good = "| 4 | `Commit` | x |\n| 10 | `Leaf` | y |\n";
        assert_eq!(check_ranks_listed(sync, good).len(), 0);
        assert_eq!(check_ranks_listed(sync, "| 4 | `Commit` | x |\n").len(), 1);
        assert_eq!(check_ranks_listed(sync, &format!("{good}| 11 | `Gone` | z |\n")).len(), 1);
        assert_eq!(check_ranks_listed("", good).len(), 1);
    }

    #[test]
    fn an_option_that_is_not_explained_is_found() {
        let options = "impl Options {\npub fn a(mut self, x: u64) -> Self {}\npub fn open(self) {}\n}";
        assert_eq!(check_options_listed(options, "| `a` | x |\n| `Style` | y |").len(), 0);
        assert_eq!(check_options_listed(options, "| `b` | x |").len(), 2);
        assert_eq!(check_options_listed("", "| `a` | x |").len(), 1);
    }

    #[test]
    fn an_error_kind_that_is_not_explained_is_found() {
        let error = "pub enum ErrorKind {\n/// One, two.\nIo,\nClosed,\n}";
        assert_eq!(check_errors_listed(error, "\n| `Io` | x |\n| `Closed` | y |").len(), 0);
        assert_eq!(check_errors_listed(error, "\n| `Io` | x |").len(), 1);
        assert_eq!(check_errors_listed("", "").len(), 1);
    }

    #[test]
    fn numbers_are_read_from_code_and_missed_in_the_document() {
        let fact = |text: &str| Fact { origin: "x", text: text.to_string() };
        let facts = [fact("| 1 | `Link` |"), fact("| 5 | prepare |")];
        assert_eq!(check_format_numbers(&facts, "| 1 | `Link` | first |\n| 5 | prepare | later |").len(), 0);
        assert_eq!(check_format_numbers(&facts, "| 2 | `Link` | first |").len(), 2);
        assert_eq!(
            numbered_constants("const A: u64 = 7; const B: u64 = 1 << 3;"),
            [("7".into(), "A".into())]
        );
        assert_eq!(numbered_names("[(5, \"prepare\"), (x, \"y\")]"), [("5".into(), "prepare".into())]);
    }

    #[test]
    fn a_quick_start_that_is_not_the_example_is_found() {
        let readme = "# x\n```rust\nuse a;\n\nfn main() {}\n```\n";
        assert_eq!(check_quickstart(readme, "//! What it is.\nuse a;\n\nfn main() {}\n").len(), 0);
        assert_eq!(check_quickstart(readme, "//! What it is.\nuse b;\n\nfn main() {}\n").len(), 1);
        assert_eq!(check_quickstart("# x\n", "//! What it is.\n").len(), 1);
    }

    #[test]
    fn a_readme_without_its_commands_is_found() {
        let good = "```sh\ncargo run --release -p db_bench\ncargo test --workspace\n```\n";
        assert_eq!(check_readme_commands(good).len(), 0);
        assert_eq!(check_readme_commands("cargo test -p a\ncargo test -p b\n").len(), 2);
    }
}
