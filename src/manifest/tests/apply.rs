//! The step from one version to the next.

use super::*;
use std::sync::Arc;

const BASE: &str = "
    create 0 \"default\" bits_per_key=10
    create 3 \"users\"
    files 100
    log 4
    add 0 L0 #5 12:[a..f]@10-20
    add 0 L0 #5 13:[g..k]@11-19
    add 0 L0 #7 14:[a..z]@21-30
    add 0 L1 #2 3:[a..c]@1-5
    add 0 L1 #2 4:[d..f]@1-5
    add 0 L1 #2 5:[x..z]@1-5
    add 3 L0 #6 15:[a..f]@10-20
    clean 8";

fn base() -> Version {
    let version = Version::empty(7).apply(&Edit::parse(BASE)).unwrap();
    version.check().unwrap();
    version
}

/// Applies the edit to `BASE`; the default keyspace's tree afterwards, or the rule that it breaks.
#[track_caller]
fn check(edit: &str, expect: &str) {
    let before = base();
    let found = match before.apply(&Edit::parse(edit)) {
        Ok(version) => {
            version.check().unwrap();
            assert_eq!(version.generation, 2);
            version.keyspaces[&KeyspaceId::DEFAULT].tree.to_string()
        }
        Err(broken) => format!("error: {broken}"),
    };
    assert_eq!(found, dedent(expect), "{edit}");
    assert_eq!(before, base(), "the version before is untouched");
}

#[test]
fn an_empty_edit_counts_and_clears_the_clean_marker() {
    let version = base();
    assert_eq!((version.generation, version.clean_next_log), (1, Some(8)));
    let next = version.apply(&Edit::default()).unwrap();
    assert_eq!((next.generation, next.clean_next_log), (2, None));
    assert_eq!(next.apply(&Edit::parse("clean 9")).unwrap().clean_next_log, Some(9));
}

#[test]
fn outputs_form_a_run_of_their_own() {
    check(
        "add 0 L1 #8 20:[a..m]@10-20
         remove 0 L0 #5 12
         remove 0 L0 #5 13",
        "L0 #7: 14:[a..z]@21-30
         L1 #8: 20:[a..m]@10-20
         L1 #2: 3:[a..c]@1-5 4:[d..f]@1-5 5:[x..z]@1-5",
    );
}

#[test]
fn outputs_join_a_run_and_replace_part_of_it_in_any_order_of_operations() {
    let expect = "
        L0 #7: 14:[a..z]@21-30
        L1 #2: 3:[a..c]@1-5 20:[d..e]@1-20 21:[f..m]@1-20 5:[x..z]@1-5";
    let adds = "add 0 L1 #2 21:[f..m]@1-20\nadd 0 L1 #2 20:[d..e]@1-20\n";
    let removes = "remove 0 L0 #5 12\nremove 0 L0 #5 13\nremove 0 L1 #2 4\n";
    check(&format!("{adds}{removes}"), expect);
    check(&format!("{removes}{adds}"), expect);
}

#[test]
fn outputs_take_over_the_epoch_of_an_input() {
    check(
        "remove 0 L0 #5 12
         remove 0 L0 #5 13
         add 0 L0 #5 20:[a..b]@10-20
         add 0 L0 #5 21:[c..k]@10-20",
        "L0 #7: 14:[a..z]@21-30
         L0 #5: 20:[a..b]@10-20 21:[c..k]@10-20
         L1 #2: 3:[a..c]@1-5 4:[d..f]@1-5 5:[x..z]@1-5",
    );
}

#[test]
fn a_move_keeps_the_table() {
    check(
        "add 0 L2 #9 5:[x..z]@1-5
         remove 0 L1 #2 5",
        "L0 #7: 14:[a..z]@21-30
         L0 #5: 12:[a..f]@10-20 13:[g..k]@11-19
         L1 #2: 3:[a..c]@1-5 4:[d..f]@1-5
         L2 #9: 5:[x..z]@1-5",
    );
}

