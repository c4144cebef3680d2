//! Known histories as data. Steps: `b1` begin, `d3` begin of a declared reader, `g1x` get, `s1` scan of everything, `w1x` put,
//! `c1` commit and publication, `u1` commit without publication, `P` publication of all, `!` behind a step: it fails;
//! `a1` rollback, `px` plain put, `r1` prepare, `k1` commit of a prepared, `q1` rollback of a prepared.

use super::{Kind, Txn, World, model};
use std::collections::{BTreeMap, BTreeSet};

const KEYS: &[u8] = b"xyzw";

fn run(text: &str) -> World {
    let mut world = World::new(1 << 20);
    let mut open: BTreeMap<u8, Txn> = BTreeMap::new();
    let mut prepared: BTreeMap<u8, u64> = BTreeMap::new();
    for step in text.split_whitespace() {
        let (plain, fails) = step.strip_suffix('!').map_or((step, false), |plain| (plain, true));
        let raw = plain.as_bytes();
        let name = raw.get(1).copied().unwrap_or(0);
        let key = |at: usize| KEYS.iter().position(|key| *key == raw[at]).unwrap() as u8;
        let outcome = match raw[0] {
            b'b' => {
                drop(open.insert(name, world.begin(Kind::Tracked)));
                true
            }
            b'd' => {
                drop(open.insert(name, world.begin(Kind::Declared)));
                true
            }
            b'g' => {
                world.get(open.get_mut(&name).unwrap(), key(2));
                true
            }
            b's' => {
                world.scan(open.get_mut(&name).unwrap(), 0, 4, false);
                true
            }
            b'w' => world.put(open.get_mut(&name).unwrap(), key(2)),
            b'a' => {
                world.rollback(open.remove(&name).unwrap());
                true
            }
            b'c' | b'u' => {
                let outcome = world.commit(open.remove(&name).unwrap());
                if raw[0] == b'c' {
                    world.publish_upto(u64::MAX);
                }
                outcome.is_ok()
            }
            b'P' => {
                world.publish_upto(u64::MAX);
                true
            }
            b'p' => {
                let outcome = world.plain(BTreeSet::from([key(1)]));
                world.publish_upto(u64::MAX);
                outcome == Ok(true)
            }
            b'r' => match world.prepare(open.remove(&name).unwrap()) {
                Ok(id) => {
                    prepared.insert(name, id);
                    true
                }
                Err(_) => false,
            },
            b'k' => {
                world.commit_prepared(prepared[&name]);
                world.publish_upto(u64::MAX);
                true
            }
            b'q' => {
                world.rollback_prepared(prepared[&name]);
                true
            }
            _ => panic!("{text}: {step}"),
        };
        assert_eq!(outcome, !fails, "{text}: {step}");
    }
    drop(open);
    assert_eq!(model::cycle(&world.history), None, "{text}");
    world.close();
    world
}

#[test]
fn readers_that_only_read_commit() {
    for text in [
        "b1 g1x b2 g2x g2y w2x w2y c2 g1y c1",             // G-single
        "b1 s1 b2 w2z c2 s1 c1",                           // PMP-r
        "b1 s1 px s1 c1",                                  // G-single-p
        "b3 b1 b2 w1x w1y c1 g3x w2z c2 g3y g3z c3",       // OTV
        "b1 w1x b2 w2y c1 c2 b3 g3x g3y b4 g4y g4x c3 c4", // long fork
        "b1 b2 w1x w2y c1 b3 g3x g3y b4 g4y g4x c2 c3 c4", // long fork, between the commits
        "d1 b2 g2x w2y b3 g3y w3x c2 c3! c1",              // a declared reader is never the one
    ] {
        run(text);
    }
}

#[test]
fn one_edge_alone_is_no_danger() {
    for text in [
        "b1 s1 b2 w2y c2 w1x c1",          // CTRL
        "b1 s1 py w1x c1",                 // CTRL, plain write
        "b1 g1x w1x c1 b2 g2x w2x c2",     // serial
        "b1 g1z w1x b2 g2w w2y c1 c2",     // absent keys nobody writes
        "b1 s1 b2 s2 w2y a2 w1x c1",       // the other one rolls back
        "b1 s1 b2 s2 b3 w3y c3 w1x a2 c1", // an open reader that aborts makes nobody fail
    ] {
        let world = run(text);
        assert_eq!(world.ssi.stats().conflicts, 0, "{text}");
    }
}

#[test]
fn exactly_one_of_a_write_skew_fails() {
    for text in [
        "b1 b2 g1x g1y g2x g2y w1x w2y c1 c2!", // G2-item
        "b1 b2 s1 s2 w1z w2w c1 c2!",           // G2, phantoms
        "b1 b2 w1x w2y g1y g2x c1 c2!",         // G1c
        "b1 b2 g1z g2w w1w w2z c1 c2!",         // ABS, absent keys
        "b1 b2 g1z g2w w1w w2z c2 c1!",
        "b1 b2 s1 s2 w1x w2y u1 u2! P",               // not published yet
        "b1 b2 b3 g1x w1y g2y w2z g3z w3x c1 c2 c3!", // three
        "b1 b2 b3 g1x w1y g2y w2z g3z w3x c2 c1 c3!",
        "b1 b2 b3 g1x w1y g2y w2z g3z w3x c3 c2 c1!",
    ] {
        let world = run(text);
        assert_eq!(world.ssi.stats().conflicts, 1, "{text}");
    }
}

#[test]
fn the_read_only_anomaly_is_prevented() {
    for text in [
        "b1 s1 b2 w2y c2 b3 s3 c3 w1x c1!",      // Fekete
        "b1 s1 py b3 s3 c3 w1x c1!",             // the first writer is plain
        "b1 s1 b2 w2y c2 d3 s3 c3 w1x c1!",      // the reader is declared, and has finished
        "b1 s1 b2 w2y c2 d3 s3 w1x c1! c3",      // is open
        "b1 s1 b2 w2y c2 w1x u1 d3 s3 P c3",     // begins between check and publication: waits
        "b1 s1 b2 w2y c2 w1x u1 b3 s3 P c3!",    // the same, undeclared
        "b1 s1 b2 w2y c2 b3 g3y w1x c1 g3x c3!", // still open at the commit of the pivot
        "b1 s1 b3 b2 w2y c2 s3 w1x c1 c3",       // its snapshot is older than the first commit
        "b1 s1 d3 b2 w2y c2 s3 w1x c1 c3",
    ] {
        run(text);
    }
    assert_eq!(run("b1 s1 b2 w2y c2 w1x u1 d3 s3 P c3").waits, 1);
}

#[test]
fn prepared_transactions_make_others_give_way() {
    for text in [
        "b1 s1 w1x r1 b2 g2y w2y c2! k1", // nobody writes over what it has read
        "b1 s1 w1x r1 py! q1 py",         // at no level, until it is decided
        "b1 g1y w1x r1 b2 g2x w2z c2 k1", // its writes may be read over
        "b1 g1y w1x r1 b2 g2x w2z k1 c2",
        "b1 s1 b2 w2y c2 w1x r1!",      // an edge out: could not promise anything
        "b1 g1x w1y b2 g2y w2x r1 r2!", // over what another prepared one writes
        "b1 g1x w1y b2 g2z w2x r2 r1!",
        "b1 g1y w1x r1 d3 s3 c3 k1 d4 s4 c4",
        "b1 s1 w1x r1 b2 s2 k1 w2y c2!", // committed: an ordinary commit from then on
    ] {
        run(text);
    }
}
