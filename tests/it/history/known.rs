//! The checker checked: a history for each anomaly with the names that it must get and the level that forbids it, and
//! histories in which nothing is wrong.

use super::anomaly::{Kind, kinds};
use super::check::{anomalies_found, check};
use super::model::Level;
use super::notation::history;
use Kind::*;
use std::collections::BTreeSet;

/// A history, its anomalies by name, and the weakest level that forbids one of them.
type Bad = (&'static str, &'static str, &'static [Kind], Level);

const RU: Level = Level::ReadUncommitted;
const RC: Level = Level::ReadCommitted;
const RR: Level = Level::RepeatableRead;
const SER: Level = Level::Serializable;

const BAD: &[Bad] = &[
    (
        "lists show writes in another order than the commits",
        "w1(x) w2(x) c1@1 c2@2 l3(x: x2 x1) c3",
        &[G0, GSi, RealTime],
        RU,
    ),
    ("a value from nowhere", "r1(x5) c1", &[Garbage], RU),
    ("a key written elsewhere", "w1(x) c1 r2(y1) c2", &[Garbage], RU),
    ("a key is gone that nobody removed", "r1(x-) c1", &[Garbage], RC),
    ("a range answers a key outside of it", "s1(w-x: x0 y0) c1", &[Garbage], RU),
    ("an own write is not seen", "w1(x) r1(x0) c1", &[Internal], RU),
    ("an own removal is not seen", "d1(x) s1(w-z: x0 y0) c1", &[Internal], RU),
    ("an own write is seen that was taken back", "p1 w1(x) u1 r1(x1) c1", &[Internal], RU),
    ("aborted read", "w1(x) r2(x1) a1 c2", &[G1a], RC),
    ("aborted read in a range", "w1(z) s2(w-z: x0 y0 z1) a1 c2", &[G1a], RC),
    ("aborted read by one that rolls back itself", "w1(x) r2(x1) a1 a2", &[G1a], RC),
    ("aborted element in a list", "w1(x) a1 w2(x) c2 l3(x: x1 x2) c3", &[G1a], RC),
    ("intermediate read", "w1(x) r2(x1.1) w1(x) c1 c2", &[G1b], RC),
    ("a write that was taken back is read", "p1 w1(x) r2(x1) u1 c1 c2", &[G1b], RC),
    ("circular information flow", "w1(x) w2(y) r1(y2) r2(x1) c1 c2", &[G1c], RC),
    ("circular flow through a write", "w1(x) w2(x) w2(y) r1(y2) c1 c2", &[G1c], RC),
    ("a reader's own future", "b1 w2(x) w1(y) r1(x2) c1 c2", &[G1c], RC),
    ("observed transaction vanishes", "b3 w1(x) w1(y) c1 r3(x1) r3(y0) c3", &[Otv, GSingle], RC),
    (
        "observed transaction vanishes in the order of commits",
        "b3 w1(x) c1 w2(y) c2 r3(y2) r3(x0) c3",
        &[Otv, GSi],
        RC,
    ),
    ("half of a commit in one scan", "b3 w1(x) w1(y) c1 s3(w-z: x1 y0) c3", &[Torn, Pmp], RC),
    ("half of a removal in one scan", "b3 d1(x) w1(y) c1 s3(w-z: y0) c3", &[Torn, Pmp], RC),
    ("predicate many preceders", "s1(w-z: x0 y0) w2(z) c2 s1(w-z: x0 y0 z2) c1", &[Pmp], RR),
    ("the gap in a range and a key", "s1(z-z:) w2(z) w2(x) c2 r1(x2) c1", &[Pmp], RR),
    ("lost update", "r1(x0) r2(x0) w1(x) c1 w2(x) c2", &[P4, GSingle], RR),
    ("lost update of an absent key", "r1(z-) r2(z-) w1(z) c1 w2(z) c2", &[P4, GSingle], RR),
    ("lost update of a list", "l1(x: x0) l2(x: x0) w1(x) c1 w2(x) c2 b3 l3(x: x0 x2) c3", &[P4, GSingle], RR),
    ("lost element of a list", "w1(x) c1 w2(x) c2 w3(x) c3 b4 l4(x: x1 x3) c4", &[P4], RR),
    (
        "a key is written by another in spite of a lock",
        "g1(x0) w2(x) c2 w1(x) c1",
        &[LockBroken, P4, GSingle],
        RU,
    ),
    (
        "a locked key is written by another before the one who locked it commits",
        "g1(x0) w2(x) c2 w1(y) c1",
        &[LockBroken],
        RU,
    ),
    ("a locked gap is written by another", "t1(w-z: x0 y0) w2(z) c2 w1(y) c1", &[LockBroken], RC),
    ("read skew", "r1(x0) w2(x) w2(y) c2 r1(y2) c1", &[GSingle], RR),
    ("read skew of one who rolls back", "r1(x0) w2(x) w2(y) c2 r1(y2) a1", &[GSingle], RR),
    ("read skew through a third", "r1(x0) w2(x) c2 r3(x2) w3(y) c3 r1(y3) c1", &[GSingle, GSi], RR),
    ("a stale read and then an overwrite", "r1(y0) w2(x) w2(y) c2 w1(x) c1", &[GSingle], RR),
    ("commits in the wrong order", "b1 r1(x0) w2(x) c2 w3(y) c3 r1(y3) c1", &[GSi], RR),
    ("long fork", "b3 b4 w1(x) w2(y) c1 c2 r3(x1) r3(y0) r4(y2) r4(x0) c3 c4", &[LongFork, GSi, Otv], RC),
    (
        "long fork, read in an order that steps allow",
        "b3 b4 r4(x0) w1(x) c1 r3(x1) r3(y0) w2(y) c2 r4(y2) c3 c4",
        &[LongFork, GSi],
        RR,
    ),
    (
        "a read of a removal and a write that came later",
        "d1(x) c1 b2 r2(x-) w3(x) w3(y) c3 r2(y3) c2",
        &[GSingle],
        RR,
    ),
    ("write skew", "r1(x0) r1(y0) r2(x0) r2(y0) w1(x) w2(y) c1 c2", &[G2Item], SER),
    ("write skew of absent keys", "r1(z-) r2(w-) w1(w) w2(z) c1 c2", &[G2Item], SER),
    ("phantom write skew", "s1(w-z: x0 y0) s2(w-z: x0 y0) w1(z) w2(w) c1 c2", &[G2], SER),
    (
        "the anomaly of a transaction that only reads",
        "r1(x0) r1(y0) w2(y) c2 s3(w-z: x0 y2) c3 w1(x) c1",
        &[G2],
        SER,
    ),
    (
        "and of one that only reads, in real time only",
        "b1 r1(x0) w2(x) c2 b3 r3(y0) c3 w1(y) c1",
        &[G2Item],
        SER,
    ),
    ("a commit that had returned is not seen", "w1(x) c1 b2 r2(x0) c2", &[RealTime, GSi], RU),
    ("a removal that had returned is not seen", "d1(x) c1 b2 r2(x0) c2", &[RealTime, GSi], RU),
    (
        "a commit before one that had returned is not seen",
        "b1 w1(x) b2 w2(y) c1@1 c2@2 b3 r3(x0) c3",
        &[RealTime, GSi],
        RU,
    ),
    ("data of a rolled back transaction in the end", "w1(x) a1 end(x1)", &[Dirty], RU),
    ("dirty data after a crash", "w1(x) w1(y) a1 crash@0(x1 y1)", &[Dirty], RU),
    ("an intermediate value after a crash", "w1(x) w1(x) c1 crash@0(x1.1)", &[Dirty], RU),
    ("a commit is gone", "w1(x) c1 end()", &[Lost], RU),
    ("a removal is gone", "d1(x) c1 end()", &[Lost], RU),
    ("a commit that was safe is gone after a crash", "w1(x) c1 w2(x) c2 w3(x) c3 crash@2(x1)", &[Lost], RU),
    ("half of a commit in the end", "w1(x) w1(y) c1 end(x1)", &[Partial], RU),
    ("half of a commit after a crash", "w1(x) w1(y) c1 crash@0(x1)", &[Partial], RU),
    ("half of a commit of unknown outcome", "w1(x) w1(y) ?1 crash@0(y1)", &[Partial], RU),
    ("a hole in what came back", "w1(x) c1 w2(y) c2 crash@0(y2)", &[Lost], RU),
];

const GOOD: &[&str] = &[
    "",
    "r1(x0) s1(w-z: x0 y0) c1",
    "w1(x) r1(x1.1) d1(x) r1(x-) w1(x) s1(w-z: x1 y0) c1 end(x1)",
    "w1(x) p1 w1(x) w1(z) r1(z1) u1 r1(x1.1) r1(z-) c1 end(x1.1)",
    "b1 b2 r1(x0) w1(x) c1 r2(x0) r2(y0) c2",
    "b2 w1(x) c1 r2(x0) a2 b3 r3(x1) c3 end(x1)",
    "d1(x) c1 w2(x) c2 d3(x) c3 b4 r4(x-) s4(w-z: y0) c4 end(x-)",
    // Either removal will do, and the other reads say which.
    "b5 d1(x) c1 w2(x) c2 d3(x) c3 r5(x-) r5(y0) c5 end(x-)",
    "b5 d1(x) w1(y) c1 w2(x) w2(y) c2 d3(x) w3(y) c3 r5(x-) r5(y1) c5 end(x- y3)",
    "b5 d1(x) w1(y) c1 w2(x) w2(y) c2 d3(x) w3(y) c3 r5(x-) r5(y3) c5 end(x- y3)",
    // Serializable against the order of commits: the one that missed a write comes first.
    "b1 b2 r1(x0) w2(x) c2 w1(y) c1 end(x2 y1)",
    "b1 s1(w-z: x0 y0) w2(z) c2 w1(x) c1 end(z2 x1)",
    "w1(x) c1 b2 l2(x: x1) w2(x) c2 b3 l3(x: x1 x2) w3(x) w3(x) l3(x: x1 x2 x3.1 x3) c3 b4 l4(x: x1 x2 x3.1 x3) c4",
    // Not yet returned when the other began: it may be seen or not.
    "w1(x) b2 r2(x0) c1 c2",
    "w1(x) b2 c1 r2(x1) c2",
    // After a crash the last commits may be gone, and of those in flight any that fit.
    "w1(x) c1 w2(y) c2 crash@1(x1)",
    "w1(x) c1 w2(y) c2 crash@1(x1 y2)",
    "w1(x) w1(y) ?1 crash@0()",
    "w1(x) w1(y) ?1 crash@0(x1 y1)",
    "w1(x) c1 w2(x) ?2 w3(x) w3(y) ?3 crash@1(x3 y3)",
    "w1(x) c1 w2(x) w2(z) ?2 w3(x) w3(y) ?3 crash@1(x2 y3 z2)",
];

#[test]
fn each_anomaly_is_found_by_its_name() {
    let mut wrong = Vec::new();
    for (what, text, expect, _) in BAD {
        let found = kinds(&anomalies_found(&history(text, SER)));
        if found != expect.iter().copied().collect() {
            wrong.push(format!("{what}: {text}\n    has {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_anomaly_is_forbidden_from_its_level_on() {
    for (what, text, _, from) in BAD {
        for level in Level::ALL {
            let found = check(&history(text, level));
            assert_eq!(!found.is_empty(), level >= *from, "{what} at {level:?}: {text}\n{found:#?}");
        }
    }
}

#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    for text in GOOD {
        for level in Level::ALL {
            let found = check(&history(text, level));
            assert!(found.is_empty(), "{text} at {level:?}: {found:#?}");
        }
        let found = anomalies_found(&history(text, SER));
        assert!(found.is_empty(), "{text}: {found:#?}");
    }
}

/// Every name is in the table.
#[test]
fn no_anomaly_is_without_an_example() {
    let shown: BTreeSet<Kind> = BAD.iter().flat_map(|bad| bad.2).copied().collect();
    let all = [
        Garbage, Internal, G0, G1a, G1b, G1c, Otv, Torn, Pmp, P4, GSingle, GSi, LongFork, G2Item, G2,
        RealTime, Dirty, Lost, LockBroken, Partial,
    ];
    assert_eq!(shown, all.into_iter().collect());
}

/// A cycle is told in words that name everybody in it.
#[test]
fn an_explanation_shows_the_cycle() {
    let found = check(&history("r1(x0) r1(y0) r2(x0) r2(y0) w1(x) w2(y) c1 c2", SER));
    let text = found[0].to_string();
    let parts =
        ["G2Item: a cycle:", "T100 (process 1", "T104 (process 2", "read a key and did not see the write of"];
    for part in parts {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
}

/// Histories at several levels, T1's level first, and whether somebody was promised what is not so.
const MIXED: &[(&str, &str, &[Level], bool)] = &[
    (
        "write skew of two of whom one asked for nothing",
        "r1(x0) r1(y0) r2(x0) r2(y0) w1(x) w2(y) c1 c2",
        &[SER, RR],
        false,
    ),
    (
        "a skew of two in spite of a third",
        "r1(x0) r2(y0) w1(y) w2(x) r3(z-) w3(z) c1 c2 c3",
        &[SER, SER, RC],
        true,
    ),
    (
        "a third whose read closes the circle did not ask",
        "b3 r1(x0) w2(x) c2 w3(y) r3(x0) c3 r1(y0) c1",
        &[SER, RR, RC],
        false,
    ),
    (
        "a reader sees one who did not ask, but not the one who missed him",
        "b1 r1(x0) w2(x) c2 b3 r3(x2) r3(z-) c3 w1(z) c1",
        &[SER, RC, SER],
        true,
    ),
    (
        "the same, but the one in the middle did not ask",
        "b1 r1(x0) w2(x) c2 b3 r3(x2) r3(z-) c3 w1(z) c1",
        &[RR, RC, SER],
        false,
    ),
    ("dirty data, read by one who wants it", "w1(x) r2(x1) a1 c2", &[SER, RU], false),
    ("dirty data, read by one who does not", "w1(x) r2(x1) a1 c2", &[RU, RC], true),
    ("an update of one who asked is lost", "r1(x0) w2(x) c2 w1(x) c1", &[RR, RU], true),
    ("an update of one who did not ask is lost", "r1(x0) w2(x) c2 w1(x) c1", &[RC, SER], false),
];

#[test]
fn everybody_is_held_to_his_own_level() {
    for (what, text, levels, is_bad) in MIXED {
        let mut history = history(text, SER);
        for one in &mut history.transactions {
            one.level = levels[one.process as usize - 1];
        }
        let found = check(&history);
        assert_eq!(!found.is_empty(), *is_bad, "{what}: {text}\n{found:#?}");
    }
}
