//! Drop rules against a brute-force model: every reader sees the same before and after, and nothing more could go.

use super::{generator, task, tree};
use crate::base::key::{KeyRef, Trailer};
use crate::base::types::{EntryKind, UnknownKind};
use crate::compaction::drop_rules::{DropRules, OlderTables, Verdict};
use rand::RngExt;
use rand::rngs::StdRng;

/// Sequence number and whether it is a delete, newest first.
type Versions = Vec<(u64, bool)>;

fn kept(key: &[u8], versions: &Versions, rules: &mut DropRules<'_>) -> Versions {
    let mut kept = Versions::new();
    for (seq, delete) in versions {
        let kind = if *delete { EntryKind::Delete } else { EntryKind::Put };
        if let Verdict::Keep { first } = rules.judge(KeyRef::new(key, Trailer::new(*seq, kind))).unwrap() {
            assert_eq!(first, kept.is_empty());
            kept.push((*seq, *delete));
        }
    }
    kept
}

/// `5 d3 1` at snapshots `2` and visible 9.
fn check(versions: &str, snapshots: &[u64], visible: u64, older: bool, expect: &str) {
    let parse = |word: &str| match word.strip_prefix('d') {
        Some(seq) => (seq.parse().unwrap(), true),
        None => (word.parse().unwrap(), false),
    };
    let versions: Versions = versions.split_whitespace().map(parse).collect();
    let tree = tree(if older { "L3#1 1[a-z]" } else { "" });
    let mut rules = DropRules::new(snapshots, visible, Some(OlderTables::all(&tree)));
    let kept = kept(b"k", &versions, &mut rules);
    let show = |(seq, delete): &(u64, bool)| format!("{}{seq}", if *delete { "d" } else { "" });
    assert_eq!(kept.iter().map(show).collect::<Vec<_>>().join(" "), expect);
}

#[test]
fn shadowed_versions_go() {
    check("5 3 1", &[], 9, false, "5");
    check("5 3 1", &[3], 9, false, "5 3");
    check("5 3 1", &[4], 9, false, "5 3");
    check("5 3 1", &[2, 4], 9, false, "5 3 1");
    check("5 3 1", &[0], 9, false, "5");
    check("5 3 1", &[5], 9, false, "5");
}

#[test]
fn versions_above_the_visible_sequence_stay() {
    check("5 4 3 2 1", &[], 3, false, "5 4 3");
    check("5 4 3 2 1", &[], 0, false, "5 4 3 2 1");
    check("d5 d4 d3", &[], 3, false, "d5 d4");
    // A snapshot may be registered above the sequence number that was sampled with it.
    check("5 4 3 2 1", &[4], 3, false, "5 4 3");
}

#[test]
fn deletes_go_when_nothing_is_left_to_hide() {
    check("d5 3 1", &[], 9, false, "");
    check("d5 3 1", &[], 9, true, "d5");
    check("d5 3", &[4], 9, false, "d5 3");
    check("d5", &[5], 9, false, "");
    // The snapshot at 4 is told by it that the key was written since.
    check("d5", &[4], 9, false, "d5");
    check("7 d5 3", &[6], 9, false, "7");
    check("7 d5 3", &[6], 9, true, "7 d5");
}

#[test]
fn without_knowledge_of_older_tables_deletes_stay() {
    let mut rules = DropRules::new(&[], 9, None);
    assert_eq!(kept(b"k", &vec![(5, true), (4, false)], &mut rules), vec![(5, true)]);
}

#[test]
fn unknown_kinds_are_refused() {
    let mut rules = DropRules::new(&[], 9, None);
    let judge =
        |rules: &mut DropRules<'_>, byte: u64| rules.judge(KeyRef::new(b"k", Trailer((5 << 8) | byte)));
    assert_eq!(judge(&mut rules, 4), Err(UnknownKind::Reserved("merge operand")));
    assert_eq!(judge(&mut rules, 99), Err(UnknownKind::Invalid(99)));
}

