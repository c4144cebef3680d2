//! What each isolation level allows, shown by transactions that run into each other on purpose.
//!
//! Prints a section for each anomaly with one line for each level. `docs/isolation.md` explains them; a test holds what
//! it quotes against what this prints.

use esker::env::Env;
use esker::{Db, Isolation, Keyspace, Options, Result, Slice, Transaction, TransactionOptions};

const LEVELS: [Isolation; 4] = [
    Isolation::ReadUncommitted,
    Isolation::ReadCommitted,
    Isolation::RepeatableRead,
    Isolation::Serializable,
];

/// Runs the transactions of an anomaly at a level, and says what came of it.
type Story = fn(&Db, &Keyspace, Isolation) -> Result<String>;

const STORIES: [(&str, Story); 8] = [
    ("dirty read: a value that is then taken back", dirty_read),
    ("read skew: two reads, and a commit between them", read_skew),
    ("phantom: a range read twice, and a commit between", phantom),
    ("lost update: two add 1 to a counter of 10", lost_update),
    ("lost update prevented: the same, reading with get_for_update", lost_update_prevented),
    ("write skew: two doctors leave, each if the other one stays", write_skew),
    ("phantom write skew: two book a room, each if nobody has", double_booking),
    ("read-only anomaly: a report that fits no order", read_only_anomaly),
];

fn main() -> Result<()> {
    for (title, story) in STORIES {
        println!("{title}");
        for level in LEVELS {
            // In memory, so that the example leaves nothing behind; `Db::open(path)` for a database on disk.
            let db = Options::new().env(Env::memory(1).0).open("/anomalies")?;
            let outcome = story(&db, &db.default_keyspace(), level)?;
            println!("  {:<17} {outcome}", level.to_string());
        }
        println!();
    }
    Ok(())
}

fn number(value: Option<Slice>) -> i64 {
    value.and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok()).unwrap_or(0)
}

fn get(txn: &Transaction, ks: &Keyspace, key: &str) -> Result<i64> {
    Ok(number(txn.get(ks, key)?))
}

/// What became of two transactions of which one may have failed.
fn outcome(state: String, results: [Result<()>; 2]) -> String {
    let failed = results.into_iter().find_map(Result::err);
    failed.map_or(state.clone(), |error| format!("{state}; one failed: {error:?}"))
}

fn dirty_read(db: &Db, ks: &Keyspace, level: Isolation) -> Result<String> {
    db.put("x", "10")?;
    let mut writer = db.begin(level)?;
    let reader = db.begin(level)?;
    writer.put(ks, "x", "101")?;
    let first = get(&reader, ks, "x")?;
    writer.rollback();
    Ok(format!("reads {first}, then {}", get(&reader, ks, "x")?))
}

fn read_skew(db: &Db, ks: &Keyspace, level: Isolation) -> Result<String> {
    db.put("x", "10")?;
    db.put("y", "20")?;
    let reader = db.begin(level)?;
    let x = get(&reader, ks, "x")?;
    let mut transfer = db.begin(level)?;
    transfer.put(ks, "x", "15")?;
    transfer.put(ks, "y", "15")?;
    transfer.commit()?;
    let y = get(&reader, ks, "y")?;
    reader.commit()?;
    Ok(format!("x + y is 30 at all times, and read as {}", x + y))
}

fn phantom(db: &Db, ks: &Keyspace, level: Isolation) -> Result<String> {
    db.put("order:1", "")?;
    let reader = db.begin(level)?;
    let before = reader.prefix(ks, "order:").count();
    let mut writer = db.begin(level)?;
    writer.put(ks, "order:2", "")?;
    writer.commit()?;
    let after = reader.prefix(ks, "order:").count();
    reader.commit()?;
    Ok(format!("counts {before}, then {after}"))
}

