//! Framing, resynchronisation, and the judgement of every kind of damage.

use super::frame::{FRAGMENT_HEADER_BYTES, next_start};
use super::frame::{GROUP_TRAILER_BYTES, Part, parse};
use super::reader::is_zero;
use super::*;
use crate::base::checksum::{FileTag, Origin};
use crate::base::error::{ErrorKind, Result};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use std::path::Path;

const PATH: &str = "test.log";

fn origin() -> Origin {
    Origin::new(7, FileTag::Log, 3)
}

/// A record to write: length of its payload and its durable offset.
#[derive(Debug, Clone, Copy)]
struct Spec {
    payload_bytes: usize,
    synced_upto: u64,
}

fn spec(payload_bytes: usize, synced_upto: u64) -> Spec {
    Spec { payload_bytes, synced_upto }
}

fn payload(index: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at.wrapping_mul(31) ^ index.wrapping_mul(17)) as u8).collect()
}

fn meta(index: usize, spec: Spec) -> RecordMeta {
    let first_seq = 1 + 10 * index as u64;
    RecordMeta { kind: RecordKind::Batch, first_seq, count: 10, synced_upto: spec.synced_upto }
}

/// A file of these records, and the end of each.
fn build_at(start: usize, specs: &[Spec]) -> (Vec<u8>, Vec<u64>) {
    let mut file = vec![0u8; start];
    let mut ends = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        let offset = file.len() as u64;
        let expected = encoded_len(offset, spec.payload_bytes);
        encode(origin(), offset, &meta(index, *spec), &payload(index, spec.payload_bytes), &mut file);
        assert_eq!(file.len() as u64, offset + expected, "encoded_len at {offset} of {}", spec.payload_bytes);
        ends.push(file.len() as u64);
    }
    (file, ends)
}

fn build(specs: &[Spec]) -> (Vec<u8>, Vec<u64>) {
    build_at(FILE_HEADER_BYTES, specs)
}

type Records = Vec<(RecordMeta, Vec<u8>)>;

/// Reads a file to its end: the records' payloads with what the framing says, and the tail.
fn read(file: &[u8], start: usize) -> Result<(Records, Tail)> {
    let mut reader = Reader::new(Path::new(PATH), origin(), file, start);
    let mut records = Vec::new();
    while let Some(record) = reader.next()? {
        assert!(record.offset < record.end && record.end <= file.len() as u64);
        records.push((record.meta, record.payload.into_owned()));
    }
    assert_eq!(reader.next()?, None, "the end is the end");
    Ok((records, reader.tail()))
}

/// What reading a damaged file must answer.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// This many records, this many bytes dropped.
    Records(usize, u64),
    /// Refused with damage at this offset.
    Corrupt(u64),
    Unsupported,
}

fn outcome(file: &[u8], specs: &[Spec]) -> Outcome {
    match read(file, FILE_HEADER_BYTES) {
        Ok((records, tail)) => {
            for (index, (found, bytes)) in records.iter().enumerate() {
                assert_eq!(*found, meta(index, specs[index]), "record {index}");
                assert_eq!(*bytes, payload(index, specs[index].payload_bytes), "record {index}");
            }
            Outcome::Records(records.len(), tail.dropped_bytes)
        }
        Err(error) if error.kind() == ErrorKind::VersionUnsupported => Outcome::Unsupported,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
            let damage = error.corruption().unwrap();
            assert_eq!(damage.file, Path::new(PATH));
            Outcome::Corrupt(damage.offset.unwrap())
        }
    }
}

fn seed() -> u64 {
    let seed = match std::env::var("ESKER_SEED") {
        Ok(text) => text.parse().unwrap(),
        Err(_) => 20_260_101,
    };
    println!("ESKER_SEED={seed}");
    seed
}

