//! The bytes of the format, and what the metadata blocks refuse.

use super::*;
use crate::sstable::bytes::Extent;
use crate::sstable::frame::FrameError;
use crate::sstable::index::{IndexEntries, IndexShape, Separator};
use crate::sstable::meta::{Metaindex, Properties};

fn tiny(compression: Compression, filter: FilterKind) -> Vec<u8> {
    let file = MemoryFile::new();
    let options = TableOptions { block_bytes: 120, restart_interval: 2, compression, filter, ..options() };
    let mut builder = TableBuilder::new(file.clone(), &path(), DB, NUMBER, options);
    builder.created_by = "golden";
    let entries = [
        put("user:1", 12, "one"),
        delete("user:1", 3),
        put("user:2", 300, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
        put("user:30", 1, ""),
    ];
    for (key, value) in &entries {
        builder.add(key.as_ref(), value).unwrap();
    }
    builder.finish().unwrap();
    file.bytes()
}

fn hex(bytes: &[u8]) -> Vec<String> {
    bytes.chunks(32).map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect()).collect()
}

/// Every byte of a table is part of the format. A change here needs a new format version.
#[test]
fn golden_tables() {
    let raw = tiny(Compression::None, FilterKind::Blocked);
    let text = hex(&raw).join("\n");
    assert_eq!(text, GOLDEN_RAW.trim(), "\n{text}");
    let sum = format!("{:016x}", crate::base::checksum::plain(&tiny(Compression::Lz4, FilterKind::Standard)));
    assert_eq!(sum, GOLDEN_LZ4);
}

const GOLDEN_RAW: &str = "
6f6e656161616161616161616161616161616161616161616161616161616161
616161616161616161616161616161616161610006757365723a310600000675
7365723a32030333ff0800000000ff2801310000000000000032000000000000
00000000000a0000000300000033000000120000000203000000000000020005
00010300000085000000651c845d0d521aeb0007757365723a33300000000000
0000000000000000000100000000000000090000000101000000000000020007
00010100000033000000af62f6e6fbc777d0757365723a333001010000000000
00060000000f00008000000000000000009200000000000000d2000000000000
0000000000000000003000000000000000020000000f00000006000000004b00
0000fe61b027ddcf661220000000000000000000000000000040000000080000
0000040000000220000104000200000000000408000000000000000002000004
00000000005200000201060100000100000000480000008927a51af2fb933201
010403010105016c0701010902ac020f01021102d20104010006010208010a0a
01030c01780b0e757365723a31010c0000000000000d0f757365723a33300101
0000000000000206676f6c64656e004f000000d04c93e057a748e2020c65736b
65722e66696c746572002a010000000000007f010000000000001065736b6572
2e70726f70657274696573007f01000000000000db0100000000000000410000
00df90d0562f18700521436587a9cbed0ff0debc9a7856341207000000000000
008502000000000000d2000000000000002a01000000000000db010000000000
00290200000000000000010201010000005c0000002e9e5425048ad9e965736b
6572737374
";
const GOLDEN_LZ4: &str = "02a36f643162e504";

/// A table of the golden bytes is also read, not only written.
#[test]
fn golden_bytes_can_be_read() {
    let digits: Vec<u8> = GOLDEN_RAW.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let bytes = digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    let table = open(&MemoryFile::of(bytes), ReadMode::Pread).unwrap();
    assert_eq!(table.verify().unwrap(), 4);
    let (trailer, value) = get(&table, b"user:1", 11).unwrap().unwrap();
    assert_eq!((trailer, &value[..]), (Trailer::new(3, EntryKind::Delete), &b""[..]));
    assert_eq!(get(&table, b"user:1", 12).unwrap().unwrap().1, b"one");
}

#[test]
fn a_metaindex_says_what_may_be_ignored() {
    let place = Extent { start: 10, end: 20 };
    let known = Metaindex { filter: Some(place), properties: None };
    let bytes = known.encode();
    assert_eq!(Metaindex::decode(&bytes, 20), Ok(known.clone()));
    assert!(matches!(Metaindex::decode(&bytes, 19), Err(FrameError::Corrupt { .. })));
    for len in 0..bytes.len() {
        assert!(matches!(Metaindex::decode(&bytes[..len], 20), Err(FrameError::Corrupt { .. })));
    }
    let mut with_more = bytes.clone();
    with_more[0] = 2;
    with_more.extend_from_slice(b"\x03new");
    with_more.push(0);
    with_more.extend_from_slice(&5u64.to_le_bytes());
    with_more.extend_from_slice(&6u64.to_le_bytes());
    assert_eq!(Metaindex::decode(&with_more, 20), Ok(known));
    let rule = bytes.len() + 4;
    for refuse in [1, 2, 255] {
        with_more[rule] = refuse;
        assert_eq!(Metaindex::decode(&with_more, 20), Err(FrameError::Unsupported("block \"new\"".into())));
    }
    let mut many = vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    many.extend_from_slice(&bytes[1..]);
    assert!(matches!(Metaindex::decode(&many, 20), Err(FrameError::Corrupt { .. })));
}

