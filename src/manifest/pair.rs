//! What two copies say together, pure: which version is the newest, what is damaged, and when to refuse.
//!
//! An append writes and syncs copy A, then copy B, and is acknowledged after both. A rewrite replaces one copy
//! whole, durably, and then the other. So a crash, in any mode and repeated at will, leaves only these states:
//!
//! 1. both at the same generation, A with or without a torn tail, B without;
//! 2. A one generation ahead and without torn tail, B with or without;
//! 3. B rewritten one generation ahead, both without torn tail;
//! 4. A at the first generation and no B: the creation was cut short.
//!
//! Everything else is damage. Damage to **one** copy is tolerated and reported, whatever it is, because the other
//! then ends cleanly with the newest acknowledged generation. A torn tail is only believed to be unacknowledged
//! when the other copy vouches for it by being whole, clean, and at least as new; otherwise acknowledged records may
//! have been behind it, and the answer is `Corruption`. So a version older than the newest acknowledged one is
//! returned only if both copies were damaged, and the better of them so that it ends exactly between two records
//! (cut there, or zeros from there on), as if it had never held the newer ones.

use super::copy::{Damage, History};
use super::version::Version;
use crate::base::error::{Error, ErrorKind, Result};
use std::path::Path;

/// One of the copies as it was found.
#[derive(Debug)]
pub(super) enum Side {
    /// There is no such file.
    Missing,
    /// It cannot be used.
    Damaged(Damage),
    /// It has a history, perhaps with a torn tail.
    Usable(Box<History>),
}

/// What two copies say together.
#[derive(Debug)]
pub(super) struct Verdict {
    /// The newest version.
    pub(super) version: Version,
    /// Hash of the payload that led to it.
    pub(super) hash: u64,
    /// What is wrong with a copy, beyond what a crash explains.
    pub(super) damaged: Vec<Error>,
    /// Whether both copies hold the newest version.
    pub(super) agree: bool,
    /// Bytes of torn tails.
    pub(super) dropped_bytes: u64,
    /// Which copy to replace first: never the better one. 0 for A, 1 for B.
    pub(super) rewrite_first: usize,
}

/// Judges the copies, of which at least one is there.
pub(super) fn judge(paths: [&Path; 2], sides: [Side; 2]) -> Result<Verdict> {
    let [path_a, path_b] = paths;
    match sides {
        [Side::Usable(a), Side::Usable(b)] => judge_both(paths, *a, *b),
        [Side::Usable(a), Side::Missing] if a.last() == 1 && a.tail.dropped_bytes == 0 => {
            Ok(created_in_part(*a))
        }
        [Side::Usable(a), other] => judge_single(paths, *a, unusable(path_b, other), 1),
        [other, Side::Usable(b)] => judge_single(paths, *b, unusable(path_a, other), 0),
        [a, b] => Err(both_unusable(paths, unusable(path_a, a), unusable(path_b, b))),
    }
}

fn unusable(path: &Path, side: Side) -> Damage {
    match side {
        Side::Damaged(damage) => damage,
        _ => Error::corrupt(path, None, "a manifest copy", "no file").into(),
    }
}

fn created_in_part(a: History) -> Verdict {
    Verdict {
        hash: a.last_hash(),
        version: a.version,
        damaged: Vec::new(),
        agree: false,
        dropped_bytes: 0,
        rewrite_first: 1,
    }
}

/// Only one copy can be used; the other, at `bad`, has this damage.
fn judge_single(paths: [&Path; 2], good: History, damage: Damage, bad: usize) -> Result<Verdict> {
    let dropped = good.tail.dropped_bytes;
    if dropped > 0 || good.last() < damage.seen {
        let found = match dropped {
            0 => format!("one that ends at generation {}, before {}", good.last(), damage.seen),
            _ => format!("one with {dropped} unreadable bytes after generation {}", good.last()),
        };
        return Err(refuse(paths, format!("{found}; the other: {}", described(&damage.error))));
    }
    Ok(Verdict {
        hash: good.last_hash(),
        version: good.version,
        damaged: vec![damage.error],
        agree: false,
        dropped_bytes: 0,
        rewrite_first: bad,
    })
}