#[test]
fn older_tables_are_those_below_the_newest_input() {
    let tree = tree("L0#9 9[a-c]\nL1#8 8[a-c]\nL1#7 7[d-f] 6[h-k]\nL2#1 1[c-d] 2[e-e] 3[m-z]");
    let check = |line: &str, expect: &str| {
        let task = task(&tree, line);
        let mut older = OlderTables::below(&tree, &task);
        let found: String = ('a'..='p').filter(|key| older.may_hold(key.to_string().as_bytes())).collect();
        assert_eq!(found, expect, "{line}");
    };
    check("merge 9 8 -> L1#8", "cd");
    // Outside of the keys that go in, nothing is asked for.
    check("merge 7 1 2 -> L2#1", "");
    check("merge 7 6 -> L2 new", "cde");
    check("merge 9 8 7 6 1 2 3 -> L2#1", "");
    check("merge 3 -> L2#1", "");
}

/// What a reader at `seq` sees: the newest version at or below it, deletes and nothing being the same.
fn seen(versions: &Versions, below: bool, seq: u64) -> Option<u64> {
    match versions.iter().find(|(own, _)| *own <= seq) {
        Some((_, true)) => None,
        Some((own, false)) => Some(*own),
        // An older version, below the inputs.
        None => below.then_some(0),
    }
}

fn random_versions(random: &mut StdRng, seq_max: u64) -> Versions {
    let mut seqs: Vec<u64> = (1..=seq_max).filter(|_| random.random_bool(0.4)).collect();
    seqs.reverse();
    seqs.into_iter().map(|seq| (seq, random.random_bool(0.4))).collect()
}

#[test]
fn every_reader_sees_the_same_and_nothing_more_could_go() {
    let mut random = generator(7);
    let empty = tree("");
    let below_all = tree("L3#1 1[a-z]");
    for _ in 0..4000 {
        let seq_max = random.random_range(1..12);
        let mut snapshots: Vec<u64> = (0..=seq_max).filter(|_| random.random_bool(0.25)).collect();
        let visible = random.random_range(0..=seq_max + 1);
        snapshots.retain(|snapshot| *snapshot <= visible);
        let below = random.random_bool(0.5);
        let tree = if below { &below_all } else { &empty };
        let mut rules = DropRules::new(&snapshots, visible, Some(OlderTables::all(tree)));
        // Two keys in turn: what one leaves behind must not reach the next.
        for key in [b"k", b"l"] {
            let before = random_versions(&mut random, seq_max);
            let after = kept(key, &before, &mut rules);
            let case =
                format!("{before:?} -> {after:?}, snapshots {snapshots:?}, visible {visible}, below {below}");
            let readers: Vec<u64> = snapshots.iter().copied().chain(visible..=seq_max + 2).collect();
            for seq in &readers {
                assert_eq!(seen(&before, below, *seq), seen(&after, below, *seq), "at {seq}: {case}");
                // Whoever stood at an older reader still learns that the key was written since.
                let newest =
                    |versions: &Versions| versions.iter().map(|(own, _)| *own).find(|own| own <= seq);
                let older_reader =
                    readers.iter().any(|reader| newest(&before).is_some_and(|own| *reader < own));
                if older_reader {
                    assert_eq!(newest(&before), newest(&after), "at {seq}: {case}");
                }
            }
            is_minimal(&after, &readers, below, &case);
        }
    }
}

/// Each version that was kept is seen by a reader, or is a delete that an older reader may ask about, or hides one.
fn is_minimal(after: &Versions, readers: &[u64], below: bool, case: &str) {
    for (index, (seq, delete)) in after.iter().enumerate() {
        let newer = index.checked_sub(1).map_or(u64::MAX, |newer| after[newer].0);
        let is_seen = readers.iter().any(|reader| (*seq..newer).contains(reader));
        assert!(is_seen, "{seq} is seen by nobody: {case}");
        let tells = readers.iter().any(|reader| reader < seq);
        assert!(!delete || below || tells, "the delete {seq} says nothing: {case}");
    }
}
