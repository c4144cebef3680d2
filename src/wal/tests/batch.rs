//! The batch codec: round trips, limits, hostile input.

use super::*;
use crate::base::types::{EntryKind, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

type Op = (EntryKind, u32, Vec<u8>, Vec<u8>);
type Ops = Result<Vec<Op>, BatchError>;

fn build(ops: &[Op]) -> BatchBuilder {
    let mut batch = BatchBuilder::new();
    for (kind, keyspace, key, value) in ops {
        match kind {
            EntryKind::Put => batch.put(KeyspaceId(*keyspace), key, value).unwrap(),
            EntryKind::Delete => batch.delete(KeyspaceId(*keyspace), key).unwrap(),
        }
    }
    batch
}

fn read(payload: &[u8]) -> Ops {
    let mut found = Vec::new();
    for op in ops(payload)? {
        let op = op?;
        assert_eq!(&payload[op.key_start..op.key_start + op.key.len()], op.key);
        assert_eq!(&payload[op.value_start..op.value_start + op.value.len()], op.value);
        found.push((op.kind, op.keyspace.0, op.key.to_vec(), op.value.to_vec()));
    }
    Ok(found)
}

#[test]
fn random_batches_round_trip() {
    let mut random = StdRng::seed_from_u64(seed());
    for _ in 0..300 {
        let expected: Vec<Op> = (0..random.random_range(0..30))
            .map(|_| {
                let mut key = vec![0; random.random_range(1..300)];
                random.fill_bytes(&mut key);
                let keyspace = random.random_range(0..3) * random.random_range(0..=u32::MAX / 2);
                match random.random_range(0..3) {
                    0 => (EntryKind::Delete, keyspace, key, Vec::new()),
                    _ => (EntryKind::Put, keyspace, key, vec![7; random.random_range(0..20_000)]),
                }
            })
            .collect();
        let batch = build(&expected);
        assert_eq!(batch.count() as usize, expected.len());
        assert_eq!(batch.bytes_len(), batch.bytes().len());
        let frozen = batch.freeze();
        assert_eq!(frozen.count, batch.count());
        assert_eq!(read(&frozen.bytes).unwrap(), expected);
        let mut keyspaces: Vec<u32> = expected.iter().map(|op| op.1).collect();
        keyspaces.sort_unstable();
        keyspaces.dedup();
        let mut noted: Vec<u32> = batch.keyspaces().iter().map(|keyspace| keyspace.0).collect();
        noted.sort_unstable();
        assert_eq!(noted, keyspaces);
    }
}

#[test]
fn a_cleared_builder_is_a_new_one() {
    let mut batch = build(&[(EntryKind::Put, 3, b"k".to_vec(), b"v".to_vec())]);
    batch.clear();
    assert_eq!((batch.count(), batch.keyspaces().len()), (0, 0));
    assert_eq!(batch.bytes(), BatchBuilder::new().bytes());
    assert_eq!(read(batch.bytes()), Ok(vec![]));
}

#[test]
fn limits_are_refused_and_leave_the_batch_as_it_was() {
    let mut batch = build(&[(EntryKind::Delete, 0, b"k".to_vec(), vec![])]);
    let before = batch.bytes().to_vec();
    let mut check = |key: &[u8], value: &[u8], expected: ErrorKind| {
        assert_eq!(batch.put(KeyspaceId(9), key, value).unwrap_err().kind(), expected);
        assert_eq!(batch.bytes(), before);
        assert_eq!((batch.count(), batch.keyspaces()), (1, &[KeyspaceId(0)][..]));
    };
    check(b"", b"", ErrorKind::InvalidArgument);
    check(&vec![1; KEY_BYTES_MAX + 1], b"", ErrorKind::LimitExceeded);
    check(b"k", &vec![0; VALUE_BYTES_MAX + 1], ErrorKind::LimitExceeded);
    assert_eq!(batch.delete(KeyspaceId(0), b"").unwrap_err().kind(), ErrorKind::InvalidArgument);
    batch.put(KeyspaceId(0), &vec![1; KEY_BYTES_MAX], b"").unwrap();
    assert_eq!(read(batch.bytes()).unwrap()[1].2.len(), KEY_BYTES_MAX);
}

#[test]
fn hostile_payloads_are_refused_by_name() {
    let malformed = |what| Err(BatchError::Malformed(what));
    let unsupported = |what: &str| Err(BatchError::Unsupported(what.to_string()));
    let op = (EntryKind::Put, 1, b"k".to_vec(), b"v".to_vec());
    let one = || Ok(vec![op.clone()]);
    const FIELD: &str = "a header field's bytes";
    const KEY: &str = "a key of 1 to 65535 bytes";
    let cases: Vec<(&[u8], Ops)> = vec![
        (&[], malformed("a header field's tag")),
        (&[0x80], malformed("a header field's tag")),
        (&[0], Ok(vec![])),
        (&[0, 1, 1, 1, b'k', 1, b'v'], one()),
        (&[1, 2, 9, 9, 3, 1, 9, 0, 1, 1, 1, b'k', 1, b'v'], one()),
        (&[16, 0, 18, 1, 7, 0, 1, 1, 1, b'k', 1, b'v'], one()),
        (&[5, 0, 0], unsupported("header field 5")),
        (&[6, 0, 0], unsupported("header field 6")),
        (&[14, 0, 0], unsupported("header field 14")),
        (&[15, 0, 0], unsupported("header field 15")),
        (&[17, 0, 0], unsupported("header field 17")),
        (
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 0],
            unsupported("header field 18446744073709551615"),
        ),
        (&[1], malformed(FIELD)),
        (&[1, 5, 1], malformed(FIELD)),
        (&[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], malformed(FIELD)),
        (&[0, 0], malformed("a known kind of operation")),
        (&[0, 99, 0, 1, b'k'], malformed("a known kind of operation")),
        (&[0, 3, 0, 1, b'k'], unsupported("an operation \"range delete\"")),
        (&[0, 1], malformed("an operation's keyspace")),
        (&[0, 2, 0xff, 0xff, 0xff, 0xff, 0x1f, 1, b'k'], malformed("an operation's keyspace")),
        (&[0, 2, 0], malformed(KEY)),
        (&[0, 2, 0, 0], malformed(KEY)),
        (&[0, 2, 0, 2, b'k'], malformed(KEY)),
        (&[0, 1, 0, 1, b'k'], malformed("a value of at most 1 GiB")),
        (&[0, 1, 0, 1, b'k', 1], malformed("a value of at most 1 GiB")),
        (&[0, 1, 0, 1, b'k', 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], malformed("a value of at most 1 GiB")),
    ];
    for (payload, expected) in cases {
        assert_eq!(read(payload), expected, "{payload:?}");
    }
    let mut long_key = vec![0, 2, 0, 0x80, 0x80, 4];
    long_key.resize(70_000, b'k');
    assert_eq!(read(&long_key), malformed(KEY));
}

