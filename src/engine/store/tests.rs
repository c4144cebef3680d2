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
    assert_eq!(store.version_of(core_keyspace, b"k").unwrap(), None);
    db.put("k", "1").unwrap();
    let reader = store.reader(PinKind::Transaction, None);
    db.delete("k").unwrap();
    let deleted = store.visible_seq();
    assert_eq!(store.version_of(core_keyspace, b"k").unwrap(), Some(deleted));
    assert_eq!(store.assigned_seq(), deleted);
    db.flush().unwrap();
    assert_eq!(store.read_at(core_keyspace, b"k", &reader).unwrap().unwrap(), "1");
    assert_eq!(store.read_at(core_keyspace, b"k", &store.reader_at(deleted).unwrap()).unwrap(), None);
    let mut cursor = store.cursor_at(core_keyspace, reader, Bounds::default()).unwrap();
    cursor.seek_to_first().unwrap();
    assert_eq!((cursor.key(), cursor.value()), (&b"k"[..], &b"1"[..]));
}
