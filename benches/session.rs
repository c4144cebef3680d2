//! What a session costs around its reads and writes: opening, recovering, mixing durabilities, memory under load.
//!
//! ```text
//! cargo bench --bench session                         # everything small, a minute
//! cargo bench --bench session -- --gigabytes 10       # also an open of a database of that size
//! cargo bench --bench session -- --load 20000000      # also peak anonymous memory while so many entries are loaded
//! ```
//!
//! Each line is a median with the lowest and highest of its samples. Compare lines of one run, not of two.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock and files")]

use esker::{Compression, Db, Durability, Event, EventListener, Options, WriteOptions};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str| -> Outcome<Option<u64>> {
        match arguments.iter().position(|argument| argument == name) {
            Some(index) => {
                Ok(Some(arguments.get(index + 1).ok_or(format!("{name} takes a number"))?.parse()?))
            }
            None => Ok(None),
        }
    };
    if let Some(index) = arguments.iter().position(|argument| argument == "--write-and-die") {
        return write_and_die(Path::new(arguments.get(index + 1).ok_or("a directory")?));
    }
    let dir = tempfile::tempdir()?;
    clean_open(&dir.path().join("small"))?;
    replay(&dir.path().join("replay"))?;
    mixed_durability(&dir.path().join("mixed"))?;
    if let Some(gigabytes) = number("--gigabytes")? {
        large_open(&dir.path().join("large"), gigabytes)?;
    }
    if let Some(entries) = number("--load")? {
        memory(&dir.path().join("load"), entries)?;
    }
    Ok(())
}

/// A key whose order is not the order of writing, and a value of a repeated pattern.
fn entry(number: u64, value_bytes: usize) -> (Vec<u8>, Vec<u8>) {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let key = format!("{mixed:016x}").into_bytes();
    let word = mixed.to_le_bytes();
    let value = word.iter().chain(&[b'x'; 8]).copied().cycle().take(value_bytes).collect();
    (key, value)
}

fn fill(db: &Db, entries: u64, value_bytes: usize) -> Outcome {
    let os = WriteOptions::new().durability(Durability::Os);
    for number in 0..entries {
        let (key, value) = entry(number, value_bytes);
        db.put_with(key, value, os)?;
    }
    Ok(())
}

fn report(what: &str, mut samples: Vec<Duration>) {
    samples.sort();
    let (Some(low), Some(high)) = (samples.first(), samples.last()) else { return };
    let median = samples[samples.len() / 2];
    println!("{what:<44} {median:>12.3?}   ({low:.3?} to {high:.3?}, {} samples)", samples.len());
}

/// Opens and closes that change nothing; the time of the open.
fn opens(path: &Path, count: usize) -> Outcome<Vec<Duration>> {
    let mut samples = Vec::new();
    for _ in 0..count {
        let start = Instant::now();
        let db = Db::open(path)?;
        samples.push(start.elapsed());
        assert!(db.get("no such key")?.is_none());
        db.close()?;
    }
    Ok(samples)
}

fn clean_open(path: &Path) -> Outcome {
    let db = Db::open(path)?;
    fill(&db, 10_000, 100)?;
    db.close()?;
    report("open after a clean close, 10,000 entries", opens(path, 200)?);
    Ok(())
}

fn large_open(path: &Path, gigabytes: u64) -> Outcome {
    let db = Options::new().compression(Compression::None).open(path)?;
    let value_bytes = 4096;
    fill(&db, gigabytes * 1_000_000_000 / (value_bytes as u64 + 16), value_bytes)?;
    db.flush()?;
    db.wait_for_background()?;
    let bytes: u64 = db.stats().keyspaces.iter().map(|keyspace| keyspace.bytes()).sum();
    let tables: usize =
        db.stats().keyspaces.iter().flat_map(|keyspace| &keyspace.levels).map(|level| level.tables).sum();
    db.close()?;
    let what = format!("open after a clean close, {:.1} GB in {tables} tables", bytes as f64 / 1e9);
    report(&what, opens(path, 50)?);
    Ok(())
}

/// Options whose memtable holds 64 MiB of log.
fn recovery_options() -> Options {
    Options::new().memory_budget(2 << 30).write_buffer_bytes(512 << 20).wal_bytes_max(1 << 30)
}

/// The child of `replay`: fills a log of 64 MiB and dies without closing.
fn write_and_die(path: &Path) -> Outcome {
    let db = recovery_options().open(path)?;
    let os = WriteOptions::new().durability(Durability::Os);
    let mut number = 0;
    while db.stats().wal_bytes < 64 << 20 {
        for _ in 0..1000 {
            let (key, value) = entry(number, 100);
            db.put_with(key, value, os)?;
            number += 1;
        }
    }
    std::process::abort();
}

