//! A tour of the API: open, write, read, scan, batches, snapshots, keyspaces.
//!
//! Run with `cargo run --example tour [DIRECTORY]`; without a directory it works in a temporary one.

use esker::{Db, Durability, Options, Result, WriteOptions};
use std::path::Path;

fn main() {
    let outcome = match std::env::args_os().nth(1) {
        Some(dir) => tour(Path::new(&dir)),
        None => {
            let dir = tempfile::tempdir().expect("a temporary directory");
            tour(dir.path())
        }
    };
    if let Err(error) = outcome {
        eprintln!("tour: {error}");
        std::process::exit(1);
    }
}

fn tour(dir: &Path) -> Result<()> {
    // Opens the database, or creates it. Everything has a sensible default; `Options` changes it.
    let db: Db = Options::new().memory_budget(64 << 20).open(dir)?;

    // A write is on the disk when the call returns.
    db.put("planet:earth", "ocean")?;
    db.put("planet:mars", "dust")?;
    db.put("planet:venus", "clouds")?;
    db.put("star:sun", "plasma")?;

    // Unless the write asks for less: this one survives the process being killed, but not yet a power cut.
    db.put_with("planet:pluto", "ice", WriteOptions::new().durability(Durability::Os))?;

    // Absence is `None`; an error is an error and never taken for absence.
    println!("earth is {:?}", text(db.get("planet:earth")?));
    println!("vulcan is {:?}", text(db.get("planet:vulcan")?));

    // A snapshot sees the database as it is now, whatever is written later.
    let before = db.snapshot();
    db.delete("planet:pluto")?;
    println!("pluto is {:?}, was {:?}", text(db.get("planet:pluto")?), text(before.get("planet:pluto")?));
    drop(before);

    // Keys are ordered by their bytes. Iterators see one moment, and go both ways.
    for entry in db.prefix("planet:") {
        let (name, surface) = entry?;
        println!("{} has {}", display(&name), display(&surface));
    }
    if let Some(last) = db.range("planet:".."star:").next_back() {
        println!("the last planet is {}", display(&last?.0));
    }

    // A batch happens whole or not at all, over as many keyspaces as it likes.
    let moons = db.keyspace("moons")?;
    let orbits = db.keyspace("orbits")?;
    let mut batch = db.batch();
    batch.put(&moons, "phobos", "mars")?;
    batch.put(&moons, "deimos", "mars")?;
    batch.put(&orbits, "mars/deimos", "30.3 h")?;
    batch.put(&orbits, "mars/phobos", "7.7 h")?;
    batch.commit()?;
    for entry in orbits.prefix("mars/") {
        let (moon, hours) = entry?;
        println!("{} takes {}", display(&moon), display(&hours));
    }

    println!("keyspaces: {}", db.keyspaces().join(", "));

    // Flushes what is in memory, so that the next open has nothing to recover. Dropping the last handle does the
    // same; `close` tells whether it went well.
    db.close()
}

fn text(value: Option<esker::Slice>) -> Option<String> {
    value.map(|value| display(&value))
}

fn display(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
