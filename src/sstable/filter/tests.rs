//! Filters: golden bytes, no false negatives, few false positives, and bytes that lie.

use super::*;
use crate::base::checksum::key_hash;

const KINDS: [FilterKind; 2] = [FilterKind::Standard, FilterKind::Blocked];

fn hashes(prefix: &str, count: usize) -> Vec<u64> {
    (0..count).map(|n| key_hash(format!("{prefix}{n}").as_bytes())).collect()
}

fn build_filter(kind: FilterKind, bits: u32, hashes: &[u64]) -> Filter {
    Filter::decode(kind, &build(kind, bits, hashes).unwrap()).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// These bytes are on disk: if one of them changes, keys of existing tables are lost.
#[test]
fn golden_vectors() {
    let hashes = hashes("key", 12);
    assert_eq!(hex(&build(FilterKind::Standard, 10, &hashes).unwrap()), GOLDEN_STANDARD);
    assert_eq!(hex(&build(FilterKind::Blocked, 10, &hashes).unwrap()), GOLDEN_BLOCKED);
    let blocked = build(FilterKind::Blocked, 20, &self::hashes("many", 400)).unwrap();
    assert_eq!(format!("{:016x}", crate::base::checksum::plain(&blocked)), GOLDEN_BLOCKED_MANY);
    let standard = build(FilterKind::Standard, 20, &self::hashes("many", 400)).unwrap();
    assert_eq!(format!("{:016x}", crate::base::checksum::plain(&standard)), GOLDEN_STANDARD_MANY);
}

const GOLDEN_STANDARD: &str = "010f000000000000000700000065736b65722e66696c7465722e312f6165736b65722e66696c7465722e312f62e0678ec91d1ff7b4ac207f5a2235cb";
const GOLDEN_BLOCKED: &str = "000420080000004200004c92518061c06080001810000141c3000204048400000238000840000000000004000000c902805122014118000050000200402080400601000001000000";
const GOLDEN_BLOCKED_MANY: &str = "40719d99a209c0c0";
const GOLDEN_STANDARD_MANY: &str = "d5ebdf5c95c41152";

/// The layout of kind 2 as its file describes it, written a second time, bit by bit.
#[test]
fn blocked_filters_are_what_their_description_says() {
    for (count, bits, probes) in [(1, 10, 6u32), (300, 6, 4), (1000, 10, 6), (500, 20, 12), (100, 40, 24)] {
        let hashes = hashes("spec", count);
        let lines = (count as u64 * bits).div_ceil(512);
        let mut expected = vec![0u8; lines as usize * 64];
        for hash in &hashes {
            let line = (u128::from(hash >> 32) * u128::from(lines)) >> 32;
            let mut mixed = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            for probe in 0..probes {
                if probe > 0 && probe % 7 == 0 {
                    mixed = mixed.rotate_left(32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                }
                let bit = (mixed >> (55 - 9 * (probe % 7))) & 511;
                expected[line as usize * 64 + bit as usize / 8] |= 1 << (bit % 8);
            }
        }
        expected.extend_from_slice(&[probes as u8, 1, 0, 0]);
        expected.extend_from_slice(&(lines as u32).to_le_bytes());
        assert!(build(FilterKind::Blocked, bits as u32, &hashes).unwrap() == expected, "{count} {bits}");
    }
}

#[test]
fn no_added_key_is_ever_denied() {
    for kind in KINDS {
        for count in [1, 2, 7, 51, 52, 1000, 30_000] {
            for bits in [1, 3, 10, 13, 40, 100] {
                let hashes = hashes("in", count);
                let filter = build_filter(kind, bits, &hashes);
                assert!(hashes.iter().all(|hash| filter.may_contain(*hash)), "{kind:?} {count} {bits}");
            }
        }
        let extremes = [0, 1, u64::MAX, u64::MAX << 32, u64::from(u32::MAX)];
        let filter = build_filter(kind, 10, &extremes);
        assert!(extremes.iter().all(|hash| filter.may_contain(*hash)));
    }
}

/// False positives per 10,000 absent keys stay below these bounds: about a fifth above the expected rate.
#[test]
fn false_positives_stay_within_bounds() {
    let added = hashes("in", 50_000);
    let absent = hashes("out", 200_000);
    for (kind, bits, bound) in [
        (FilterKind::Standard, 8, 260),
        (FilterKind::Standard, 10, 100),
        (FilterKind::Standard, 16, 8),
        (FilterKind::Blocked, 6, 690),
        (FilterKind::Blocked, 8, 280),
        (FilterKind::Blocked, 10, 120),
        (FilterKind::Blocked, 16, 12),
    ] {
        let filter = build_filter(kind, bits, &added);
        let met = absent.iter().filter(|hash| filter.may_contain(**hash)).count() / 20;
        println!("{kind:?} at {bits} bits: {met} of 10,000");
        assert!(met <= bound, "{kind:?} at {bits} bits: {met} of 10,000");
    }
}

#[test]
fn no_filter_is_built_where_none_is_wanted() {
    assert!(build(FilterKind::None, 10, &[1]).is_none());
    for kind in KINDS {
        assert!(build(kind, 0, &[1]).is_none());
        assert!(build(kind, 10, &[]).is_none());
    }
    assert!(Filter::None.may_contain(7));
}

#[test]
fn hostile_filters_are_refused_or_answer() {
    for kind in KINDS {
        let block = build(kind, 10, &hashes("in", 60)).unwrap();
        for len in 0..block.len() {
            assert!(Filter::decode(kind, &block[..len]).is_err(), "{kind:?} cut to {len}");
        }
        for at in 0..block.len() {
            for value in [0, 1, 31, 0x7f, 0xff] {
                let mut hostile = block.clone();
                hostile[at] = value;
                if let Ok(filter) = Filter::decode(kind, &hostile) {
                    filter.may_contain(u64::from(value) << 56 | at as u64);
                }
            }
        }
    }
    let mut empty = build(FilterKind::Standard, 10, &[1]).unwrap()[..45].to_vec();
    empty[1..9].fill(0);
    assert!(Filter::decode(FilterKind::Standard, &empty).is_err(), "no bits");
    let mut many = build(FilterKind::Standard, 10, &[1]).unwrap();
    many[9..13].fill(0xff);
    assert!(Filter::decode(FilterKind::Standard, &many).is_err(), "four billion probes");
    let no_lines = [6u8, 1, 0, 0, 0, 0, 0, 0];
    assert!(Filter::decode(FilterKind::Blocked, &no_lines).is_err(), "no lines");
}

#[test]
fn lines_stand_at_addresses_of_their_own_size() {
    for count in [1, 100, 5000] {
        let block = build(FilterKind::Blocked, 10, &hashes("in", count)).unwrap();
        let filter = BlockedFilter::decode(&block).unwrap();
        assert_eq!(filter.first_line() % 64, 0);
    }
}
