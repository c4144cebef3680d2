//! Session records, and what uses up a serial number.

use super::*;
use crate::engine::Options;
use crate::env::{Env, MemFs};

fn core(fs: &Arc<MemFs>) -> Arc<Core> {
    let env = Env::simulated(fs.clone(), 1);
    let options = Options::tiny().write_buffer_bytes(1 << 20).wal_bytes_max(4 << 20);
    let options = options.background_threads(0).env(env);
    crate::engine::open(options, std::path::Path::new("/db")).unwrap().0
}

fn put(keyspace: u32, key: &[u8], value: &[u8]) -> BatchBuilder {
    let mut batch = BatchBuilder::new();
    batch.put(KeyspaceId(keyspace), key, value).unwrap();
    batch
}

fn get(core: &Arc<Core>, key: &[u8]) -> Option<Vec<u8>> {
    let keyspace = core.keyspace_by_id(KeyspaceId::DEFAULT).unwrap();
    core.get(&keyspace, key).unwrap().map(|value| value.to_vec())
}

impl SessionCore {
    /// Commits this batch with the session's record in it.
    fn commit(&self, core: &Arc<Core>, mut batch: BatchBuilder, durability: Durability) -> Result<Stamped> {
        self.commit_through(core, durability, |stamp| {
            stamp.add(&mut batch)?;
            core.commit_batch(&batch.freeze(), batch.keyspaces(), durability, &|_| Ok(()))
        })
    }
}

#[test]
fn records_round_trip_and_no_other_bytes_are_accepted() {
    let key = SystemRecord::Session.key("ingest-7");
    for serial in [1, 127, 128, 1 << 40, u64::MAX] {
        for unix_micros in [0, 1_577_836_800_000_000, u64::MAX] {
            let record = SessionRecord { serial, unix_micros };
            let value = record.encode(&key);
            assert_eq!(SessionRecord::decode(&key, &value), Ok(record));
            let other = SystemRecord::Session.key("ingest-8");
            assert!(SessionRecord::decode(&other, &value).is_err(), "the record of another session");
            for at in 0..value.len() {
                assert!(SessionRecord::decode(&key, &value[..at]).is_err(), "cut at {at}");
                for bit in 0..8 {
                    let mut flipped = value.clone();
                    flipped[at] ^= 1 << bit;
                    assert!(SessionRecord::decode(&key, &flipped).is_err(), "bit {bit} of byte {at}");
                }
            }
        }
    }
}

#[test]
fn what_a_later_version_may_write_is_told_from_damage() {
    let key = SystemRecord::Session.key("s");
    let decode = |fill: &dyn Fn(&mut Vec<u8>)| SessionRecord::decode(&key, &seal(&key, fill));
    let known = |out: &mut Vec<u8>| {
        put_number(out, SERIAL, 5);
        put_number(out, COMMIT_TIME, 6);
    };
    let with = |tag: u64| {
        decode(&|out| {
            known(out);
            put_number(out, tag, 7);
        })
    };
    assert_eq!(with(16).unwrap().serial, 5);
    for tag in [3, 15, 17] {
        assert!(matches!(with(tag), Err(DecodeError::Unsupported(_))), "field {tag}");
    }
    let zero = decode(&|out| {
        put_number(out, SERIAL, 0);
        put_number(out, COMMIT_TIME, 6);
    });
    assert!(matches!(zero, Err(DecodeError::Malformed(_))));
    assert!(matches!(decode(&|out| put_number(out, SERIAL, 1)), Err(DecodeError::Malformed(_))));
    let mut newer = vec![RECORD_VERSION_NEXT];
    known(&mut newer);
    let checksum = crate::base::checksum::keyed(&key, &newer);
    newer.extend_from_slice(&checksum.to_le_bytes());
    assert!(matches!(SessionRecord::decode(&key, &newer), Err(DecodeError::Unsupported(_))));
}

const RECORD_VERSION_NEXT: u8 = 2;

#[test]
fn a_failed_commit_does_not_use_up_its_serial_number() {
    let core = core(&Arc::new(MemFs::new()));
    let sessions = Sessions::new();
    let session = sessions.open(&core, "s").unwrap();
    assert_eq!((session.recovered_serial(), session.serial()), (0, 0));
    assert_eq!(session.commit(&core, put(0, b"a", b"1"), Durability::Os).unwrap().serial, 1);
    let refused = session.commit(&core, put(9, b"a", b"2"), Durability::Os).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound, "{refused}");
    let refused = session.commit_through(&core, Durability::Os, |_| {
        Err(Error::new(ErrorKind::Conflict, "somebody was faster"))
    });
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Conflict);
    let refused = session.commit(&core, put(0, b"a", b"3"), Durability::Memory).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    let done = session.commit(&core, put(0, b"a", b"4"), Durability::Disk).unwrap();
    assert_eq!((done.serial, done.seq), (2, core.visible_seq()));
    assert_eq!(get(&core, b"a").unwrap(), b"4");
}

