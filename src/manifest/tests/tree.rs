//! Trees: their text, their rules, and looking things up in them.

use super::*;

#[test]
fn text_round_trips() {
    #[track_caller]
    fn check(text: &str) {
        assert_eq!(Tree::parse(text).to_string(), dedent(text));
    }
    check("");
    check("L0 #5: 12:[a..f]@10-20 13:[g..k]@11-19");
    check(
        "L0 #9: 30:[a..z]@20-29{bytes=64K,deletes=3,older=2}
         L0 #7: 28:[a..z]@1-1
         L1 #6: 3:[a..c]@1-9{bytes=5M,raw=1025,entries=1} 5:[d..e]@1-9{origin=4}
         L6 #1: 1:[\\x00\\xff..\\x2e]@1-9 2:[a/b-c_D!9d..b!2p]@1-9",
    );
}

#[test]
fn random_tables_survive_text() {
    let mut rng = seeded(1);
    for number in 1..500 {
        let table = random_table(&mut rng, number);
        assert_eq!(TableMeta::parse(&table.to_string()), table, "{table}");
    }
}

#[test]
fn broken_rules_are_named() {
    #[track_caller]
    fn check(text: &str, expect: &str) {
        let found =
            Tree::parse_unchecked(text).check().err().map_or_else(String::new, |broken| broken.to_string());
        assert_eq!(found, expect, "{text}");
    }
    check("L0 #5: 1:[a..b]@1-2 2:[c..d]@1-2", "");
    check("L0 #5: 1:[a..b]@1-2 2:[b..d]@1-2", "level 0: run #5: tables 1 and 2 overlap");
    check("L3 #5: 1:[c..d]@1-2 2:[a..b]@1-2", "level 3: run #5: tables 1 and 2 overlap");
    check("L0 #5: 1:[a..d]@1-2 2:[b..c]@1-2", "level 0: run #5: tables 1 and 2 overlap");
    check("L0 #5:", "level 0: run #5 has no tables");
    check("L0 #5: 1:[a..b]@1-2\nL0 #5: 2:[c..d]@1-2", "level 0: epochs do not descend");
    check("L0 #4: 1:[a..b]@3-4\nL0 #5: 2:[c..d]@1-2", "level 0: epochs do not descend");
    check("L0 #5: 1:[a..b]@3-4\nL0 #4: 2:[a..b]@8-9", "");
    check("L0 #5: 1:[a..b]@1-2\nL1 #5: 2:[c..d]@1-2", "");
    check("L0 #5: 1:[a..b]@1-2\nL1 #4: 1:[c..d]@1-2", "table 1 is there twice");
    check("L0 #5: 0:[a..b]@1-2", "level 0: table 0: its number is 0");
    check("L0 #5: 1:[b..a]@1-2", "level 0: table 1: its bounds are reversed");
    check("L0 #5: 1:[a!1p..a!2p]@1-2", "level 0: table 1: its bounds are reversed");
    check("L0 #5: 1:[a!3p..b]@1-2", "level 0: table 1: its smallest key cannot be one of its entries");
    check("L0 #5: 1:[a..b!0p]@1-2", "level 0: table 1: its largest key cannot be one of its entries");
    check("L0 #5: 1:[..b]@1-2", "level 0: table 1: its smallest key cannot be one of its entries");
    check("L0 #5: 1:[a..b]@3-2", "level 0: table 1: its sequence range is reversed");
    check("L0 #5: 1:[a..b]@1-72057594037927936", "level 0: table 1: its sequence range is out of bounds");
    check("L0 #5: 1:[a..b]@1-2{bytes=0}", "level 0: table 1: it has no bytes");
    check("L0 #5: 1:[a..b]@1-2{entries=0}", "level 0: table 1: it has no entries");
    check("L0 #5: 1:[a..b]@1-2{deletes=11}", "level 0: table 1: more deletes than entries");
}

#[test]
fn a_key_is_found_in_the_one_table_that_may_hold_it() {
    let tree = Tree::parse("L0 #5: 1:[b..d]@1-2 2:[f..f]@1-2 3:[g..k]@1-2");
    let run = &tree.levels[0].runs[0];
    #[track_caller]
    fn check(run: &Run, key: &str, expect: Option<u64>) {
        assert_eq!(run.find(key.as_bytes()).map(|table| table.number), expect, "{key}");
    }
    for (key, expect) in [("a", None), ("b", Some(1)), ("d", Some(1)), ("d0", None), ("e", None)] {
        check(run, key, expect);
    }
    for (key, expect) in [("f", Some(2)), ("f0", None), ("g", Some(3)), ("k", Some(3)), ("l", None)] {
        check(run, key, expect);
    }
}

#[test]
fn overlapping_tables_are_a_slice_with_inclusive_bounds() {
    let tree = Tree::parse("L0 #5: 1:[b..d]@1-2 2:[f..f]@1-2 3:[g..k]@1-2");
    let run = &tree.levels[0].runs[0];
    #[track_caller]
    fn check(run: &Run, lo: Option<&str>, hi: Option<&str>, expect: &[u64]) {
        let (lo, hi) = (lo.map(str::as_bytes), hi.map(str::as_bytes));
        let found: Vec<u64> = run.overlapping(lo, hi).iter().map(|table| table.number).collect();
        assert_eq!(found, expect, "{lo:?} {hi:?}");
        let one_by_one = run.tables.iter().filter(|table| table.overlaps(lo, hi)).map(|table| table.number);
        assert_eq!(one_by_one.collect::<Vec<_>>(), expect, "{lo:?} {hi:?}");
    }
    check(run, None, None, &[1, 2, 3]);
    check(run, None, Some("a"), &[]);
    check(run, None, Some("b"), &[1]);
    check(run, Some("d"), Some("f"), &[1, 2]);
    check(run, Some("d0"), Some("e"), &[]);
    check(run, Some("f0"), None, &[3]);
    check(run, Some("l"), None, &[]);
    check(run, Some("c"), Some("c"), &[1]);
    check(run, Some("l"), Some("a"), &[]);
}

#[test]
fn sums_and_order_of_reading() {
    let tree = Tree::parse(
        "L0 #9: 9:[a..b]@1-2{bytes=10,entries=3} 8:[c..d]@1-2{bytes=20,entries=4}
         L0 #3: 3:[a..b]@1-2{bytes=30}
         L2 #4: 4:[a..b]@1-2{bytes=40}",
    );
    assert_eq!(tree.bytes(), 100);
    assert_eq!(tree.levels[0].bytes(), 60);
    assert_eq!((tree.levels[0].runs[0].bytes(), tree.levels[0].runs[0].entries()), (30, 7));
    assert_eq!(tree.tables().map(|table| table.number).collect::<Vec<_>>(), [9, 8, 3, 4]);
    assert_eq!(
        tree.runs().map(|(level, run)| (level, run.epoch)).collect::<Vec<_>>(),
        [(0, 9), (0, 3), (2, 4)]
    );
    assert_eq!((Tree::default().bytes(), Tree::default().tables().count()), (0, 0));
    assert!(tree.levels[0].run(3).is_some() && tree.levels[0].run(4).is_none());
}
