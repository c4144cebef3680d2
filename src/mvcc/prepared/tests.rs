//! Prepared records: codec, limits, and the ways from prepared to committed or gone.

use super::*;
use crate::base::random::SplitMix64;
use crate::engine::{KeyspaceOptions, Options};
use crate::env::{CrashMode, Env, MemFs};
use std::path::Path;

fn open(fs: &Arc<MemFs>, bytes_max: u64) -> Arc<Core> {
    let env = Env::simulated(fs.clone(), 1);
    let options = Options::tiny().background_threads(0).prepared_bytes_max(bytes_max).env(env);
    crate::engine::open(options, Path::new("/db")).unwrap().0
}

fn close(core: &Arc<Core>) {
    core.close(Vec::new()).unwrap();
}

fn batch(writes: &[(u32, &[u8], &[u8])]) -> BatchBuilder {
    let mut batch = BatchBuilder::new();
    for (keyspace, key, value) in writes {
        batch.put(KeyspaceId(*keyspace), key, value).unwrap();
    }
    batch
}

fn record(xid: &str, writes: &[(u32, &[u8], &[u8])]) -> PreparedRecord {
    let batch = batch(writes);
    PreparedRecord {
        xid: xid.to_string(),
        transaction: 7,
        label: Some("transfer".to_string()),
        isolation: 4,
        unix_micros: 1_577_836_800_000_000,
        operations: batch.bytes().to_vec(),
        count: batch.count(),
        locks: writes
            .iter()
            .map(|(keyspace, key, _)| PreparedLock {
                keyspace: KeyspaceId(*keyspace),
                scope: PreparedScope::Key(key.to_vec()),
                exclusive: true,
            })
            .collect(),
        reads: vec![1, 2, 3],
    }
}

fn rollback(store: &PreparedStore, core: &Arc<Core>, xid: &str) -> Result<SeqNo> {
    let ending = store.ending(xid)?;
    let seq = remove(core, xid)?;
    ending.ended();
    Ok(seq)
}

fn get(core: &Arc<Core>, key: &[u8]) -> Option<Vec<u8>> {
    let keyspace = core.keyspace_by_id(KeyspaceId::DEFAULT).unwrap();
    core.get(&keyspace, key).unwrap().map(|value| value.to_vec())
}

fn random_bytes(random: &mut SplitMix64, len: u64) -> Vec<u8> {
    (0..len).map(|_| random.next_u64() as u8).collect()
}

fn random_record(random: &mut SplitMix64) -> PreparedRecord {
    let mut below = |bound: u64| random.next_u64() % bound;
    let (locks, writes) = (below(6), below(6));
    let (labeled, isolation, reads) = (below(2) == 0, below(4) as u8 + 1, below(50));
    let mut batch = BatchBuilder::new();
    for _ in 0..writes {
        let key = random_bytes(random, 9);
        batch.put(KeyspaceId(random.next_u64() as u32 % 3), &key, &key).unwrap();
    }
    let scope = |random: &mut SplitMix64| match random.next_u64() % 3 {
        0 => PreparedScope::Key(random_bytes(random, 12)),
        1 => PreparedScope::Range { start: Vec::new(), end: None },
        _ => PreparedScope::Range { start: random_bytes(random, 3), end: Some(random_bytes(random, 400)) },
    };
    PreparedRecord {
        xid: "x".to_string(),
        transaction: random.next_u64(),
        label: labeled.then(|| "label".to_string()),
        isolation,
        unix_micros: random.next_u64(),
        operations: batch.bytes().to_vec(),
        count: batch.count(),
        locks: (0..locks)
            .map(|_| PreparedLock {
                keyspace: KeyspaceId(random.next_u64() as u32),
                exclusive: random.next_u64().is_multiple_of(2),
                scope: scope(random),
            })
            .collect(),
        reads: random_bytes(random, reads),
    }
}

