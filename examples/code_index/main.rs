//! A full-text index of source trees: file contents in one keyspace, an inverted word index in another.
//!
//! ```text
//! code_index DB load DIR...     index the files below these directories; skips what is indexed and unchanged
//! code_index DB query WORD...   files that contain these words, best first
//! code_index DB check           verify the index against the stored contents
//! code_index DB digest          a digest of everything stored
//! code_index DB stats           figures of the engine
//! ```
//!
//! A load can be killed at any moment and started again: each file is one atomic batch that also records the progress,
//! so a file is either in completely or not at all, and a load that was killed often ends with the same contents as
//! one that was not.
#![expect(clippy::disallowed_methods, reason = "an example reads its files like any program")]

mod check;
mod load;
mod query;
mod store;
mod words;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use store::{Index, Outcome};

const USAGE: &str = "usage: code_index DB load DIR... | query WORD... | check | digest | stats";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("code_index: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Outcome<()> {
    let [db, command, rest @ ..] = arguments else { return Err(USAGE.into()) };
    let db = Path::new(db);
    match (command.as_str(), rest) {
        ("load", [_, ..]) => load(db, rest),
        ("query", [_, ..]) => query(db, rest),
        ("check", []) => check(db),
        ("digest", []) => digest(db),
        ("stats", []) => stats(db),
        _ => Err(USAGE.into()),
    }
}

fn load(db: &Path, roots: &[String]) -> Outcome<()> {
    let index = Index::create(db)?;
    let roots: Vec<PathBuf> = roots.iter().map(PathBuf::from).collect();
    let report = load::load(&index, &roots)?;
    println!("{report}");
    index.close()
}

fn query(db: &Path, words: &[String]) -> Outcome<()> {
    let index = Index::open(db)?;
    let hits = query::query(&index, words)?;
    for (rank, hit) in hits.iter().take(20).enumerate() {
        println!("{:>3}. {hit}", rank + 1);
    }
    println!("{} files", hits.len());
    Ok(())
}

fn check(db: &Path) -> Outcome<()> {
    let index = Index::open(db)?;
    println!("tables: {}", index.db.verify()?);
    println!("index: {}", check::check(&index)?);
    Ok(())
}

fn digest(db: &Path) -> Outcome<()> {
    println!("{}", check::digest(&Index::open(db)?)?);
    Ok(())
}

fn stats(db: &Path) -> Outcome<()> {
    print!("{}", Index::open(db)?.db.stats());
    Ok(())
}