#[test]
fn records_round_trip_at_every_distance_from_a_block_border() {
    for left in 1..=80usize {
        for len in [0, 1, 11, 12, 40, BLOCK_BYTES - FRAGMENT_HEADER_BYTES, BLOCK_BYTES, 2 * BLOCK_BYTES + 5] {
            let start = BLOCK_BYTES - left;
            let specs = [spec(len, 0), spec(3, 0)];
            let (mut file, ends) = build_at(start, &specs);
            file.extend_from_slice(&[0; 100]);
            let (records, tail) = read(&file, start).unwrap();
            assert_eq!(records.len(), 2, "{left} bytes left, {len} bytes");
            assert_eq!(records[0], (meta(0, specs[0]), payload(0, len)));
            assert_eq!(records[1], (meta(1, specs[1]), payload(1, 3)));
            assert_eq!(tail, Tail { valid_len: ends[1], dropped_bytes: 0 });
        }
    }
}

#[test]
fn a_group_fills_its_blocks_at_every_length_near_two_and_three_fragments() {
    let body_bytes = BLOCK_BYTES - FRAGMENT_HEADER_BYTES;
    let room = body_bytes - FILE_HEADER_BYTES;
    for fragments in 1..=3usize {
        let border = room + (fragments - 1) * body_bytes;
        for len in border - 2 * GROUP_TRAILER_BYTES..border + 3 {
            let specs = [spec(len, 0)];
            let (file, _) = build(&specs);
            assert_eq!(outcome(&file, &specs), Outcome::Records(1, 0), "{len}");
        }
    }
}

#[test]
fn no_fragment_crosses_a_block() {
    let (file, ends) = build(&[spec(100_000, 0), spec(40, 0), spec(70_000, 0)]);
    let (mut at, mut parts) = (FILE_HEADER_BYTES, Vec::new());
    while (at as u64) < *ends.last().unwrap() {
        let fragment = parse(origin(), &file, at).unwrap();
        assert_eq!(at / BLOCK_BYTES, (fragment.end - 1) / BLOCK_BYTES);
        parts.push(fragment.part.unwrap());
        at = next_start(fragment.end as u64) as usize;
    }
    use Part::{First, Full, Last, Middle};
    assert_eq!(parts, [First, Middle, Middle, Last, Full, First, Middle, Last]);
}

#[test]
fn random_records_round_trip() {
    let mut random = StdRng::seed_from_u64(seed());
    for _ in 0..60 {
        let specs: Vec<Spec> = (0..random.random_range(1..40))
            .map(|_| match random.random_range(0..10) {
                0 => spec(random.random_range(0..200_000), random.next_u64()),
                1..4 => spec(random.random_range(0..5_000), random.next_u64()),
                _ => spec(random.random_range(0..200), random.next_u64()),
            })
            .collect();
        let (mut file, ends) = build(&specs);
        file.resize(file.len() + random.random_range(0..100_000), 0);
        assert_eq!(outcome(&file, &specs), Outcome::Records(specs.len(), 0));
        let cut = random.random_range(FILE_HEADER_BYTES..file.len());
        let whole = ends.iter().filter(|end| **end <= cut as u64).count();
        let last = if whole == 0 { FILE_HEADER_BYTES } else { ends[whole - 1] as usize };
        let dropped = used_len(&file[last..cut]) as u64;
        assert_eq!(outcome(&file[..cut], &specs), Outcome::Records(whole, dropped), "cut at {cut}");
    }
}

/// Flips one bit of every byte and demands the outcome that its place calls for: a record that a later one proves
/// durable is damage, a record without such proof is a torn tail.
fn check_every_flip(specs: &[Spec], zeros: usize) {
    let (mut file, ends) = build(specs);
    file.resize(file.len() + zeros, 0);
    for at in FILE_HEADER_BYTES..*ends.last().unwrap() as usize {
        let index = ends.iter().take_while(|end| **end <= at as u64).count();
        let end_before = if index == 0 { FILE_HEADER_BYTES as u64 } else { ends[index - 1] };
        let start = next_start(end_before);
        let proven = specs[index + 1..].iter().any(|later| later.synced_upto > start);
        file[at] ^= 1 << (at % 8);
        let found = outcome(&file, specs);
        if (at as u64) < start {
            assert_eq!(found, Outcome::Records(specs.len(), 0), "padding at {at}");
        } else if proven {
            let Outcome::Corrupt(offset) = found else { panic!("flip at {at}: {found:?}") };
            assert!((start..ends[index]).contains(&offset), "flip at {at} reported at {offset}");
        } else {
            let dropped = used_len(&file[end_before as usize..]) as u64;
            assert_eq!(found, Outcome::Records(index, dropped), "flip at {at}");
        }
        file[at] ^= 1 << (at % 8);
    }
}

