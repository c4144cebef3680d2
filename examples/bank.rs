//! Transfers between accounts from many threads: the sum stays, whatever the level, and who gets into a deadlock tries
//! again.
//!
//! ```text
//! bank [THREADS [TRANSFERS]]
//! ```
//!
//! Prints a line for each level, and fails if money was made or lost.
#![expect(clippy::disallowed_methods, reason = "a program of its own, which uses the system directly")]

use esker::{
    Db, Durability, Isolation, Keyspace, Options, Result, RetryPolicy, Slice, Transaction, TransactionOptions,
};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const ACCOUNTS: u64 = 5;
const START: u64 = 1000;

const LEVELS: [Isolation; 4] = [
    Isolation::ReadUncommitted,
    Isolation::ReadCommitted,
    Isolation::RepeatableRead,
    Isolation::Serializable,
];

fn main() -> ExitCode {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let (threads, transfers) = match (numbers.next().unwrap_or(Ok(4)), numbers.next().unwrap_or(Ok(500))) {
        (Ok(threads), Ok(transfers)) => (threads, transfers),
        _ => {
            eprintln!("usage: bank [THREADS [TRANSFERS]]");
            return ExitCode::FAILURE;
        }
    };
    let dir = std::env::temp_dir().join(format!("esker-bank-{}", std::process::id()));
    let result = LEVELS.into_iter().try_for_each(|level| {
        let line = day(&dir.join(level.to_string()), level, threads, transfers)?;
        println!("{line}");
        Ok::<(), esker::Error>(())
    });
    let _ = std::fs::remove_dir_all(&dir);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bank: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn name(number: u64) -> String {
    format!("account {number:02}")
}

fn amount(value: Option<Slice>) -> u64 {
    value.and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok()).unwrap_or(0)
}

/// Transfers at one level, and one who counts the money all the time.
fn day(dir: &Path, level: Isolation, threads: u64, transfers: u64) -> Result<String> {
    // A transfer that a power cut takes back is taken back whole: for an example that is enough.
    let db = Options::new().durability(Durability::Os).open(dir)?;
    let accounts = db.keyspace("accounts")?;
    (0..ACCOUNTS).try_for_each(|number| accounts.put(name(number), START.to_string()))?;
    let (audits, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let auditor = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                audit(&db, &accounts)?;
                audits.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        let clerk = |seed| {
            let (db, accounts) = (&db, &accounts);
            scope.spawn(move || work(db, accounts, level, seed, transfers))
        };
        let clerks: Vec<_> = (1..=threads).map(clerk).collect();
        let done: Result<()> = clerks.into_iter().try_for_each(|thread| thread.join().expect("no panic"));
        is_over.store(true, Ordering::Relaxed);
        auditor.join().expect("no panic").and(done)
    })?;
    audit(&db, &accounts)?;
    let stats = db.transaction_stats();
    let line = format!(
        "{level}: {} transfers, {} deadlocks and {} conflicts tried again, the sum was right {} times",
        threads * transfers,
        stats.locks.deadlocks,
        stats.write_conflicts + stats.serialization_conflicts,
        audits.into_inner() + 1
    );
    db.close()?;
    Ok(line)
}

fn work(db: &Db, accounts: &Keyspace, level: Isolation, seed: u64, transfers: u64) -> Result<()> {
    let mut random = seed;
    for _ in 0..transfers {
        // Xorshift (Marsaglia 2003).
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let (from, to) = (random % ACCOUNTS, random / ACCOUNTS % ACCOUNTS);
        let policy = RetryPolicy::new().attempts(1000);
        db.transact_with(TransactionOptions::new(level).label("transfer"), policy, |txn| {
            transfer(txn, accounts, &name(from), &name(to), random % 50)
        })?;
    }
    Ok(())
}

/// Whoever locks accounts in an order of their own can meet in a deadlock. Locking the smaller name first would avoid
/// it; here it is to be seen that nothing bad comes of it.
fn transfer(txn: &mut Transaction, accounts: &Keyspace, from: &str, to: &str, sum: u64) -> Result<()> {
    let available = amount(read(txn, accounts, from)?);
    if from == to || available < sum {
        return Ok(());
    }
    txn.put(accounts, from, (available - sum).to_string())?;
    // Gives the others a chance to get in the way.
    std::thread::yield_now();
    let there = amount(read(txn, accounts, to)?);
    txn.put(accounts, to, (there + sum).to_string())
}

/// A value to be changed by what depends on it. Below REPEATABLE READ only a lock keeps others from changing it as well.
fn read(txn: &mut Transaction, accounts: &Keyspace, name: &str) -> Result<Option<Slice>> {
    match txn.isolation() {
        Isolation::ReadUncommitted | Isolation::ReadCommitted => txn.get_for_update(accounts, name),
        _ => txn.get(accounts, name),
    }
}

/// Counts the money while transfers go on, at a level that sees one moment.
fn audit(db: &Db, accounts: &Keyspace) -> Result<()> {
    let options = TransactionOptions::new(Isolation::RepeatableRead).read_only().label("audit");
    let txn = db.begin_with(options)?;
    let sum = txn.iter(accounts).try_fold(0, |sum, item| item.map(|(_, value)| sum + amount(Some(value))))?;
    assert_eq!(sum, ACCOUNTS * START, "money was made or lost");
    txn.commit().map(|_| ())
}
