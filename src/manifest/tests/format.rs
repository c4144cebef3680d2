//! The form of a copy: what later versions may write, and what no version writes.

use super::world::*;
use super::*;
use crate::base::checksum::FileTag;
use crate::base::error::{Error, ErrorKind};
use crate::base::fields::put_field;
use crate::manifest::copy::{decode, edit_payload, frame, hash, new_copy, origin, snapshot_payload};
use crate::record::{FORMAT_VERSION, FileHeader, RecordKind, RecordMeta, encode};
use std::path::Path;

fn first() -> Version {
    Version::empty(DB).apply(&edit(0)).unwrap()
}

/// A copy with one snapshot, and records of these payloads after it.
fn copy_of(payloads: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = new_copy(DB, 1, &snapshot_payload(&first(), 0));
    for payload in payloads {
        frame(origin(DB, 1), bytes.len() as u64, payload, &mut bytes);
    }
    bytes
}

fn snapshot_hash() -> u64 {
    hash(&snapshot_payload(&first(), 0))
}

fn refusal(bytes: &[u8]) -> Error {
    decode(Path::new("MANIFEST-A"), bytes).unwrap_err().error
}

/// A payload with an edit of which this version knows nothing.
fn payload_with_field(tag: u64) -> Vec<u8> {
    let mut payload = edit_payload(2, snapshot_hash(), &Edit::parse("log 5"));
    put_field(&mut payload, tag, b"from the future");
    payload
}

#[test]
fn a_copy_is_what_it_says() {
    let bytes = copy_of(&[edit_payload(2, snapshot_hash(), &edit(1))]);
    let history = decode(Path::new("MANIFEST-A"), &bytes).unwrap();
    assert_eq!(history.version, first().apply(&edit(1)).unwrap());
    assert_eq!((history.first, history.last(), history.before), (1, 2, 0));
    assert_eq!(history.tail.valid_len, bytes.len() as u64);
}

#[test]
fn records_that_no_version_writes_are_corruption() {
    #[track_caller]
    fn check(payload: Vec<u8>, expect: &str) {
        let error = refusal(&copy_of(&[payload]));
        assert_eq!(error.kind(), ErrorKind::Corruption);
        assert!(error.to_string().contains(expect), "{error}");
        assert!(error.corruption().unwrap().offset.is_some());
    }
    let edit = Edit::parse("log 5");
    check(edit_payload(3, snapshot_hash(), &edit), "expected generation 2");
    check(edit_payload(1, snapshot_hash(), &edit), "expected generation 2");
    check(edit_payload(2, snapshot_hash() ^ 1, &edit), "expected generation 2");
    check(
        edit_payload(2, snapshot_hash(), &Edit::parse("remove 0 L0 #1 1")),
        "expected an edit that applies",
    );
    check(snapshot_payload(&first(), snapshot_hash()), "expected a record of role 2, found role 1");
    check(vec![0; 16], "expected generation, hash and role, found 16 bytes");
    check(
        [edit_payload(2, snapshot_hash(), &edit), vec![7, 9]].concat(),
        "expected an edit, found field 7 cut short",
    );

    let error = refusal(&new_copy(DB, 1, &edit_payload(1, 0, &edit)));
    assert!(error.to_string().contains("expected a record of role 1, found role 2"), "{error}");
    let error = refusal(&new_copy(DB, 7, &snapshot_payload(&first(), 0)));
    assert!(error.to_string().contains("expected generation 7 as in the header"), "{error}");
    let error = refusal(&FileHeader::new(FileTag::Manifest, DB, 1).encode());
    assert!(error.to_string().contains("expected a snapshot"), "{error}");
    let error = refusal(&FileHeader::new(FileTag::Log, DB, 1).encode());
    assert_eq!(error.kind(), ErrorKind::Corruption);

    let mut bytes = copy_of(&[]);
    let meta = RecordMeta { kind: RecordKind::Batch, first_seq: 1, count: 1, synced_upto: 64 };
    encode(origin(DB, 1), bytes.len() as u64, &meta, b"x", &mut bytes);
    assert!(refusal(&bytes).to_string().contains("expected an edit, found a record of kind Batch"));
}

#[test]
fn an_inconsistent_version_is_corruption() {
    let twice = Edit::parse("add 0 L0 #5 3:[a..b]@1-2\nadd 0 L1 #5 3:[a..b]@1-2");
    let error = refusal(&copy_of(&[edit_payload(2, snapshot_hash(), &twice)]));
    assert_eq!(error.kind(), ErrorKind::Corruption);
    assert!(error.to_string().contains("table 3 is there twice"), "{error}");
}

/// What a later version wrote is refused from either copy, whatever the other says, and nothing is touched.
#[test]
fn later_versions_are_refused_by_name() {
    let mut newer_header = copy_of(&[]);
    let header = FileHeader { version: FORMAT_VERSION + 1, ..FileHeader::new(FileTag::Manifest, DB, 1) };
    newer_header[..64].copy_from_slice(&header.encode());
    let mut role = edit_payload(2, snapshot_hash(), &edit(1));
    role[16] = 3;
    let mut order = snapshot_payload(&first(), 0);
    order[18] = b'E';
    let futures = [
        newer_header,
        copy_of(&[role]),
        copy_of(&[payload_with_field(17)]),
        copy_of(&[payload_with_field(15)]),
        new_copy(DB, 1, &order),
    ];
    for (index, future) in futures.iter().enumerate() {
        assert_eq!(refusal(future).kind(), ErrorKind::VersionUnsupported, "{index}");
        for present in [Some(copy_of(&[])), Some(b"damaged".to_vec()), None] {
            for future_is_b in [false, true] {
                let (env, disk) = world();
                let (newer, other) = if future_is_b { (B, A) } else { (A, B) };
                put(&disk, newer, Some(future));
                present.iter().for_each(|bytes| put(&disk, other, Some(bytes)));
                let mutations = disk.mutations();
                let error = read(&env).err().unwrap();
                assert_eq!(error.kind(), ErrorKind::VersionUnsupported, "{index}");
                assert_eq!((disk.mutations(), &bytes(&disk, newer)), (mutations, future));
            }
        }
    }
}

#[test]
fn fields_that_may_be_ignored_are() {
    let bytes = copy_of(&[payload_with_field(16)]);
    let history = decode(Path::new("MANIFEST-A"), &bytes).unwrap();
    assert_eq!(history.version.log_number, 5);
}

/// Whatever the bytes are, decoding ends.
#[test]
fn hostile_copies_are_refused_or_understood() {
    let mut rng = seeded(7);
    let mut outcomes = [0; 2];
    for _ in 0..3000 {
        // Damage inside a payload whose checksum is right: what only a bug or an enemy writes.
        let mut payload = edit_payload(2, snapshot_hash(), &random_edit(&mut rng));
        for _ in 0..rng.random_range(0..3) {
            let index = rng.random_range(0..payload.len());
            payload[index] = rng.random();
        }
        let accepted = decode(Path::new("MANIFEST-A"), &copy_of(&[payload])).is_ok();
        outcomes[usize::from(accepted)] += 1;
    }
    assert!(outcomes.iter().all(|count| *count > 20), "{outcomes:?}");
}