#[test]
fn records_round_trip_and_no_other_bytes_are_accepted() {
    let seed = std::env::var("ESKER_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    println!("ESKER_SEED={seed}");
    let mut random = SplitMix64::new(seed);
    let key = SystemRecord::Prepared.key("x");
    for _ in 0..100 {
        let record = random_record(&mut random);
        let value = record.encode(&key);
        assert_eq!(PreparedRecord::decode("x", &key, &value).as_ref(), Ok(&record));
        for at in 0..value.len() {
            let mut flipped = value.clone();
            flipped[at] ^= 1 << (random.next_u64() % 8);
            assert!(PreparedRecord::decode("x", &key, &flipped).is_err(), "byte {at} of {record:?}");
            assert!(PreparedRecord::decode("x", &key, &value[..at]).is_err(), "cut at {at}");
        }
    }
}

/// Bytes whose checksum is right and that no version writes.
#[test]
fn what_is_inside_is_checked_too() {
    let key = SystemRecord::Prepared.key("x");
    let good = record("x", &[(0, b"k", b"v")]);
    let check = |change: &dyn Fn(&mut PreparedRecord), is_later: bool| {
        let mut record = good.clone();
        change(&mut record);
        let found = PreparedRecord::decode("x", &key, &record.encode(&key)).unwrap_err();
        assert_eq!(matches!(found, DecodeError::Unsupported(_)), is_later, "{found:?}");
    };
    check(&|record| record.count = 2, false);
    check(&|record| record.operations.push(1), false);
    check(&|record| record.operations = vec![17, 0, 0], true);
    check(&|record| record.isolation = 0, true);
    check(&|record| record.isolation = 5, true);
    check(&|record| record.locks[0].scope = PreparedScope::Key(Vec::new()), false);
    check(&|record| record.locks[0].scope = PreparedScope::Key(vec![0; KEY_BYTES_MAX + 2]), false);
    for bits in [LOCK_BOUNDED, 8, 255] {
        let locks = [bits, 0, 1, b'k', 1, b'l'];
        assert!(decode_locks(&locks).is_err(), "{bits}");
    }
}

#[test]
fn a_prepared_transaction_is_committed_whole_or_gone() {
    let fs = Arc::new(MemFs::new());
    let core = open(&fs, 10_000);
    let (store, found) = PreparedStore::load(&core).unwrap();
    assert_eq!(found, []);
    let records = [
        record("a", &[(0, b"k", b"from a"), (0, b"l", b"from a")]),
        record("b", &[(0, b"k", b"from b")]),
        record("c", &[]),
    ];
    for record in &records {
        store.store(&core, record).unwrap();
    }
    assert_eq!(get(&core, b"k"), None);
    close(&core);

    let core = open(&fs, 10_000);
    let (store, found) = PreparedStore::load(&core).unwrap();
    assert_eq!(found, records);
    assert_eq!(load(&core, "a").unwrap(), records[0]);
    let bytes = store.bytes();
    let ending = store.ending("a").unwrap();
    assert_eq!(store.ending("a").unwrap_err().kind(), ErrorKind::Locked);
    let batch = PreparedStore::commit_batch(&core, &records[0]).unwrap();
    assert_eq!(batch.count(), 3);
    core.commit_batch(&batch.freeze(), batch.keyspaces(), Durability::Disk, &|_| Ok(())).unwrap();
    ending.ended();
    rollback(&store, &core, "b").unwrap();
    // A claim that is given up leaves the transaction as it was.
    drop(store.ending("c").unwrap());
    assert!(store.bytes() < bytes);
    for xid in ["a", "b", "never"] {
        assert_eq!(store.ending(xid).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(rollback(&store, &core, xid).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(load(&core, xid).unwrap_err().kind(), ErrorKind::NotFound);
    }
    close(&core);

    let core = open(&fs, 10_000);
    let (_, found) = PreparedStore::load(&core).unwrap();
    assert_eq!(found, records[2..]);
    assert_eq!(
        (get(&core, b"k").unwrap(), get(&core, b"l").unwrap()),
        (b"from a".to_vec(), b"from a".to_vec())
    );
}

#[test]
fn xids_are_unique_and_have_a_length() {
    let core = open(&Arc::new(MemFs::new()), 10_000);
    let (store, _) = PreparedStore::load(&core).unwrap();
    store.store(&core, &record("a", &[])).unwrap();
    let refused = |xid: &str| store.store(&core, &record(xid, &[])).unwrap_err();
    for xid in ["a", "", "x".repeat(256).as_str()] {
        assert_eq!(refused(xid).kind(), ErrorKind::InvalidArgument);
    }
    assert!(refused("a").to_string().contains("\"a\""));
    rollback(&store, &core, "a").unwrap();
    store.store(&core, &record("a", &[])).unwrap();
    store.store(&core, &record(&"x".repeat(255), &[])).unwrap();
}

#[test]
fn what_is_prepared_is_bounded() {
    let fs = Arc::new(MemFs::new());
    let core = open(&fs, 2000);
    let (store, _) = PreparedStore::load(&core).unwrap();
    let large = |xid: &str| record(xid, &[(0, b"k", &[1; 1000])]);
    store.store(&core, &large("a")).unwrap();
    let refused = |store: &PreparedStore, core: &Arc<Core>| {
        let error = store.store(core, &large("b")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
        assert!(error.to_string().contains("prepared_bytes_max"), "{error}");
    };
    refused(&store, &core);
    close(&core);
    let core = open(&fs, 2000);
    let (store, _) = PreparedStore::load(&core).unwrap();
    refused(&store, &core);
    rollback(&store, &core, "a").unwrap();
    assert_eq!(store.bytes(), 0);
    store.store(&core, &large("b")).unwrap();
}

#[test]
fn a_keyspace_that_is_needed_is_not_dropped() {
    let core = open(&Arc::new(MemFs::new()), 10_000);
    let (store, _) = PreparedStore::load(&core).unwrap();
    let create = |name| core.keyspace_or_create(name, &KeyspaceOptions::default()).unwrap().id;
    let (written, locked) = (create("written"), create("locked"));
    let mut record = record("a", &[(written.0, b"k", b"v")]);
    let range = PreparedScope::Range { start: b"a".to_vec(), end: None };
    record.locks = vec![PreparedLock { keyspace: locked, scope: range, exclusive: false }];
    store.store(&core, &record).unwrap();
    let drop_keyspace = |name| core.drop_keyspace(name, |id| store.dropping(id));
    for name in ["written", "locked"] {
        let error = drop_keyspace(name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("\"a\""), "{error}");
    }
    rollback(&store, &core, "a").unwrap();
    {
        let _dropping = store.dropping(locked).unwrap();
        assert_eq!(store.store(&core, &record).unwrap_err().kind(), ErrorKind::NotFound);
    }
    drop_keyspace("written").unwrap();
    assert_eq!(store.store(&core, &record).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.bytes(), 0);
    drop_keyspace("locked").unwrap();
}

#[test]
fn a_damaged_record_is_named_at_the_open() {
    let core = open(&Arc::new(MemFs::new()), 10_000);
    let (store, _) = PreparedStore::load(&core).unwrap();
    store.store(&core, &record("a", &[(0, b"k", b"v")])).unwrap();
    let key = SystemRecord::Prepared.key("a");
    put(&core, &key, b"not a record at all").unwrap();
    for error in [load(&core, "a").unwrap_err(), PreparedStore::load(&core).unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Corruption);
        assert!(error.to_string().contains("prepared transaction \"a\""), "{error}");
    }
    let unknown = record("a", &[(77, b"k", b"v")]);
    put(&core, &key, &unknown.encode(&key)).unwrap();
    let error = PreparedStore::load(&core).unwrap_err();
    assert!(error.to_string().contains("keyspace 77"), "{error}");
}

/// Xids that are prepared, and the value of the key that they write.
type Shown = (Vec<String>, Option<Vec<u8>>);

fn shown(core: &Arc<Core>) -> Shown {
    let (_, records) = PreparedStore::load(core).unwrap();
    (records.into_iter().map(|record| record.xid).collect(), get(core, b"k"))
}

/// One after the other; answers what is shown after each step, as far as it gets.
fn run_script(core: &Arc<Core>, seen: &mut Vec<Shown>) -> Result<()> {
    let (store, _) = PreparedStore::load(core)?;
    let (a, b) = (record("a", &[(0, b"k", b"from a")]), record("b", &[(0, b"k", &[b'b'; 3000])]));
    let commit = |record: &PreparedRecord| -> Result<()> {
        let ending = store.ending(&record.xid)?;
        let batch = PreparedStore::commit_batch(core, record)?;
        core.commit_batch(&batch.freeze(), batch.keyspaces(), Durability::Disk, &|_| Ok(()))?;
        ending.ended();
        Ok(())
    };
    let flush = || core.flush_keyspace(&core.system_keyspace(false)?.unwrap());
    let steps: [&dyn Fn() -> Result<()>; 9] = [
        &|| store.store(core, &a).map(|_| ()),
        &flush,
        &|| store.store(core, &b).map(|_| ()),
        &|| commit(&a),
        &flush,
        &|| rollback(&store, core, "b").map(|_| ()),
        &|| store.store(core, &b).map(|_| ()),
        &|| commit(&b),
        &flush,
    ];
    for step in steps {
        step()?;
        seen.push(shown(core));
    }
    Ok(())
}

#[test]
fn at_every_crash_point_a_transaction_is_prepared_or_committed_or_nothing() {
    let mut all = vec![(Vec::new(), None)];
    run_script(&open(&Arc::new(MemFs::new()), 1 << 20), &mut all).unwrap();
    assert_eq!(all.last().unwrap(), &(Vec::new(), Some(vec![b'b'; 3000])));
    let mut points = 0;
    for mode in CrashMode::ALL {
        for at in 1.. {
            let fs = Arc::new(MemFs::new());
            let core = open(&fs, 1 << 20);
            fs.freeze_at(at);
            let mut seen = vec![(Vec::new(), None)];
            let result = run_script(&core, &mut seen);
            assert_eq!(result.is_err(), fs.is_frozen(), "operation {at}: {result:?}");
            assert_eq!(seen, all[..seen.len()], "operation {at}");
            let crashed = Arc::new(fs.crash_clone(at, mode));
            let found = shown(&open(&crashed, 1 << 20));
            // The step that was cut short happened whole or not at all.
            let possible = &all[seen.len() - 1..all.len().min(seen.len() + 1)];
            assert!(possible.contains(&found), "operation {at}, {mode:?}: {found:?}, not in {possible:?}");
            points += 1;
            if result.is_ok() {
                break;
            }
        }
    }
    assert!(points > 100, "only {points} crash points");
}