#[test]
fn properties_may_grow_by_even_tags() {
    let (file, _) = build(&vec![put("k", 1, "v"), delete("l", 2)], options());
    let table = open(&file, ReadMode::Pread).unwrap();
    let properties = table.properties();
    assert_eq!(properties.compression, Compression::Lz4 as u8);
    assert_eq!(properties.filter, FilterKind::Blocked as u8);
    assert_eq!((properties.bits_per_key, properties.filter_keys, properties.data_blocks), (10, 2, 1));
    assert!(properties.created_by.starts_with("esker "));
    let bytes = properties.encode();
    assert_eq!(Properties::decode(&bytes).as_ref(), Ok(properties));
    let even = [&bytes[..], &[100, 2, 7, 7]].concat();
    assert_eq!(Properties::decode(&even).as_ref(), Ok(properties));
    let odd = [&bytes[..], &[101, 0]].concat();
    assert!(matches!(Properties::decode(&odd), Err(FrameError::Unsupported(_))));
    for len in 0..bytes.len() {
        let _ = Properties::decode(&bytes[..len]);
    }
    assert!(Properties::decode(&bytes[..bytes.len() / 2]).is_err());
}

fn key(user: &str, seq: u64) -> InternalKey {
    put(user, seq, "").0
}

#[test]
fn separators_are_short_and_keep_versions_apart() {
    let check = |last: InternalKey, next: &str, user: &str, exclusive: bool| {
        let separator = Separator::between(last.as_ref(), next.as_bytes());
        assert_eq!((separator.user, separator.trailer.is_none()), (user.as_bytes(), exclusive));
        assert!(!separator.excludes(last.as_ref()), "the last key is in its block");
        let first = if exclusive { key(next, 99) } else { key(next, 1) };
        assert!(separator.excludes(first.as_ref()), "the next key is not");
    };
    check(key("apple", 5), "banana", "b", true);
    check(key("user:0001", 5), "user:0002", "user:0002", true);
    check(key("user:0001:x", 5), "user:0002:y", "user:0002", true);
    check(key("a", 5), "ab", "ab", true);
    check(key("a", 5), "a\0\0", "a\0", true);
    check(key("same", 5), "same", "same", false);
}

fn index_bytes() -> Vec<u8> {
    let mut entries = IndexEntries::default();
    let users = ["k:a", "k:aa", "k:aaaaaaaaaaaaaaaaaaa1", "k:aaaaaaaaaaaaaaaaaaa2", "k:b", "k:b"];
    for (n, user) in users.iter().enumerate() {
        let place = Extent { start: n as u64 * 100, end: n as u64 * 100 + 100 };
        let trailer = (n >= 4).then(|| Trailer::new(20 - n as u64, EntryKind::Put));
        entries.push(Separator { user: user.as_bytes(), trailer }, place);
    }
    entries.encode(0..users.len())
}

#[test]
fn an_index_finds_the_first_block_that_may_hold_a_key() {
    let bytes = index_bytes();
    let shape = IndexShape::parse(&bytes).unwrap();
    let index = shape.of(&bytes);
    assert_eq!(index.check(600), Ok(Extent { start: 0, end: 600 }));
    assert!(index.check(599).is_err());
    for (user, seq, block) in [
        ("", 1, 0),
        ("j", 1, 0),
        ("k:", 1, 0),
        ("k:Z", 1, 0),
        ("k:a", 1, 1),
        ("k:a\0", 1, 1),
        ("k:aa", 99, 2),
        ("k:aaaaaaaaaaaaaaaaaaa0", 1, 2),
        ("k:aaaaaaaaaaaaaaaaaaa1", 1, 3),
        ("k:aaaaaaaaaaaaaaaaaaa1z", 1, 3),
        ("k:aaaaaaaaaaaaaaaaaaa2", 1, 4),
        ("k:b", 17, 4),
        ("k:b", 16, 4),
        ("k:b", 15, 5),
        ("k:b", 14, 6),
        ("k:c", 99, 6),
        ("l", 99, 6),
    ] {
        let found = index.search(KeyRef::new(user.as_bytes(), Trailer::new(seq, EntryKind::Put))).unwrap();
        assert_eq!(found, block, "{user} at {seq}");
    }
}

#[test]
fn hostile_index_bytes_never_panic() {
    let bytes = index_bytes();
    let read = |bytes: &[u8]| {
        let Ok(shape) = IndexShape::parse(bytes) else { return };
        let index = shape.of(bytes);
        let _ = index.check(600);
        for user in ["", "k:a", "k:aaaaaaaaaaaaaaaaaaa1", "k:b", "z"] {
            let _ = index.search(KeyRef::new(user.as_bytes(), Trailer::new(9, EntryKind::Put)));
        }
        for entry in [0, 1, 5, 6, 7, usize::MAX] {
            let _ = index.place(entry, 600);
        }
    };
    for at in 0..bytes.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut hostile = bytes.clone();
            hostile[at] = value;
            read(&hostile);
        }
        read(&bytes[at..]);
        read(&bytes[..at]);
    }
}

/// A table whose blocks are valid but whose metadata lies is found by `verify`.
#[test]
fn verify_holds_properties_against_entries() {
    let (file, _) = build(&vec![put("k", 1, "v"), delete("l", 2)], options());
    let table = open(&file, ReadMode::Pread).unwrap();
    assert_eq!(table.verify().unwrap(), 2);
    for lie in 0..5 {
        let mut lying = Table::open(source(&file, ReadMode::Pread)).unwrap();
        lying.lie(|properties| match lie {
            0 => properties.entries += 1,
            1 => properties.deletes = 0,
            2 => properties.seq_max = 9,
            3 => properties.smallest = key("a", 1),
            _ => properties.largest = key("z", 1),
        });
        let error = lying.verify().unwrap_err();
        assert!(error.to_string().contains("000007.sst"), "{error}");
    }
}
