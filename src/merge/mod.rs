//! Several sorted cursors as one, both ways.
//!
//! The children that stand on an entry are kept in an array ordered by that entry, each with 16 bytes of its key as
//! a number, so that most comparisons never touch a key. A step moves the first child and lets its new entry sink
//! to its place: one comparison while a child stays in front (levels seldom overlap at one point), and otherwise a
//! short walk over adjacent memory, which for the few children of a read costs no more than a loser tree.
//!
//! The 16 bytes are the first ones, until comparisons often tie on them: then they are taken from behind the
//! prefix that all children's keys share at the time, and taken anew when a key comes up that does not have it.
//!
//! Entries equal in user key and trailer come in the order of their children.

#[cfg(test)]
mod tests;

use crate::base::error::Result;
use crate::base::iter::InternalIter;
use crate::base::key::{InternalKey, KeyRef, Trailer};
use crate::base::slice::Slice;
use std::cmp::Ordering;

/// Bytes of a shared prefix that stay inside the compared 16, so that a counter at the end of the keys can run on
/// for a while before the prefix is lost.
const SHARED_SLACK_BYTES: usize = 8;

/// Ties per child after which the shared prefix is looked for.
const TIES_PER_CHILD: usize = 8;

/// A child that stands on an entry.
#[derive(Debug, Clone, Copy)]
struct Head {
    /// 16 bytes of the user key, big-endian, from behind the shared prefix, zeros past the key's end: orders as
    /// the keys do, up to ties.
    prefix: u128,
    /// Index of the child.
    child: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Backward,
}

/// The merge of its children.
#[derive(Debug)]
pub(crate) struct Merge<I> {
    children: Vec<I>,
    /// The valid children; the first stands on the merge's entry. Forward: every other one stands on its first
    /// entry behind that, and they ascend. Backward: on its last entry before that, and they descend. The prefix
    /// of the only one is not kept up to date.
    heads: Vec<Head>,
    direction: Direction,
    /// Every head's key starts with this.
    shared: Vec<u8>,
    /// Comparisons that the 16 bytes did not decide since the shared prefix was last taken.
    ties: usize,
}

impl<I: InternalIter> Merge<I> {
    /// Merges the children, whatever their positions. Not valid until positioned.
    pub(crate) fn new(children: Vec<I>) -> Merge<I> {
        let heads = Vec::with_capacity(children.len());
        Merge { children, heads, direction: Direction::Forward, shared: Vec::new(), ties: 0 }
    }

    #[inline]
    fn current(&self) -> Option<&I> {
        self.children.get(self.heads.first()?.child)
    }

    /// Positions every child by `place` and orders them.
    fn place_all(&mut self, direction: Direction, place: impl Fn(&mut I) -> Result<()>) -> Result<()> {
        // Stays so when a child fails.
        self.heads.clear();
        self.children.iter_mut().try_for_each(place)?;
        self.order_heads(direction);
        Ok(())
    }

    /// Makes the heads of the valid children anew.
    fn order_heads(&mut self, direction: Direction) {
        self.direction = direction;
        if !self.fill_heads() {
            self.take_shared();
            self.fill_heads();
        }
        let children = &self.children;
        self.heads.sort_unstable_by(|a, b| order(children, direction, *a, *b).0);
    }

    /// Fills `heads`, unordered; false when a key does not start with the shared prefix.
    fn fill_heads(&mut self) -> bool {
        self.heads.clear();
        for (index, child) in self.children.iter().enumerate().filter(|(_, child)| child.valid()) {
            match head_of(child, index, &self.shared) {
                Some(head) => self.heads.push(head),
                None => return false,
            }
        }
        true
    }

    /// Takes the shared prefix from the keys on which the children stand.
    #[cold]
    fn take_shared(&mut self) {
        self.ties = 0;
        let mut keys = self.children.iter().filter(|child| child.valid()).map(|child| child.key().user);
        let first = keys.next().unwrap_or_default();
        let common =
            keys.fold(first, |common, key| common.get(..common_len(common, key)).unwrap_or_default());
        let kept = common.get(..common.len().saturating_sub(SHARED_SLACK_BYTES)).unwrap_or_default();
        self.shared.clear();
        self.shared.extend_from_slice(kept);
    }

    /// One step; turns around first if need be.
    #[inline]
    fn step(&mut self, direction: Direction) -> Result<()> {
        if self.direction != direction {
            self.turn(direction)?;
        }
        let Some(first) = self.heads.first() else { return Ok(()) };
        let child = first.child;
        let Some(iter) = self.children.get_mut(child) else { return Ok(()) };
        let moved = match direction {
            Direction::Forward => iter.next(),
            Direction::Backward => iter.prev(),
        };
        if let Err(error) = moved {
            self.heads.clear();
            return Err(error);
        }
        if !iter.valid() {
            self.heads.remove(0);
        } else if self.heads.len() > 1 {
            match head_of(&*iter, child, &self.shared) {
                Some(head) => self.sink(head),
                None => self.order_heads(direction),
            }
        }
        Ok(())
    }

