//! What a transaction layer will rely on.

use super::*;
use crate::db::Db;
use crate::engine::{Bounds, Options};
use crate::env::Env;

fn open() -> Db {
    let (env, _) = Env::memory(1);
    Options::tiny().background_threads(0).env(env).open("/db").unwrap()
}

#[test]
fn versions_are_numbered_in_commit_order_and_survive_a_flush() {
    let db = open();
    let keyspace = db.default_keyspace();
    let (store, core_keyspace) = (keyspace.store(), keyspace.core_keyspace());
    let changed = |seq| {
        let in_range = store.changed_in_range_since(core_keyspace, &Bounds::default(), seq).unwrap();
        let changed = store.changed_since(core_keyspace, b"k", seq).unwrap();
        assert_eq!(in_range.is_some(), changed, "since {seq}");
        changed
    };
    assert!(!changed(0));
    db.put("k", "1").unwrap();
    let reader = store.reader(PinKind::Transaction, None);
    db.delete("k").unwrap();
    let deleted = store.visible_seq();
    assert!(changed(0) && changed(reader.seq()) && !changed(deleted));
    assert_eq!(store.assigned_seq(), deleted);
    db.flush().unwrap();
    assert!(changed(0) && changed(reader.seq()) && !changed(deleted));
    assert_eq!(store.read_at(core_keyspace, b"k", &reader).unwrap().unwrap(), "1");
    assert_eq!(store.read_at(core_keyspace, b"k", &store.reader_at(deleted).unwrap()).unwrap(), None);
    let mut cursor = store.cursor_at(core_keyspace, reader, Bounds::default()).unwrap();
    cursor.seek_to_first().unwrap();
    assert_eq!((cursor.key(), cursor.value()), (&b"k"[..], &b"1"[..]));
}
