//! What transactions say that get into each other's way: conflicts, lock timeouts, who waits for whom, deadlocks.
//!
//! `docs/isolation.md` quotes what this prints; a test holds the two against each other.
#![expect(clippy::disallowed_methods, reason = "a program of its own, which uses the system directly")]

use esker::{Db, ErrorKind, Isolation, Keyspace, Result, TransactionOptions};
use std::path::Path;
use std::time::Duration;

fn main() -> Result<()> {
    let scratch = std::env::temp_dir().join(format!("esker-locks-{}", std::process::id()));
    let result = show(&scratch);
    let _ = std::fs::remove_dir_all(&scratch);
    result
}

fn show(dir: &Path) -> Result<()> {
    let db = Db::open(dir)?;
    let accounts = db.keyspace("accounts")?;
    for name in ["ada", "bob", "eve"] {
        accounts.put(name, "100")?;
    }
    write_conflict(&db, &accounts)?;
    serialization_conflict(&db, &accounts)?;
    lock_timeout(&db, &accounts)?;
    waiting(&db, &accounts)?;
    deadlock(&db, &accounts)?;
    db.close()
}

fn labeled(isolation: Isolation, label: &str) -> TransactionOptions {
    TransactionOptions::new(isolation).label(label)
}

fn write_conflict(db: &Db, accounts: &Keyspace) -> Result<()> {
    let mut txn = db.begin(Isolation::RepeatableRead)?;
    txn.get(accounts, "ada")?;
    accounts.put("ada", "90")?;
    let error = txn.put(accounts, "ada", "110").expect_err("ada was changed");
    println!("# a write conflict\n{error:?}\n");
    let error = txn.get(accounts, "bob").expect_err("it can only be rolled back");
    println!("# whatever is done next\n{error:?}\n");
    txn.rollback();
    Ok(())
}

fn serialization_conflict(db: &Db, accounts: &Keyspace) -> Result<()> {
    let mut one = db.begin(Isolation::Serializable)?;
    let mut two = db.begin(Isolation::Serializable)?;
    one.get(accounts, "ada")?;
    two.get(accounts, "bob")?;
    one.put(accounts, "bob", "0")?;
    two.put(accounts, "ada", "0")?;
    one.commit()?;
    let error = two.commit().expect_err("write skew");
    println!("# a serialization failure\n{error:?}\n");
    Ok(())
}

fn lock_timeout(db: &Db, accounts: &Keyspace) -> Result<()> {
    let mut holder = db.begin_with(labeled(Isolation::ReadCommitted, "monthly interest"))?;
    holder.put(accounts, "ada", "101")?;
    let options = labeled(Isolation::ReadCommitted, "transfer").lock_timeout(Duration::from_millis(20));
    let mut txn = db.begin_with(options)?;
    let error = txn.put(accounts, "ada", "50").expect_err("the key is locked");
    println!("# a lock timeout\n{error:?}\n");
    Ok(())
}

/// Three in a row, seen while they wait.
fn waiting(db: &Db, accounts: &Keyspace) -> Result<()> {
    let mut holder = db.begin_with(labeled(Isolation::ReadCommitted, "monthly interest"))?;
    holder.scan_for_update(accounts, "a".."c")?;
    std::thread::scope(|scope| {
        let put = |label: &'static str| {
            move || -> Result<()> {
                let mut txn = db.begin_with(labeled(Isolation::ReadCommitted, label))?;
                txn.put(accounts, "bob", "50")?;
                txn.commit().map(|_| ())
            }
        };
        let first = scope.spawn(put("transfer"));
        wait_until(|| db.wait_graph().edges.len() == 1);
        let second = scope.spawn(put("refund"));
        wait_until(|| db.wait_graph().edges.len() >= 2);
        println!("# the open transactions");
        db.transactions().iter().for_each(|txn| println!("{txn}"));
        let graph = db.wait_graph();
        println!("\n# who waits for whom\n{graph}\n\n# the same for Graphviz\n{}", graph.to_dot());
        holder.rollback();
        [first, second].into_iter().try_for_each(|thread| thread.join().expect("no panic"))
    })
}

/// Two transfers between the same accounts in opposite directions.
fn deadlock(db: &Db, accounts: &Keyspace) -> Result<()> {
    let mut there = db.begin_with(labeled(Isolation::ReadCommitted, "ada to bob"))?;
    let mut back = db.begin_with(labeled(Isolation::ReadCommitted, "bob to ada"))?;
    there.put(accounts, "ada", "90")?;
    back.put(accounts, "bob", "90")?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| there.put(accounts, "bob", "110"));
        wait_until(|| !db.wait_graph().edges.is_empty());
        let error = back.put(accounts, "ada", "110").expect_err("one of them has to give way");
        assert_eq!(error.kind(), ErrorKind::Deadlock);
        println!("# the error of the victim\n{error:?}\n");
        if let Some(report) = error.deadlock() {
            println!("# its report\n{report}");
        }
        thread.join().expect("no panic")
    })?;
    there.commit().map(|_| ())
}

fn wait_until(condition: impl Fn() -> bool) {
    while !condition() {
        std::thread::sleep(Duration::from_millis(1));
    }
}