    /// Puts the first child, which now has this head, where it belongs.
    #[inline]
    fn sink(&mut self, head: Head) {
        let (children, direction) = (&self.children, self.direction);
        let mut ties = 0usize;
        let mut place: Option<&mut Head> = None;
        for other in &mut self.heads {
            if let Some(place) = place {
                let (ordering, tie) = order(children, direction, head, *other);
                ties = ties.wrapping_add(usize::from(tie));
                if ordering == Ordering::Less {
                    *place = head;
                    return self.count_ties(ties);
                }
                *place = *other;
            }
            place = Some(other);
        }
        if let Some(place) = place {
            *place = head;
        }
        self.count_ties(ties);
    }

    #[inline]
    fn count_ties(&mut self, ties: usize) {
        self.ties = self.ties.wrapping_add(ties);
        if self.ties > self.heads.len().saturating_mul(TIES_PER_CHILD) {
            self.take_shared();
            self.order_heads(self.direction);
        }
    }

    /// Moves every child but the current one to the other side of the current entry.
    ///
    /// A child stands next to the current entry, so one step takes it across, unless entries have appeared in it
    /// meanwhile: then it goes on until it is across.
    fn turn(&mut self, direction: Direction) -> Result<()> {
        let Some(at) = self.heads.first().map(|head| head.child) else { return Ok(()) };
        let Some(here) = self.current().map(|iter| iter.key().to_owned()) else { return Ok(()) };
        self.heads.clear();
        for (index, child) in self.children.iter_mut().enumerate() {
            if index != at {
                cross(child, direction, &here)?;
            }
        }
        // All others now come after the current one, ties included, so that it is first again.
        self.order_heads(direction);
        Ok(())
    }
}

/// Moves a child from one side of the entry `here` to the other. An equal entry of the child is on the other side:
/// had it come on this one, the child would still stand on it, and has just left it.
fn cross<I: InternalIter>(child: &mut I, direction: Direction, here: &InternalKey) -> Result<()> {
    match (direction, child.valid()) {
        (Direction::Forward, true) => child.next()?,
        (Direction::Forward, false) => child.seek_to_first()?,
        (Direction::Backward, true) => child.prev()?,
        (Direction::Backward, false) => child.seek_to_last()?,
    }
    match direction {
        Direction::Forward => {
            while child.valid() && child.key() < here.as_ref() {
                child.next()?;
            }
        }
        Direction::Backward => {
            while child.valid() && child.key() > here.as_ref() {
                child.prev()?;
            }
        }
    }
    Ok(())
}

/// The head of a valid child; `None` when its key does not start with `shared`.
#[inline]
fn head_of<I: InternalIter>(iter: &I, child: usize, shared: &[u8]) -> Option<Head> {
    let mut rest = iter.key().user;
    if !shared.is_empty() {
        rest = rest.strip_prefix(shared)?;
    }
    let prefix = match rest.first_chunk::<16>() {
        Some(bytes) => u128::from_be_bytes(*bytes),
        None => short_prefix(rest),
    };
    Some(Head { prefix, child })
}

fn short_prefix(rest: &[u8]) -> u128 {
    let mut bytes = [0u8; 16];
    bytes.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    u128::from_be_bytes(bytes)
}

fn common_len(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

/// Which of two heads comes first in this direction, and whether their 16 bytes tied.
#[inline]
fn order<I: InternalIter>(children: &[I], direction: Direction, a: Head, b: Head) -> (Ordering, bool) {
    let by_prefix = a.prefix.cmp(&b.prefix);
    let tie = by_prefix == Ordering::Equal;
    let ascending = if tie { order_keys(children, a.child, b.child) } else { by_prefix };
    match direction {
        Direction::Forward => (ascending, tie),
        Direction::Backward => (ascending.reverse(), tie),
    }
}

fn order_keys<I: InternalIter>(children: &[I], a: usize, b: usize) -> Ordering {
    match (children.get(a), children.get(b)) {
        (Some(left), Some(right)) => left.key().cmp(&right.key()).then(a.cmp(&b)),
        _ => Ordering::Equal,
    }
}

impl<I: InternalIter> InternalIter for Merge<I> {
    #[inline]
    fn valid(&self) -> bool {
        !self.heads.is_empty()
    }

    #[inline]
    fn key(&self) -> KeyRef<'_> {
        self.current().map_or(KeyRef::new(&[], Trailer::LAST), InternalIter::key)
    }

    #[inline]
    fn value(&self) -> &[u8] {
        self.current().map(InternalIter::value).unwrap_or_default()
    }

    fn value_slice(&self) -> Slice {
        self.current().map_or_else(|| Slice::copy_from(&[]), InternalIter::value_slice)
    }

    fn seek(&mut self, target: KeyRef<'_>) -> Result<()> {
        self.place_all(Direction::Forward, |child| child.seek(target))
    }

    fn seek_for_prev(&mut self, target: KeyRef<'_>) -> Result<()> {
        self.place_all(Direction::Backward, |child| child.seek_for_prev(target))
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.place_all(Direction::Forward, InternalIter::seek_to_first)
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.place_all(Direction::Backward, InternalIter::seek_to_last)
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        self.step(Direction::Forward)
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        self.step(Direction::Backward)
    }
}
