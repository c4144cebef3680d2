//! The quick start of the README, which has the same text. `cargo run --example quickstart [directory]`
use esker::{Durability, Options, WriteOptions};

fn main() -> esker::Result<()> {
    let path = std::env::args().nth(1).unwrap_or("data".to_string());
    let db = Options::new().memory_budget(256 << 20).open(path)?; // or Db::open(path)

    db.put("user:1", "ada")?; // on the disk when this returns
    assert_eq!(db.get("user:1")?.unwrap(), "ada");
    db.put_with("seen:1", "today", WriteOptions::new().durability(Durability::Os))?;

    let emails = db.keyspace("emails")?; // a tree of its own, sharing the log
    let mut batch = db.batch();
    batch.put(&db.default_keyspace(), "user:2", "grace")?;
    batch.put(&emails, "grace@example.org", "2")?;
    batch.commit()?; // both or neither

    let snapshot = db.snapshot();
    db.delete("user:1")?;
    for item in snapshot.prefix("user:").rev() {
        let (key, value) = item?;
        println!("{key:?} = {value:?}");
    }
    assert!(snapshot.get("user:1")?.is_some() && db.get("user:1")?.is_none());
    db.close()
}
