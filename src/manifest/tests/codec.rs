//! Edits on disk: round trips, hostile bytes, and what later versions may write.

use super::*;
use crate::base::fields::{DecodeError, put_field, put_number};

fn encode(edit: &Edit) -> Vec<u8> {
    let mut bytes = Vec::new();
    edit.encode_into(&mut bytes);
    bytes
}

#[test]
fn random_edits_round_trip_as_bytes_and_as_text() {
    let mut rng = seeded(3);
    for _ in 0..2000 {
        let edit = random_edit(&mut rng);
        assert_eq!(Edit::decode(&encode(&edit)), Ok(edit.clone()), "{edit}");
        assert_eq!(Edit::parse(&edit.to_string()), edit, "{edit}");
    }
}

/// The form on disk never changes.
#[test]
fn golden_bytes() {
    #[track_caller]
    fn check(text: &str, expect: &str) {
        let hex: String = encode(&Edit::parse(text)).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expect.replace([' ', '\n'], ""), "{text}");
    }
    check("create 1 \"ab\" filter=2", "010c 010101 02026162 0303030102");
    check("drop 1", "02 01 01");
    check("settings 1 l0_runs=300", "0309 010101 02040a02ac02");
    check(
        "add 0 L1 #5 12:[a..b]@1-2",
        "043b 010100 020101 030105 0430
         01010c 02010c 0302e807
         0409 6101020000000000 00 0509 6201010000000000 00
         06010a 070100 0802e807 090101 0a0102",
    );
    check("remove 0 L1 #5 12", "050c 010100 020101 030105 04010c");
    check("flushed 1 2", "0606 010101 020102");
    check(
        "log 1\nfiles 2\nepochs 3\nkeyspaces 4\nseq 5\nclean 6",
        "070101 080102 090103 0a0104 0b0105 0c0106",
    );
}

/// Whatever the bytes, decoding ends in an edit or an error, and what it accepts is written back the same way.
#[test]
fn hostile_bytes_are_refused_or_understood() {
    let mut rng = seeded(4);
    let mut outcomes = [0; 3];
    for _ in 0..20_000 {
        let mut bytes = encode(&random_edit(&mut rng));
        for _ in 0..rng.random_range(1..4) {
            match rng.random_range(0..3) {
                0 if !bytes.is_empty() => {
                    let index = rng.random_range(0..bytes.len());
                    bytes[index] = rng.random();
                }
                1 => bytes.truncate(rng.random_range(0..=bytes.len())),
                _ => bytes.insert(rng.random_range(0..=bytes.len()), rng.random()),
            }
        }
        match Edit::decode(&bytes) {
            Ok(edit) => {
                assert_eq!(Edit::decode(&encode(&edit)), Ok(edit));
                outcomes[0] += 1;
            }
            Err(DecodeError::Malformed(_)) => outcomes[1] += 1,
            Err(DecodeError::Unsupported(_)) => outcomes[2] += 1,
        }
    }
    assert!(outcomes.iter().all(|count| *count > 100), "{outcomes:?}");
}

#[test]
fn every_cut_is_refused_or_ends_between_operations() {
    let edit = Edit::parse("create 1 \"ab\" filter=2\nadd 1 L1 #5 12:[a..b]@1-2\nclean 6");
    let bytes = encode(&edit);
    let whole: Vec<usize> =
        (0..=edit.0.len()).map(|count| encode(&Edit(edit.0[..count].to_vec())).len()).collect();
    for cut in 0..=bytes.len() {
        match Edit::decode(&bytes[..cut]) {
            Ok(found) => assert_eq!(Some(found.0.len()), whole.iter().position(|end| *end == cut)),
            Err(error) => assert!(matches!(error, DecodeError::Malformed(_)) && !whole.contains(&cut)),
        }
    }
}

#[test]
fn unknown_tags_are_ignored_or_refused_by_their_number() {
    let unsupported = |what: &str| Err(DecodeError::Unsupported(what.into()));
    let malformed = |what: &str| Err(DecodeError::Malformed(what.into()));
    let known = Edit::parse("log 5");
    let with = |tag: u64| {
        let mut bytes = Vec::new();
        put_field(&mut bytes, tag, b"from the future");
        bytes.extend(encode(&known));
        Edit::decode(&bytes)
    };
    assert_eq!(with(16), Ok(known.clone()));
    assert_eq!(with(1 << 40), Ok(known.clone()));
    assert_eq!(with(17), unsupported("field 17"));
    assert_eq!(with(u64::MAX), unsupported("field 18446744073709551615"));
    assert_eq!(with(15), unsupported("edit operation 15"));
    assert_eq!(with(0), malformed("field 0"));

    // The same inside an operation.
    let inside = |tag: u64| {
        let mut body = Vec::new();
        put_number(&mut body, 1, 3);
        put_number(&mut body, 2, 9);
        put_number(&mut body, tag, 1);
        let mut bytes = Vec::new();
        put_field(&mut bytes, 6, &body);
        Edit::decode(&bytes)
    };
    assert_eq!(inside(18), Ok(Edit::parse("flushed 3 9")));
    assert_eq!(inside(19), unsupported("field 19"));
    assert_eq!(inside(3), unsupported("flushed: field 3"));
    assert_eq!(inside(2), malformed("flushed: field 2 after field 2"));
}

#[test]
fn contents_are_judged() {
    #[track_caller]
    fn check(tag: u64, fill: impl FnOnce(&mut Vec<u8>), expect: DecodeError) {
        let (mut body, mut bytes) = (Vec::new(), Vec::new());
        fill(&mut body);
        put_field(&mut bytes, tag, &body);
        assert_eq!(Edit::decode(&bytes), Err(expect));
    }
    let malformed = |what: &str| DecodeError::Malformed(what.into());
    check(6, |body| put_number(body, 1, 3), malformed("flushed: no field 2"));
    check(6, |body| put_number(body, 1, 1 << 32), malformed("flushed: field 1 is not its number"));
    check(7, |body| body.extend([1, 1]), malformed("log number: not its number"));
    check(7, |_| (), malformed("log number: not its number"));
    let create = |name: &'static [u8], settings: &'static [u8]| {
        move |body: &mut Vec<u8>| {
            put_number(body, 1, 1);
            put_field(body, 2, name);
            put_field(body, 3, settings);
        }
    };
    check(1, create(b"\xff", b""), malformed("a keyspace's name is not UTF-8"));
    check(1, create(b"a", &[1, 2, 0x80, 0x02]), malformed("settings: compaction is not its number"));
    check(1, create(b"a", &[13, 1, 0]), DecodeError::Unsupported("settings: field 13".into()));

    let bound = |key: &'static [u8]| {
        move |body: &mut Vec<u8>| {
            let mut table = Vec::new();
            (1..=3).for_each(|tag| put_number(&mut table, tag, 1));
            (4..=5).for_each(|tag| put_field(&mut table, tag, key));
            (6..=10).for_each(|tag| put_number(&mut table, tag, 1));
            (1..=3).for_each(|tag| put_number(body, tag, 1));
            put_field(body, 4, &table);
        }
    };
    check(4, bound(b"short"), malformed("a table bound without trailer"));
    check(4, bound(b"\x01\0\0\0\0\0\0\0"), malformed("a table bound of 0 bytes"));
    check(4, bound(b"k\x09\0\0\0\0\0\0\0"), malformed("a table bound of kind 9"));
    check(4, bound(b"k\x03\0\0\0\0\0\0\0"), DecodeError::Unsupported("entry kind range delete".into()));
}