/// Files are removed when nobody holds their metadata any more. A reader of the version before a move holds it by that
/// version, and must count as a reader of the moved table.
#[test]
fn versions_before_and_after_a_move_share_the_metadata() {
    let find = |version: &Version| version.tables().find(|table| table.number == 5).cloned().unwrap();
    let (add, remove) = ("add 0 L2 #9 5:[x..z]@1-5\n", "remove 0 L1 #2 5\n");
    for edit in [format!("{add}{remove}"), format!("{remove}{add}")] {
        let before = base();
        let after = before.apply(&Edit::parse(&edit)).unwrap();
        assert!(Arc::ptr_eq(&find(&before), &find(&after)), "{edit}");
    }
}

#[test]
fn level_0_is_ordered_by_epoch_not_by_sequence() {
    check(
        "add 0 L0 #6 20:[a..z]@90-99
         add 0 L0 #9 21:[a..z]@1-2",
        "L0 #9: 21:[a..z]@1-2
         L0 #7: 14:[a..z]@21-30
         L0 #6: 20:[a..z]@90-99
         L0 #5: 12:[a..f]@10-20 13:[g..k]@11-19
         L1 #2: 3:[a..c]@1-5 4:[d..f]@1-5 5:[x..z]@1-5",
    );
}

#[test]
fn edits_that_break_a_rule_are_refused() {
    for (edit, expect) in [
        ("remove 0 L0 #5 99", "keyspace 0 has no table 99 in level 0 run #5"),
        ("remove 0 L0 #7 12", "keyspace 0 has no table 12 in level 0 run #7"),
        ("remove 0 L1 #5 12", "keyspace 0 has no table 12 in level 1 run #5"),
        ("remove 0 L9 #5 12", "keyspace 0 has no table 12 in level 9 run #5"),
        ("remove 0 L0 #5 12\nremove 0 L0 #5 12", "keyspace 0 has no table 12 in level 0 run #5"),
        ("remove 9 L0 #5 12", "there is no keyspace 9"),
        ("add 9 L0 #5 20:[a..b]@1-2", "there is no keyspace 9"),
        ("add 0 L7 #5 20:[a..b]@1-2", "there is no level 7"),
        ("add 0 L1 #2 20:[c..c]@1-2", "run #2: tables 3 and 20 overlap"),
        ("add 0 L1 #2 20:[c0..d]@1-2", "run #2: tables 20 and 4 overlap"),
        ("add 0 L1 #2 20:[g..x]@1-2", "run #2: tables 20 and 5 overlap"),
        ("add 0 L1 #2 20:[a..c]@1-2", "run #2: tables 20 and 3 overlap"),
        ("add 0 L1 #2 20:[A..zz]@1-2", "run #2: tables 20 and 3 overlap"),
        ("add 0 L3 #2 20:[a..e]@1-2\nadd 0 L3 #2 21:[c..f]@1-2", "run #2: tables 20 and 21 overlap"),
        ("add 0 L3 #2 100:[a..b]@1-2", "table 100 is not below the reserved bound 100"),
        ("add 0 L3 #2 3:[a..c]@1-5", "table 3 is there twice"),
        ("add 0 L3 #2 15:[a..f]@10-20", "table 15 is there twice"),
        ("add 0 L3 #2 20:[b..a]@1-2", "table 20: its bounds are reversed"),
        ("add 0 L3 #18446744073709551615 20:[a..b]@1-2", "epochs are used up"),
        ("create 3 \"other\"", "keyspace number 3 was used before"),
        ("create 2 \"other\"", "keyspace number 2 was used before"),
        ("create 4 \"users\"", "there is a keyspace \"users\" already"),
        ("create 4 \"\"", "a keyspace needs a name"),
        ("create 4294967295 \"other\"", "keyspace numbers are used up"),
        ("drop 9", "there is no keyspace 9"),
        ("drop 0", "the default keyspace cannot be dropped"),
        ("settings 9", "there is no keyspace 9"),
        ("flushed 9 5", "there is no keyspace 9"),
        ("flushed 0 72057594037927936", "sequence number 72057594037927936 is out of bounds"),
        ("seq 72057594037927936", "sequence number 72057594037927936 is out of bounds"),
        ("clean 3", "the clean marker's segment is below segment 4"),
        ("drop 3\nadd 3 L0 #9 20:[a..b]@1-2", "there is no keyspace 3"),
    ] {
        check(edit, &format!("error: {expect}"));
    }
}