#[test]
fn one_flipped_bit_anywhere_is_refused_or_dropped_by_position() {
    let ends = build(&[spec(20, 0), spec(50, 0), spec(0, 0), spec(300, 0), spec(7, 0)]).1;
    // Three sync groups: records 0-1, then 2-3, then 4; each group knows that those before it are durable.
    let specs = [spec(20, 64), spec(50, 64), spec(0, ends[1]), spec(300, ends[1]), spec(7, ends[3])];
    check_every_flip(&specs, 0);
    check_every_flip(&specs, 500);
}

#[test]
fn one_flipped_bit_in_a_group_over_blocks_is_judged_the_same() {
    let ends = build(&[spec(30, 0), spec(BLOCK_BYTES + 100, 0), spec(30, 0)]).1;
    let sparse = |specs: &[Spec]| {
        let (mut file, ends) = build(specs);
        for at in (FILE_HEADER_BYTES..*ends.last().unwrap() as usize).step_by(97) {
            file[at] ^= 0x10;
            let index = ends.iter().take_while(|end| **end <= at as u64).count();
            let start = next_start(if index == 0 { FILE_HEADER_BYTES as u64 } else { ends[index - 1] });
            let proven = specs[index + 1..].iter().any(|later| later.synced_upto > start);
            match outcome(&file, specs) {
                Outcome::Corrupt(offset) => assert!(proven && (start..ends[index]).contains(&offset), "{at}"),
                Outcome::Records(count, dropped) => {
                    assert!(!proven && count == index && dropped > 0, "{at}")
                }
                other => panic!("{at}: {other:?}"),
            }
            file[at] ^= 0x10;
        }
    };
    sparse(&[spec(30, 64), spec(BLOCK_BYTES + 100, ends[0]), spec(30, ends[1])]);
    sparse(&[spec(30, 64), spec(BLOCK_BYTES + 100, ends[0]), spec(30, ends[0])]);
}

#[test]
fn damage_is_judged_by_what_follows() {
    let plain = [spec(40, 64), spec(40, 64), spec(40, 64)];
    let ends: [u64; 3] = build(&plain).1.try_into().unwrap();
    let proven = [plain[0], plain[1], spec(40, ends[0])];
    let group = [spec(40, 64), spec(2 * BLOCK_BYTES, 64), spec(40, 64)];
    let group_ends = build(&group).1;
    let first_end = ends[0] as usize;

    type Damage = Box<dyn Fn(&mut Vec<u8>)>;
    let cases: Vec<(&str, &[Spec], Damage, Outcome)> = vec![
        ("none", &plain, Box::new(|_| ()), Outcome::Records(3, 0)),
        ("no record", &[], Box::new(|_| ()), Outcome::Records(0, 0)),
        ("zeros after", &plain, Box::new(|file| file.resize(9000, 0)), Outcome::Records(3, 0)),
        ("one stray byte after", &plain, Box::new(|file| file.extend([0, 0, 9, 0])), Outcome::Records(3, 3)),
        (
            "a zeroed record without proof",
            &plain,
            Box::new(move |file| file[first_end..first_end + 72].fill(0)),
            Outcome::Records(1, 72 + used_len(&build(&plain).0[ends[1] as usize..]) as u64),
        ),
        (
            "a zeroed record that was durable",
            &proven,
            Box::new(move |file| file[64..first_end].fill(0)),
            Outcome::Corrupt(64),
        ),
        (
            "a length that jumps over the proof",
            &proven,
            Box::new(|file| file[64 + 8] = 200),
            Outcome::Corrupt(64),
        ),
        (
            "the proof itself",
            &proven,
            Box::new(move |file| file[ends[1] as usize + 40] ^= 1),
            Outcome::Records(2, ends[2] - ends[1]),
        ),
        (
            "a group without its last fragment",
            &group,
            Box::new(move |file| file.truncate(2 * BLOCK_BYTES)),
            Outcome::Records(1, 2 * BLOCK_BYTES as u64 - ends[0]),
        ),
        (
            "a group whose middle was never written",
            &group,
            Box::new(|file| file[BLOCK_BYTES..2 * BLOCK_BYTES].fill(0)),
            Outcome::Records(1, group_ends[2] - ends[0]),
        ),
    ];
    for (name, specs, damage, expected) in cases {
        let (mut file, _) = build(specs);
        damage(&mut file);
        assert_eq!(outcome(&file, specs), expected, "{name}");
    }
}