fn replay(path: &Path) -> Outcome {
    let (mut syncs, mut replays, mut opens) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..7 {
        let dir = path.join(round.to_string());
        std::fs::create_dir_all(&dir)?;
        let status = Command::new(std::env::current_exe()?).arg("--write-and-die").arg(&dir).status()?;
        assert!(!status.success(), "the child dies by design");
        let recovered = Arc::new(Mutex::new(None));
        let start = Instant::now();
        let db = recovery_options().listener(recovery_listener(&recovered)).open(&dir)?;
        opens.push(start.elapsed());
        let (sync, replay) =
            recovered.lock().map_err(|_| "a listener panicked")?.ok_or("nothing recovered")?;
        syncs.push(sync);
        replays.push(replay);
        let (key, value) = entry(0, 100);
        assert_eq!(db.get(key)?.ok_or("an entry is missing")?, value);
        drop(db);
        std::fs::remove_dir_all(&dir)?;
    }
    report("syncs that must precede a replay, 64 MiB log", syncs);
    report("replay of it, read back from the device", replays);
    report("the whole open after a kill", opens);
    Ok(())
}

/// Keeps how long the syncs and the replay of a recovery took.
fn recovery_listener(recovered: &Arc<Mutex<Option<(Duration, Duration)>>>) -> Arc<dyn EventListener> {
    let recovered = Arc::clone(recovered);
    Arc::new(move |event: &Event| {
        if let Event::Recovered { sync_micros, replay_micros, .. } = event
            && let Ok(mut recovered) = recovered.lock()
        {
            *recovered = Some((Duration::from_micros(*sync_micros), Duration::from_micros(*replay_micros)));
        }
    })
}

/// `Disk` and `Os` writers side by side: what the weaker ones lose by waiting for their place in the order.
fn mixed_durability(path: &Path) -> Outcome {
    for (disk, os) in [(1, 0), (4, 0), (0, 4), (1, 3), (4, 4)] {
        let dir: PathBuf = path.join(format!("{disk}-{os}"));
        let db = Db::open(&dir)?;
        let stop = AtomicBool::new(false);
        let counts = [AtomicU64::new(0), AtomicU64::new(0)];
        let start = Instant::now();
        std::thread::scope(|scope| {
            for thread in 0..disk + os {
                let (durability, count) =
                    if thread < disk { (Durability::Disk, &counts[0]) } else { (Durability::Os, &counts[1]) };
                let (db, stop) = (&db, &stop);
                scope.spawn(move || {
                    let options = WriteOptions::new().durability(durability);
                    let mut number = (thread as u64) << 32;
                    while !stop.load(Ordering::Relaxed) {
                        let (key, value) = entry(number, 100);
                        db.put_with(key, value, options).expect("write");
                        number += 1;
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            std::thread::sleep(Duration::from_secs(2));
            stop.store(true, Ordering::Relaxed);
        });
        let seconds = start.elapsed().as_secs_f64();
        let rate = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64 / seconds;
        println!(
            "{:<44} Disk {:>8.0}/s   Os {:>8.0}/s   {} syncs",
            format!("{disk} Disk and {os} Os writers"),
            rate(&counts[0]),
            rate(&counts[1]),
            db.stats().wal_syncs
        );
        db.close()?;
    }
    Ok(())
}

/// Peak anonymous memory of this process while entries are loaded, against the budget.
fn memory(path: &Path, entries: u64) -> Outcome {
    let db = Db::open(path)?;
    let budget = db.options().memory_budget;
    let stop = AtomicBool::new(false);
    let peak = AtomicU64::new(0);
    std::thread::scope(|scope| -> Outcome {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                peak.fetch_max(anonymous_bytes().unwrap_or(0), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let result = fill(&db, entries, 100).and_then(|()| {
            for number in (0..entries).step_by(97) {
                db.get(entry(number, 100).0)?.ok_or("an entry is missing")?;
            }
            Ok(())
        });
        stop.store(true, Ordering::Relaxed);
        result
    })?;
    let peak = peak.into_inner();
    println!(
        "{:<44} {:>8.1} MiB of {:.1} MiB ({:.0} %)",
        format!("peak anonymous memory, {entries} entries"),
        peak as f64 / f64::from(1 << 20),
        budget as f64 / f64::from(1 << 20),
        peak as f64 * 100.0 / budget as f64
    );
    println!("{}", db.stats());
    db.close()?;
    Ok(())
}

fn anonymous_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("RssAnon:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib << 10)
}