fn lost_update(db: &Db, ks: &Keyspace, level: Isolation) -> Result<String> {
    db.put("counter", "10")?;
    let (mut first, mut second) = (db.begin(level)?, db.begin(level)?);
    let (one, two) = (get(&first, ks, "counter")?, get(&second, ks, "counter")?);
    first.put(ks, "counter", (one + 1).to_string())?;
    first.commit()?;
    let result = second.put(ks, "counter", (two + 1).to_string()).and_then(|()| second.commit().map(|_| ()));
    Ok(outcome(format!("counter is {}", number(db.get("counter")?)), [Ok(()), result]))
}

/// The second waits in `get_for_update` for the first: so each has a thread, and here a function, of its own. With a lazy
/// snapshot it sees, at every level, what it waited for.
fn lost_update_prevented(db: &Db, ks: &Keyspace, level: Isolation) -> Result<String> {
    db.put("counter", "10")?;
    let options = TransactionOptions::new(level).lazy_snapshot();
    let add = || {
        let mut txn = db.begin_with(options.clone())?;
        let counter = number(txn.get_for_update(ks, "counter")?);
        txn.put(ks, "counter", (counter + 1).to_string())?;
        txn.commit().map(|_| ())
    };
    let results = std::thread::scope(|scope| {
        let threads = [scope.spawn(add), scope.spawn(add)];
        threads.map(|thread| thread.join().expect("no panic"))
    });
    Ok(outcome(format!("counter is {}", number(db.get("counter")?)), results))
}

fn write_skew(db: &Db, ks: &Keyspace, level: Isolation) -> Result<String> {
    db.put("on call:ada", "1")?;
    db.put("on call:bob", "1")?;
    let (mut ada, mut bob) = (db.begin(level)?, db.begin(level)?);
    let others = [get(&ada, ks, "on call:bob")?, get(&bob, ks, "on call:ada")?];
    assert_eq!(others, [1, 1], "each sees the other one on call");
    ada.put(ks, "on call:ada", "0")?;
    bob.put(ks, "on call:bob", "0")?;
    let results = [ada.commit().map(|_| ()), bob.commit().map(|_| ())];
    let left = number(db.get("on call:ada")?) + number(db.get("on call:bob")?);
    Ok(outcome(format!("{left} on call"), results))
}

fn double_booking(db: &Db, ks: &Keyspace, level: Isolation) -> Result<String> {
    let (mut ada, mut bob) = (db.begin(level)?, db.begin(level)?);
    let booked = [ada.prefix(ks, "room 1:").count(), bob.prefix(ks, "room 1:").count()];
    assert_eq!(booked, [0, 0], "each finds the room free");
    ada.put(ks, "room 1:ada", "9 to 10")?;
    bob.put(ks, "room 1:bob", "9 to 10")?;
    let results = [ada.commit().map(|_| ()), bob.commit().map(|_| ())];
    Ok(outcome(format!("{} bookings", db.prefix("room 1:").count()), results))
}

/// Fekete, O'Neil, O'Neil 2004: a withdrawal is charged a fee if it overdraws both accounts together. It did not see the
/// deposit, so it came before it, and charges the fee. But the report has seen the deposit and not the withdrawal.
fn read_only_anomaly(db: &Db, ks: &Keyspace, level: Isolation) -> Result<String> {
    db.put("checking", "0")?;
    db.put("savings", "0")?;
    let mut withdrawal = db.begin(level)?;
    let before = get(&withdrawal, ks, "checking")? + get(&withdrawal, ks, "savings")?;
    let mut deposit = db.begin(level)?;
    deposit.put(ks, "savings", "20")?;
    deposit.commit()?;
    let report = db.begin(level)?;
    let reported = (get(&report, ks, "checking")?, get(&report, ks, "savings")?);
    report.commit()?;
    let fee = if before < 10 { 1 } else { 0 };
    withdrawal.put(ks, "checking", (-10 - fee).to_string())?;
    let result = withdrawal.commit().map(|_| ());
    let now = (number(db.get("checking")?), number(db.get("savings")?));
    Ok(outcome(format!("reported {reported:?}, now {now:?}"), [Ok(()), result]))
}