#[test]
fn iteration_ends_after_an_error() {
    let mut found = ops(&[0, 2, 0, 1, b'a', 99, 2, 0, 1, b'b']).unwrap();
    assert_eq!(found.next().unwrap().unwrap().key, b"a");
    assert!(found.next().unwrap().is_err());
    assert_eq!(found.next(), None);
}

#[test]
fn random_bytes_never_read_beyond_the_payload() {
    let mut random = StdRng::seed_from_u64(seed());
    for round in 0..20_000 {
        let mut payload = vec![0u8; random.random_range(0..60)];
        random.fill_bytes(&mut payload);
        if round % 2 == 0 && !payload.is_empty() {
            payload[0] = 0;
            payload[1..].iter_mut().for_each(|byte| *byte %= 5);
        }
        if let Ok(found) = read(&payload) {
            assert!(found.iter().all(|op| !op.2.is_empty()));
        }
    }
}

#[test]
fn errors_name_file_and_offset() {
    let file = Path::new("000001.wal");
    let malformed = BatchError::Malformed("x").into_error(file, 64);
    assert_eq!(malformed.corruption().unwrap().offset, Some(64));
    let unsupported = BatchError::Unsupported("x".into()).into_error(file, 64);
    assert_eq!(unsupported.kind(), ErrorKind::VersionUnsupported);
    assert!(unsupported.to_string().contains("000001.wal at offset 64"), "{unsupported}");
}

/// The bytes on disk must never change.
#[test]
fn golden_batch() {
    let batch = build(&[
        (EntryKind::Put, 300, b"key".to_vec(), b"value".to_vec()),
        (EntryKind::Delete, 0, b"k".to_vec(), vec![]),
    ]);
    assert_eq!(batch.bytes(), b"\x00\x01\xac\x02\x03key\x05value\x02\x00\x01k");
}

#[test]
fn operations_of_an_encoded_batch_are_added_as_they_are() {
    let put = |keyspace, key: &str| (EntryKind::Put, keyspace, key.as_bytes().to_vec(), b"v".to_vec());
    let first = [put(1, "a"), (EntryKind::Delete, 2, b"b".to_vec(), Vec::new())];
    let second = [put(2, "c"), put(3, "d"), put(2, "e")];
    let mut batch = build(&first);
    let mut payload = build(&second).bytes().to_vec();
    batch.append_payload(&payload).unwrap();
    assert_eq!(batch.count(), 5);
    assert_eq!(batch.keyspaces(), [KeyspaceId(1), KeyspaceId(2), KeyspaceId(3)]);
    assert_eq!(read(batch.bytes()).unwrap(), [&first[..], &second[..]].concat());
    // Header fields are about the other batch and stay behind.
    payload.splice(0..0, [16, 1, 7]);
    batch.append_payload(&payload).unwrap();
    assert_eq!(batch.count(), 8);
    assert_eq!(read(batch.bytes()).unwrap(), [&first[..], &second[..], &second[..]].concat());

    let before = batch.bytes().to_vec();
    payload.push(1);
    assert!(batch.append_payload(&payload).is_err());
    assert!(batch.append_payload(&[17, 0, 0]).is_err());
    assert_eq!((batch.bytes(), batch.count()), (before.as_slice(), 8));
    assert_eq!(batch.keyspaces().len(), 3);
}