/// Both copies have a history.
fn judge_both(paths: [&Path; 2], a: History, b: History) -> Result<Verdict> {
    if a.version.db != b.version.db {
        return Err(refuse(paths, format!("databases {:032x} and {:032x}", a.version.db, b.version.db)));
    }
    check_common_past(paths, &a, &b)?;
    let (torn_a, torn_b) = (a.tail.dropped_bytes > 0, b.tail.dropped_bytes > 0);
    let (last_a, last_b) = (a.last(), b.last());
    if (torn_a && (torn_b || last_b < last_a)) || (torn_b && last_a < last_b) {
        return Err(refuse(paths, describe(&a, &b)));
    }
    let damaged = match (damaged_copy(&a, &b), paths) {
        (Some(0), [path, _]) => vec![behind(path, &a, last_b)],
        (Some(_), [_, path]) => vec![behind(path, &b, last_a)],
        (None, _) => Vec::new(),
    };
    let b_first = last_b < last_a || (last_a == last_b && torn_b);
    let newest = if last_a >= last_b { &a } else { &b };
    Ok(Verdict {
        hash: newest.last_hash(),
        damaged,
        agree: last_a == last_b,
        dropped_bytes: a.tail.dropped_bytes.saturating_add(b.tail.dropped_bytes),
        rewrite_first: usize::from(b_first),
        version: if last_a >= last_b { a.version } else { b.version },
    })
}

/// The copy (0 or 1) that is in a state which no crash explains.
fn damaged_copy(a: &History, b: &History) -> Option<usize> {
    let (torn_a, torn_b) = (a.tail.dropped_bytes > 0, b.tail.dropped_bytes > 0);
    let (last_a, last_b) = (a.last(), b.last());
    let b_rewritten = b.first == last_b;
    if last_a == last_b {
        torn_b.then_some(1)
    } else if last_a > last_b {
        (last_a.saturating_sub(last_b) > 1).then_some(1)
    } else {
        let crash = last_b.saturating_sub(last_a) == 1 && b_rewritten && !torn_a;
        (!crash).then_some(0)
    }
}

/// Where both know the payload of a generation, it is the same one. Payloads name their predecessors, so looking at
/// the newest such generation is enough.
fn check_common_past(paths: [&Path; 2], a: &History, b: &History) -> Result<()> {
    let common = a.last().min(b.last());
    match (a.hash_of(common), b.hash_of(common)) {
        (Some(one), Some(two)) if one != two => {
            Err(refuse(paths, format!("different histories at generation {common}")))
        }
        _ => Ok(()),
    }
}

fn describe(a: &History, b: &History) -> String {
    let one = |name, side: &History| {
        format!("{name} with {} unreadable bytes after generation {}", side.tail.dropped_bytes, side.last())
    };
    format!("{}, {}", one("A", a), one("B", b))
}

fn behind(path: &Path, side: &History, newest: u64) -> Error {
    let dropped = side.tail.dropped_bytes;
    Error::corrupt(
        path,
        side.tail.valid_len,
        format!("records up to generation {newest} and nothing else"),
        format!("the last one of generation {}, then {dropped} unreadable bytes", side.last()),
    )
}

fn refuse(paths: [&Path; 2], found: String) -> Error {
    let [path_a, path_b] = paths;
    let expected = format!("a manifest copy here or at {} that proves itself the newest", path_b.display());
    Error::corrupt(path_a, None, expected, found)
}

/// A device that fails to read is not called a corruption.
/// An error as part of another one, which says itself that it is a corruption.
fn described(error: &Error) -> String {
    error.corruption().map_or_else(|| error.to_string(), ToString::to_string)
}

fn both_unusable(paths: [&Path; 2], a: Damage, b: Damage) -> Error {
    let text = format!("{}; {}", described(&a.error), described(&b.error));
    match [a.error, b.error].into_iter().find(|error| error.kind() != ErrorKind::Corruption) {
        Some(cause) => Error::caused(cause.kind(), format!("no manifest copy can be read: {text}"), cause),
        None => refuse(paths, text),
    }
}