/// Rewrites a byte of a fragment header and its checksum: what a wrong writer would produce.
fn forge(file: &mut [u8], at: usize, field: usize, byte: u8) {
    let end = parse(origin(), file, at).unwrap().end;
    file[at + field] = byte;
    let sum = origin().checksum(at as u64, &file[at + 8..end]);
    file[at..at + 8].copy_from_slice(&sum.to_le_bytes());
}

#[test]
fn valid_fragments_in_the_wrong_place_are_damage_at_once() {
    const PART: usize = 10;
    const KIND: usize = 11;
    let specs = [spec(40, 64), spec(2 * BLOCK_BYTES, 64), spec(40, 64)];
    let first = build(&specs[..1]).1[0];
    let (block, last) = (BLOCK_BYTES as u64, 2 * BLOCK_BYTES as u64);
    let cases = [
        ("full as middle", 64, PART, 3, Outcome::Corrupt(64)),
        ("full as last", 64, PART, 4, Outcome::Corrupt(64)),
        ("part of no version", 64, PART, 9, Outcome::Corrupt(64)),
        ("kind of no version", 64, KIND, 99, Outcome::Corrupt(64)),
        ("kind of a later version", 64, KIND, 5, Outcome::Unsupported),
        ("first as full", first, PART, 1, Outcome::Corrupt(block)),
        ("middle as first", block, PART, 2, Outcome::Corrupt(block)),
        ("middle as last", block, PART, 4, Outcome::Corrupt(first)),
        ("last as middle", last, PART, 3, Outcome::Corrupt(build(&specs[..2]).1[1])),
        ("kinds that differ", block, KIND, 4, Outcome::Corrupt(block)),
        ("another count", block, 12, 11, Outcome::Corrupt(block)),
        ("another sequence", last, 16, 99, Outcome::Corrupt(last)),
        ("another durable offset", last, 24, 99, Outcome::Corrupt(last)),
    ];
    for (name, at, field, byte, expected) in cases {
        let (mut file, _) = build(&specs);
        forge(&mut file, at as usize, field, byte);
        // "First as full" passes as a record of another length; the judgement is about what follows.
        let found = match read(&file, FILE_HEADER_BYTES) {
            Err(error) if error.kind() == ErrorKind::VersionUnsupported => Outcome::Unsupported,
            Err(error) => Outcome::Corrupt(error.corruption().unwrap().offset.unwrap()),
            Ok((records, tail)) => Outcome::Records(records.len(), tail.dropped_bytes),
        };
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn a_changed_payload_with_right_fragment_checksums_fails_the_group_checksum() {
    let specs = [spec(2 * BLOCK_BYTES, 64)];
    let (mut file, _) = build(&specs);
    forge(&mut file, BLOCK_BYTES, FRAGMENT_HEADER_BYTES, 0xee);
    assert_eq!(outcome(&file, &specs), Outcome::Corrupt(64));
}

#[test]
fn bytes_of_other_places_are_never_records() {
    let specs = [spec(40, 64), spec(40, 64)];
    let (file, ends) = build(&specs);
    let stale = {
        let mut out = vec![0; FILE_HEADER_BYTES];
        for origin in [Origin::new(7, FileTag::Log, 2), Origin::new(8, FileTag::Log, 3)] {
            let offset = out.len() as u64;
            encode(origin, offset, &meta(0, specs[0]), &payload(0, 40), &mut out);
        }
        out
    };
    let mut older = file.clone();
    older[64..stale.len()].copy_from_slice(&stale[64..]);
    assert_eq!(outcome(&older, &specs), Outcome::Records(0, ends[1] - 64), "older file");
    let mut moved = file.clone();
    moved.extend_from_slice(&file[64..ends[0] as usize]);
    assert_eq!(outcome(&moved, &specs), Outcome::Records(2, ends[0] - 64), "moved record");
}

#[test]
fn a_claim_of_durability_counts_only_from_a_valid_fragment() {
    let specs = [spec(40, 64), spec(400, 64)];
    let (mut file, ends) = build(&specs);
    // The payload of the second record is full of numbers that look like durable offsets.
    let claims: Vec<u8> = (0..50).flat_map(|_| ends[0].to_le_bytes()).collect();
    file.truncate(ends[0] as usize);
    encode(origin(), ends[0], &meta(1, specs[1]), &claims, &mut file);
    file[70] ^= 1;
    assert_eq!(outcome(&file, &specs), Outcome::Records(0, used_len(&file) as u64 - 64));
}

#[test]
fn random_garbage_is_never_a_record() {
    let mut random = StdRng::seed_from_u64(seed());
    for _ in 0..200 {
        let mut file = vec![0u8; random.random_range(0..70_000)];
        random.fill_bytes(&mut file);
        let (records, tail) = read(&file, FILE_HEADER_BYTES).unwrap();
        assert!(records.is_empty());
        assert_eq!(tail.valid_len, FILE_HEADER_BYTES as u64);
    }
}

#[test]
fn used_len_is_the_place_after_the_last_nonzero_byte() {
    for len in [0usize, 1, 1023, 1024, 1025, 5000] {
        let mut bytes = vec![0u8; len];
        assert_eq!(used_len(&bytes), 0);
        assert!(is_zero(&bytes));
        for at in [0, len / 2, len.saturating_sub(1)] {
            if at < len {
                bytes[at] = 1;
                assert_eq!(used_len(&bytes), at + 1);
                assert!(!is_zero(&bytes));
                bytes[at] = 0;
            }
        }
    }
}

#[test]
fn headers_round_trip_and_every_flip_is_refused() {
    let header = FileHeader { reserved: 4096, ..FileHeader::new(FileTag::Log, 0x0123_4567_89ab_cdef, 42) };
    let bytes = header.encode();
    let decode = |bytes: &[u8]| FileHeader::decode(Path::new(PATH), bytes, FileTag::Log);
    assert_eq!(decode(&bytes).unwrap(), header);
    for at in 0..bytes.len() {
        let mut damaged = bytes;
        damaged[at] ^= 4;
        assert_eq!(decode(&damaged).unwrap_err().kind(), ErrorKind::Corruption, "{at}");
        assert_eq!(decode(&bytes[..at]).unwrap_err().kind(), ErrorKind::Corruption, "{at}");
    }
    assert_eq!(decode(&[0; 64]).unwrap_err().kind(), ErrorKind::Corruption);
}

#[test]
fn headers_of_later_versions_are_told_from_damage() {
    let with = |at: usize, byte: u8| {
        let mut bytes = FileHeader::new(FileTag::Log, 1, 42).encode();
        bytes[at] = byte;
        let sum = crate::base::checksum::plain(&bytes[..56]);
        bytes[56..].copy_from_slice(&sum.to_le_bytes());
        FileHeader::decode(Path::new(PATH), &bytes, FileTag::Log).unwrap_err().kind()
    };
    assert_eq!(with(8, 2), ErrorKind::VersionUnsupported, "newer version");
    assert_eq!(with(13, 1), ErrorKind::VersionUnsupported, "unknown transform");
    assert_eq!(with(8, 0), ErrorKind::Corruption, "version 0");
    assert_eq!(with(12, FileTag::Manifest as u8), ErrorKind::Corruption, "another kind of file");
}

/// The bytes on disk must never change.
#[test]
fn golden_record() {
    let mut out = Vec::new();
    let meta = RecordMeta { kind: RecordKind::Batch, first_seq: 0x1122, count: 3, synced_upto: 64 };
    encode(origin(), 64, &meta, b"hello", &mut out);
    let hex: String = out.iter().map(|byte| format!("{byte:02x}")).collect();
    let (sum, rest) = hex.split_at(16);
    assert_eq!(rest, "05000102030000002211000000000000400000000000000068656c6c6f");
    assert_eq!(sum, "33a57545535d504a");
}
