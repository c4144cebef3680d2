//! What the project decided to keep, kept by a test: module ranks, the one door outside, no leftovers, documents that
//! match the code.
//!
//! Each check is a pure function from text to a list of complaints, with a test of its own that shows it can fail.
//! The tests in this file apply them to the project. Std only, no I/O but reading files.
//!
//! * `tidy/source.rs`: Rust source without comments and literals, as tokens and paths
//! * `tidy/modules.rs`: which files make up the library, and who may use whom
//! * `tidy/code.rs`: banned calls, `unsafe`, lint escapes, ignored tests, leftovers
//! * `tidy/text.rs`: rules for any text file
//! * `tidy/docs.rs`: documents against code
#![allow(clippy::disallowed_methods, reason = "a test reads the project's files as they are")]

#[path = "tidy/code.rs"]
mod code;
#[path = "tidy/docs.rs"]
mod docs;
#[path = "tidy/modules.rs"]
mod modules;
#[path = "tidy/source.rs"]
mod source;
#[path = "tidy/text.rs"]
mod text;

use source::Source;
use std::fs;
use std::path::{Path, PathBuf};

/// A complaint: where and what.
pub type Complaint = String;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a directory, as paths from the root with `/`, sorted; without build output and hidden directories
/// other than `.ci`.
fn files_below(dir: &Path) -> Vec<String> {
    let mut files = Vec::new();
    let mut pending: Vec<PathBuf> = vec![dir.to_path_buf()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && (!name.starts_with('.') || name == ".ci") {
                    pending.push(path);
                }
            } else {
                files.push(path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/"));
            }
        }
    }
    files.sort();
    files
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn rust_files() -> Vec<Source> {
    let files = files_below(root()).into_iter().filter(|path| path.ends_with(".rs"));
    files.map(|path| Source::new(&path, &read(&path))).collect()
}

fn text_files() -> Vec<(String, String)> {
    let is_text = |path: &String| {
        [".rs", ".md", ".toml", ".lock", ".yml", ".sh"].iter().any(|end| path.ends_with(end))
            || path.starts_with(".ci/")
    };
    files_below(root()).into_iter().filter(is_text).map(|path| (path.clone(), read(&path))).collect()
}

/// The files of the library that are not for tests only.
fn library() -> Vec<Source> {
    let tree = modules::tree(&rust_files(), "src/lib.rs");
    tree.shipped
}

fn assert_none(complaints: Vec<Complaint>) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn modules_use_only_lower_ranks() {
    let library = library();
    assert!(library.len() > 20, "the library has only {} files: the search is broken", library.len());
    assert_none(library.iter().flat_map(modules::check_ranks).collect());
    assert_none(modules::check_table(&library));
}

#[test]
fn no_file_is_dead() {
    let files = rust_files();
    for crate_root in ["src/lib.rs", "db_bench/src/main.rs"] {
        assert_none(modules::check_dead_files(&files, crate_root));
    }
}

#[test]
fn the_outside_is_reached_through_env_only() {
    assert_none(library().iter().flat_map(code::check_banned).collect());
}

#[test]
fn unsafe_code_is_where_it_belongs_and_argued_for() {
    assert_none(rust_files().iter().flat_map(code::check_unsafe).collect());
}

#[test]
fn lints_are_escaped_narrowly_and_with_a_reason() {
    assert_none(library().iter().flat_map(|file| code::check_lint_escapes(file, true)).collect());
    assert_none(rust_files().iter().flat_map(|file| code::check_lint_escapes(file, false)).collect());
}

#[test]
fn no_test_is_ignored_without_a_reason() {
    assert_none(rust_files().iter().flat_map(code::check_ignored).collect());
}

#[test]
fn nothing_is_left_over() {
    assert_none(rust_files().iter().flat_map(code::check_leftover_macros).collect());
    let files = text_files();
    assert_none(files.iter().flat_map(|(path, text)| text::check_leftover_words(path, text)).collect());
}

#[test]
fn every_source_file_opens_with_its_purpose() {
    assert_none(rust_files().iter().flat_map(|file| text::check_opening(&file.path, &file.text)).collect());
}

#[test]
fn no_text_names_the_machine_it_was_written_on() {
    let files = text_files();
    assert_none(files.iter().flat_map(|(path, text)| text::check_private_names(path, text)).collect());
}

#[test]
fn text_files_are_plain() {
    let files = text_files();
    assert_none(files.iter().flat_map(|(path, text)| text::check_plain(path, text)).collect());
}

#[test]
fn dependencies_come_from_the_public_registry() {
    for lock in ["Cargo.lock", "benches/peers/Cargo.lock"] {
        assert_none(text::check_lock(lock, &read(lock)));
    }
}

#[test]
fn the_toolchain_is_said_once() {
    let (cargo, toolchain) = (read("Cargo.toml"), read("rust-toolchain.toml"));
    assert_none(docs::check_toolchain(&cargo, &toolchain, &read("README.md")));
}

#[test]
fn links_lead_somewhere() {
    let all = files_below(root());
    for (path, text) in text_files().iter().filter(|(path, _)| path.ends_with(".md")) {
        assert_none(docs::check_links(path, text, &all));
    }
}

#[test]
fn the_changelog_has_its_shape() {
    assert_none(docs::check_changelog(&read("CHANGELOG.md"), &read("Cargo.toml")));
}

#[test]
fn decisions_are_numbered_complete_and_listed() {
    let decisions: Vec<(String, String)> = files_below(&root().join("docs/decisions"))
        .into_iter()
        .map(|path| (path.rsplit('/').next().unwrap().to_string(), read(&path)))
        .collect();
    assert_none(docs::check_decisions(&decisions, &read("ARCHITECTURE.md")));
}

#[test]
fn locking_lists_every_rank() {
    assert_none(docs::check_ranks_listed(&read("src/base/sync.rs"), &read("docs/locking.md")));
}

#[test]
fn tuning_lists_every_option() {
    let files = ["mod", "keyspace", "write"].map(|file| read(&format!("src/engine/options/{file}.rs")));
    assert_none(docs::check_options_listed(&files.concat(), &read("docs/tuning.md")));
}

#[test]
fn durability_explains_every_error_kind() {
    assert_none(docs::check_errors_listed(&read("src/base/error.rs"), &read("docs/durability.md")));
}

#[test]
fn the_format_document_has_the_numbers_of_the_code() {
    assert_none(docs::check_format_numbers(&docs::format_facts(&read), &read("docs/format.md")));
}

#[test]
fn the_readme_shows_the_example() {
    assert_none(docs::check_quickstart(&read("README.md"), &read("examples/quickstart.rs")));
}

#[test]
fn the_readme_has_one_test_command() {
    assert_none(docs::check_readme_commands(&read("README.md")));
}
