//! The lockout race: an account allows three wrong passwords, and many are tried at once. Each attempt counts those
//! before it, and if there are fewer than three is recorded and let through to the password check. Whoever gets more than
//! three through has found a race.
//!
//! Prints for several ways to write it how many were let through.

use esker::{Db, Isolation, Keyspace, Result, RetryPolicy, Transaction, TransactionOptions};
use std::path::Path;
use std::sync::Barrier;

const ALLOWED: usize = 3;
const ATTEMPTS: usize = 8;

/// How an attempt makes sure that what it counted still holds when it is recorded.
#[derive(Clone, Copy, PartialEq)]
enum Guard {
    /// By its level alone.
    Level(Isolation),
    /// By a lock on the account, taken before it counts.
    Lock,
    /// By a lock on the range that it counts.
    RangeLock,
}

fn main() -> Result<()> {
    let dir = std::env::temp_dir().join(format!("esker-lockout-{}", std::process::id()));
    let ways = [
        ("read committed", Guard::Level(Isolation::ReadCommitted)),
        ("repeatable read", Guard::Level(Isolation::RepeatableRead)),
        ("serializable", Guard::Level(Isolation::Serializable)),
        ("read committed with get_for_update", Guard::Lock),
        ("read committed with scan_for_update", Guard::RangeLock),
    ];
    let result = ways.into_iter().try_for_each(|(name, guard)| {
        let through = race(&dir.join(name), guard)?;
        println!("{name}: {through} of {ATTEMPTS} attempts let through, {ALLOWED} are allowed");
        Ok(())
    });
    let _ = std::fs::remove_dir_all(&dir);
    result
}

/// All attempts at once.
fn race(dir: &Path, guard: Guard) -> Result<usize> {
    let db = Db::open(dir)?;
    let (accounts, attempts) = (db.keyspace("accounts")?, db.keyspace("attempts")?);
    accounts.put("ada", "a password's hash")?;
    let all_counted = Barrier::new(ATTEMPTS);
    let results: Vec<Result<bool>> = std::thread::scope(|scope| {
        let attempt = |number| {
            let (db, accounts, attempts, all_counted) = (&db, &accounts, &attempts, &all_counted);
            scope.spawn(move || try_password(db, accounts, attempts, guard, number, all_counted))
        };
        let threads: Vec<_> = (0..ATTEMPTS).map(attempt).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let through =
        results.into_iter().try_fold(0, |sum, result| result.map(|let_in| sum + usize::from(let_in)))?;
    assert_eq!(through, attempts.iter().count(), "what is let through is recorded");
    db.close()?;
    Ok(through)
}

/// Whether this attempt may try a password.
fn try_password(
    db: &Db,
    accounts: &Keyspace,
    attempts: &Keyspace,
    guard: Guard,
    number: usize,
    all_counted: &Barrier,
) -> Result<bool> {
    let level = match guard {
        Guard::Level(level) => level,
        _ => Isolation::ReadCommitted,
    };
    let mut is_first_try = true;
    db.transact_with(
        TransactionOptions::new(level).label("login"),
        RetryPolicy::new().attempts(1000),
        |txn| {
            let count = count(txn, accounts, attempts, guard)?;
            // The worst that can happen: everybody counts before anybody records. Whoever holds a lock is alone here.
            if std::mem::take(&mut is_first_try) && matches!(guard, Guard::Level(_)) {
                all_counted.wait();
            }
            if count >= ALLOWED {
                return Ok(false);
            }
            txn.put(attempts, format!("ada:{number}"), "wrong")?;
            Ok(true)
        },
    )
}

fn count(txn: &mut Transaction, accounts: &Keyspace, attempts: &Keyspace, guard: Guard) -> Result<usize> {
    match guard {
        Guard::RangeLock => return Ok(txn.scan_for_update(attempts, "ada:".."ada;")?.len()),
        Guard::Lock => drop(txn.get_for_update(accounts, "ada")?),
        Guard::Level(_) => {}
    }
    txn.prefix(attempts, "ada:").try_fold(0, |count, item| item.map(|_| count + 1))
}