#[test]
fn watermarks_only_rise() {
    #[track_caller]
    fn check(edit: &str, expect: &str) {
        let version = base().apply(&Edit::parse(edit)).unwrap();
        assert_eq!(version.to_string().lines().next().unwrap(), format!("generation 2 {expect}"), "{edit}");
    }
    check("", "files 100 epochs 8 keyspaces 4 log 4 seq 30");
    check("files 90\nepochs 3\nkeyspaces 1\nlog 3\nseq 7", "files 100 epochs 8 keyspaces 4 log 4 seq 30");
    check(
        "files 190\nepochs 13\nkeyspaces 11\nlog 13\nseq 70",
        "files 190 epochs 13 keyspaces 11 log 13 seq 70",
    );
    check("flushed 0 40", "files 100 epochs 8 keyspaces 4 log 4 seq 40");
    check("add 0 L0 #20 20:[a..b]@50-60", "files 100 epochs 21 keyspaces 4 log 4 seq 60");
    check("create 6 \"other\"\ndrop 6", "files 100 epochs 8 keyspaces 7 log 4 seq 30");
    let version =
        base().apply(&Edit::parse("flushed 3 9")).unwrap().apply(&Edit::parse("flushed 3 8")).unwrap();
    assert_eq!(version.keyspace("users").unwrap().flushed_seq, 9);
}

#[test]
fn keyspaces_come_change_and_go() {
    let version = base();
    let next = version.apply(&Edit::parse("settings 3 l0_runs=4 block_bytes=4K\ncreate 4 \"logs\"")).unwrap();
    assert_eq!(next.keyspace("users").unwrap().options.to_string(), " block_bytes=4096 l0_runs=4");
    assert!(next.keyspace("logs").unwrap().tree.tables().next().is_none());
    let last = next.apply(&Edit::parse("drop 3")).unwrap();
    assert!(last.keyspace("users").is_none());
    assert_eq!(last.tables().count(), 6);
    let again = last.apply(&Edit::parse("create 5 \"users\"\nadd 5 L0 #6 15:[a..f]@10-20")).unwrap();
    assert_eq!(again.keyspace("users").unwrap().id, KeyspaceId(5));
}

#[test]
fn an_edit_copies_only_what_it_changes() {
    let before = base();
    let after = before.apply(&Edit::parse("remove 0 L0 #7 14")).unwrap();
    let (old, new) = (&before.keyspaces[&KeyspaceId(0)].tree, &after.keyspaces[&KeyspaceId(0)].tree);
    assert!(std::sync::Arc::ptr_eq(&old.levels[1].runs[0], &new.levels[1].runs[0]));
    assert!(std::sync::Arc::ptr_eq(&before.keyspaces[&KeyspaceId(3)], &after.keyspaces[&KeyspaceId(3)]));
}

#[test]
fn a_version_is_rebuilt_from_its_snapshot() {
    let mut version =
        base().apply(&Edit::parse("create 9 \"gone\"\ndrop 9\nflushed 3 17\nfiles 120\nclean 6")).unwrap();
    version.generation = 1;
    let rebuilt = Version::empty(7).apply(&version.snapshot()).unwrap();
    rebuilt.check().unwrap();
    assert_eq!(rebuilt, version);
    assert_eq!(
        rebuilt.to_string(),
        dedent(
            "generation 1 files 120 epochs 8 keyspaces 10 log 4 seq 30 clean 6
             keyspace 0 \"default\" flushed 0 bits_per_key=10"
        ) + "\n  L0 #7: 14:[a..z]@21-30"
            + "\n  L0 #5: 12:[a..f]@10-20 13:[g..k]@11-19"
            + "\n  L1 #2: 3:[a..c]@1-5 4:[d..f]@1-5 5:[x..z]@1-5"
            + "\nkeyspace 3 \"users\" flushed 17"
            + "\n  L0 #6: 15:[a..f]@10-20"
    );
}