#[test]
fn one_handle_at_a_time() {
    let core = core(&Arc::new(MemFs::new()));
    let sessions = Sessions::new();
    let first = sessions.open(&core, "s").unwrap();
    let other = sessions.open(&core, "t").unwrap();
    for refused in [sessions.open(&core, "s").map(|_| ()), sessions.forget(&core, "s")] {
        let refused = refused.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Locked);
        assert!(refused.to_string().contains("\"s\""), "{refused}");
    }
    first.commit(&core, put(0, b"a", b"1"), Durability::Os).unwrap();
    drop((first, other));
    assert_eq!(sessions.open(&core, "s").unwrap().recovered_serial(), 1);
    sessions.forget(&core, "s").unwrap();
    assert_eq!(sessions.forget(&core, "s").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(sessions.open(&core, "s").unwrap().recovered_serial(), 0);
    for name in ["", "x".repeat(256).as_str()] {
        assert_eq!(sessions.open(&core, name).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
    assert_eq!(sessions.open(&core, &"x".repeat(255)).unwrap().serial(), 0);
}

/// What a session was told at its opening must not be taken back by a power cut.
#[test]
fn opening_makes_durable_what_it_tells() {
    let core = core(&Arc::new(MemFs::new()));
    let sessions = Sessions::new();
    let session = sessions.open(&core, "s").unwrap();
    let seq = session.commit(&core, put(0, b"a", b"1"), Durability::Os).unwrap().seq;
    assert!(core.pipeline.durable() < seq);
    drop(session);
    assert_eq!(sessions.open(&core, "s").unwrap().recovered_serial(), 1);
    assert!(core.pipeline.durable() >= seq);
    let syncs = core.pipeline.syncs();
    assert_eq!(sessions.open(&core, "s").unwrap().recovered_serial(), 1);
    assert_eq!(core.pipeline.syncs(), syncs, "what is durable is not synced again");
}

#[test]
fn after_an_unknown_outcome_the_session_is_over() {
    let fs = Arc::new(MemFs::new());
    let core = core(&fs);
    let sessions = Sessions::new();
    let session = sessions.open(&core, "s").unwrap();
    session.commit(&core, put(0, b"a", b"1"), Durability::Disk).unwrap();
    // The append goes through, the sync does not.
    fs.freeze_at(2);
    let unknown = session.commit(&core, put(0, b"a", b"2"), Durability::Disk).unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::OutcomeUnknown, "{unknown}");
    let refused = session.commit(&core, put(0, b"a", b"3"), Durability::Os).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Poisoned, "after {unknown}: {refused}");
    assert!(refused.to_string().contains("session \"s\""), "{refused}");
    drop(session);
    assert_eq!(sessions.open(&core, "s").unwrap_err().kind(), ErrorKind::Poisoned);
}

/// The engine's own record must not keep a large batch in memory beside its keyspace's memtable.
#[test]
fn a_record_is_not_charged_for_the_batch_it_came_with() {
    let core = core(&Arc::new(MemFs::new()));
    let session = Sessions::new().open(&core, "s").unwrap();
    for _ in 0..50 {
        session.commit(&core, put(0, b"a", &[7; 1000]), Durability::Os).unwrap();
    }
    let system = core.system_keyspace(false).unwrap().unwrap().view();
    assert_eq!(system.frozen.len(), 0);
    assert!(system.active.bytes() < 20_000, "{} bytes", system.active.bytes());
    assert_eq!(system.active.len(), 50);
}

#[test]
fn a_commit_that_panicked_ends_the_session() {
    let core = core(&Arc::new(MemFs::new()));
    let session = Sessions::new().open(&core, "s").unwrap();
    let panicking = std::panic::AssertUnwindSafe(|| {
        session.commit_through(&core, Durability::Os, |_| panic!("a defect")).map(|_| ())
    });
    assert!(std::panic::catch_unwind(panicking).is_err());
    let refused = session.commit(&core, put(0, b"a", b"1"), Durability::Os).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Poisoned, "{refused}");
}

/// A commit may wait for others and call the listener: nothing of the session may be locked meanwhile.
#[test]
fn a_session_can_be_asked_during_its_commit() {
    let core = core(&Arc::new(MemFs::new()));
    let sessions = Sessions::new();
    let (session, other) = (sessions.open(&core, "s").unwrap(), sessions.open(&core, "t").unwrap());
    let outer = session.commit_through(&core, Durability::Os, |stamp| {
        assert_eq!(session.serial(), 0);
        assert_eq!(other.commit(&core, put(0, b"t", b"1"), Durability::Disk)?.serial, 1);
        let mut batch = put(0, b"s", b"1");
        stamp.add(&mut batch)?;
        core.commit_batch(&batch.freeze(), batch.keyspaces(), Durability::Os, &|_| Ok(()))
    });
    assert_eq!((outer.unwrap().serial, session.serial()), (1, 1));
}

/// A full disk refuses operations without using up their numbers.
#[test]
fn a_full_disk_leaves_the_numbers_without_holes() {
    let fs = Arc::new(MemFs::new());
    let core = core(&fs);
    let session = Sessions::new().open(&core, "s").unwrap();
    session.commit(&core, put(0, b"a", &[1; 100]), Durability::Disk).unwrap();
    fs.set_capacity(Some(fs.used_bytes() + 5_000));
    let mut last = 1;
    let refused = loop {
        match session.commit(&core, put(0, b"a", &[2; 10_000]), Durability::Disk) {
            Ok(done) => last = done.serial,
            Err(error) => break error,
        }
    };
    assert_eq!(refused.kind(), ErrorKind::NoSpace, "{refused}");
    assert_eq!(session.serial(), last);
    fs.set_capacity(None);
    assert_eq!(session.commit(&core, put(0, b"a", b"3"), Durability::Disk).unwrap().serial, last + 1);
}