/// Any sequence of random edits leaves a version that obeys every rule: what `apply` lets through, `check` accepts.
#[test]
fn what_apply_accepts_check_accepts() {
    let mut rng = seeded(2);
    let mut version = Version::empty(1).apply(&Edit::parse("create 0 \"default\"\nfiles 40")).unwrap();
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..5000 {
        let ops = (0..rng.random_range(1..4)).map(|_| likely_op(&mut rng, &version)).collect();
        match version.apply(&Edit(ops)) {
            Ok(next) => {
                next.check().unwrap();
                (version, accepted) = (next, accepted + 1);
            }
            Err(_) => refused += 1,
        }
        let snapshot = Version::empty(1).apply(&version.snapshot()).unwrap();
        assert_eq!(snapshot.keyspaces, version.keyspaces);
    }
    assert!(accepted > 500 && refused > 500, "{accepted} {refused}");
}

/// An operation over few numbers and keys, so that it often fits and often collides.
fn likely_op(rng: &mut StdRng, version: &Version) -> EditOp {
    let (level, epoch) = (rng.random_range(0..3), rng.random_range(1..6));
    let present: Vec<_> = version.keyspaces[&KeyspaceId(0)].tree.runs().collect();
    if rng.random_bool(0.4) && !present.is_empty() {
        let (level, run) = present[rng.random_range(0..present.len())];
        let number = run.tables[rng.random_range(0..run.tables.len())].number;
        return EditOp::RemoveTable { keyspace: KeyspaceId(0), level: level as u8, epoch: run.epoch, number };
    }
    let (lo, span) = (rng.random_range(b'a'..=b'w'), rng.random_range(0..4));
    let number = rng.random_range(1..42);
    let table = TableMeta::parse(&format!("{number}:[{}..{}]@1-2", char::from(lo), char::from(lo + span)));
    EditOp::AddTable { keyspace: KeyspaceId(0), level, epoch, table }
}

/// Applies edits to an empty version; its floor, last sequence number and moments afterwards.
#[track_caller]
fn check_past(edits: &[&str], expect: &str) {
    let apply = |version: Version, edit: &&str| version.apply(&Edit::parse(edit)).unwrap();
    let version = edits.iter().fold(Version::empty(7), apply);
    version.check().unwrap();
    let moments: Vec<_> =
        version.moments.iter().map(|moment| format!("{}@{}", moment.seq, moment.at_micros)).collect();
    let found = format!("{:?} last {} [{}]", version.floor, version.last_seq, moments.join(" "));
    assert_eq!(found, expect, "{edits:?}");
    let again = Version::empty(7).apply(&version.snapshot()).unwrap();
    assert_eq!(
        (again.floor, again.moments, again.last_seq),
        (version.floor, version.moments, version.last_seq)
    );
}

#[test]
fn the_floor_rises_and_takes_with_it_the_moments_that_nobody_needs() {
    check_past(&[], "None last 0 []");
    check_past(&["floor 0"], "Some(0) last 0 []");
    check_past(&["floor 7", "floor 5"], "Some(7) last 0 []");
    let moments = "moment 100 3 10\nmoment 200 5 10\nmoment 300 9 10";
    check_past(&[moments], "None last 9 [3@100 5@200 9@300]");
    check_past(&[moments, "floor 4"], "Some(4) last 9 [3@100 5@200 9@300]");
    check_past(&[moments, "floor 5"], "Some(5) last 9 [5@200 9@300]");
    check_past(&[moments, "floor 8"], "Some(8) last 9 [5@200 9@300]");
    check_past(&[moments, "floor 80"], "Some(80) last 9 [9@300]");
}

#[test]
fn a_moment_goes_on_from_the_last_or_takes_its_place_or_says_nothing() {
    check_past(&["moment 100 3 10", "moment 109 4 10"], "None last 4 [3@100 4@109]");
    check_past(&["moment 100 3 10", "moment 200 4 10", "moment 209 5 10"], "None last 5 [3@100 5@209]");
    check_past(&["moment 100 3 0", "moment 100 4 0", "moment 100 5 0"], "None last 5 [3@100 5@100]");
    check_past(&["moment 100 3 10", "moment 110 4 10"], "None last 4 [3@100 4@110]");
    check_past(&["moment 100 3 0", "moment 101 4 0", "moment 101 5 0"], "None last 5 [3@100 5@101]");
    check_past(&["moment 100 3 10", "moment 99 4 10"], "None last 4 [3@100]");
    check_past(&["moment 100 3 10", "moment 200 3 10"], "None last 3 [3@100]");
}
