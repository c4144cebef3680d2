//! Cursors and iterators that are held open over many steps, while the database under them is written, flushed,
//! compacted, and their keyspace perhaps dropped. What they show is the state in which they were made.

use super::draw::{self, Range};
use super::reads::{lent, shorten};
use super::reference::Entry;
use super::rig::{Handle, Rig};
use esker::{Cursor, Error, ErrorKind, Iter};
use std::ops::Bound;

pub struct HeldCursor {
    cursor: Cursor,
    handle: Handle,
    pub commit: u64,
    /// The key it stands on.
    position: Option<Vec<u8>>,
}

pub struct HeldIter {
    iter: Iter,
    handle: Handle,
    pub commit: u64,
    range: Range,
    /// What `next` may still yield begins here, what `next_back` may yield ends there.
    front: Bound<Vec<u8>>,
    back: Bound<Vec<u8>>,
    /// It has yielded `None` or an error.
    ended: bool,
}

/// A move of a cursor.
#[derive(Debug, Clone)]
enum Move {
    First,
    Last,
    Seek(Vec<u8>),
    SeekForPrev(Vec<u8>),
    Next,
    Prev,
}

impl Move {
    fn is_relative(&self) -> bool {
        matches!(self, Move::Next | Move::Prev)
    }

    /// Where it leads is a matter of going forward.
    fn is_forward(&self) -> bool {
        matches!(self, Move::First | Move::Seek(_) | Move::Next)
    }

    /// The range in which the nearest entry is looked for.
    fn range(&self, position: &Option<Vec<u8>>) -> Range {
        let at = |key: &Vec<u8>| Bound::Included(key.clone());
        let beside = || position.clone().map_or(Bound::Unbounded, Bound::Excluded);
        match self {
            Move::First | Move::Last => (Bound::Unbounded, Bound::Unbounded),
            Move::Seek(key) => (at(key), Bound::Unbounded),
            Move::SeekForPrev(key) => (Bound::Unbounded, at(key)),
            Move::Next => (beside(), Bound::Unbounded),
            Move::Prev => (Bound::Unbounded, beside()),
        }
    }
}

impl Rig {
    fn any_snapshot(&mut self) -> Option<usize> {
        let wanted = self.random.chance(40);
        let nth = (self.random.next() as usize).checked_rem(self.snapshots.len());
        nth.filter(|_| wanted)
    }

    // Cursors.

    pub fn new_cursor(&mut self) {
        if self.cursors.len() >= 6 {
            return;
        }
        let handle = self.any_handle();
        let (cursor, commit) = match self.any_snapshot() {
            Some(nth) => (self.snapshots[nth].0.cursor_in(&handle.keyspace), self.snapshots[nth].1),
            None => (handle.keyspace.cursor(), self.commits),
        };
        let cursor = cursor.unwrap_or_else(|error| panic!("{self}: cursor: {error}"));
        assert!(!cursor.valid() && cursor.key().is_empty() && cursor.value().is_empty(), "{self}");
        self.cursors.push(HeldCursor { cursor, handle, commit, position: None });
    }

    pub fn drop_cursor(&mut self) {
        if let Some(nth) = (self.random.next() as usize).checked_rem(self.cursors.len()) {
            self.cursors.swap_remove(nth);
        }
    }

    pub fn move_cursor(&mut self) {
        if let Some(nth) = (self.random.next() as usize).checked_rem(self.cursors.len()) {
            let moves = 1 + self.random.below(12);
            self.walk_cursor(nth, moves, false);
        }
    }

    /// Moves a cursor at random, mostly by single steps that change their direction now and then.
    pub fn walk_cursor(&mut self, nth: usize, moves: u64, closed: bool) {
        let mut forward = self.random.chance(50);
        for _ in 0..moves {
            if self.random.chance(15) {
                forward = !forward;
            }
            let next = match self.random.below(100) {
                0..3 => Move::First,
                3..6 => Move::Last,
                6..12 => Move::Seek(draw::target(&mut self.random, &self.keys)),
                12..18 => Move::SeekForPrev(draw::target(&mut self.random, &self.keys)),
                _ if self.cursors[nth].position.is_none() && self.random.chance(70) => {
                    if forward {
                        Move::First
                    } else {
                        Move::Last
                    }
                }
                _ if forward => Move::Next,
                _ => Move::Prev,
            };
            self.step_cursor(nth, &next, closed);
        }
    }

    fn step_cursor(&mut self, nth: usize, step: &Move, closed: bool) {
        let held = &mut self.cursors[nth];
        let cursor = &mut held.cursor;
        let result = match step {
            Move::First => cursor.seek_to_first(),
            Move::Last => cursor.seek_to_last(),
            Move::Seek(key) => cursor.seek(key),
            Move::SeekForPrev(key) => cursor.seek_for_prev(key),
            Move::Next => cursor.next(),
            Move::Prev => cursor.prev(),
        };
        let before = held.position.take();
        let held = &self.cursors[nth];
        if let Err(error) = result {
            self.check_refusal(&held.handle, step.is_relative(), closed, &error);
            assert!(!held.cursor.valid(), "{self}: {step:?} failed, and the cursor is valid");
            return;
        }
        if step.is_relative() && before.is_none() {
            assert!(!held.cursor.valid(), "{self}: {step:?} from nowhere");
            return;
        }
        let cursor = &held.cursor;
        let found = cursor.valid().then(|| (cursor.key(), cursor.value()));
        assert_eq!(cursor.value_slice(), *cursor.value(), "{self}: {step:?}");
        let range = step.range(&before);
        self.check_step(&held.handle, &range, step.is_forward(), held.commit, found, &format!("{step:?}"));
        let position = found.map(|(key, _)| key.to_vec());
        self.cursors[nth].position = position;
    }

    /// Whether an operation of this keyspace may fail like this: it was dropped, or the database closed.
    fn check_refusal(&self, handle: &Handle, is_relative: bool, closed: bool, error: &Error) {
        let exists = self.handles.values().any(|one| one.space == handle.space);
        match error.kind() {
            ErrorKind::Closed if closed => {}
            ErrorKind::NotFound if !exists && !is_relative => {}
            _ => panic!("{self}: closed {closed}, keyspace exists {exists}: {error}"),
        }
    }

    /// What was found is the entry of the range that is nearest to its beginning, or to its end.
    fn check_step(
        &self,
        handle: &Handle,
        range: &Range,
        forward: bool,
        commit: u64,
        found: Option<Entry<'_>>,
        what: &str,
    ) {
        let space = &self.spaces[handle.space];
        let (lower, upper) = (lent(&range.0), lent(&range.1));
        let nearest = |lower, upper| {
            if forward { space.first(lower, upper, commit) } else { space.last(lower, upper, commit) }
        };
        let mut expect = nearest(lower, upper);
        if handle.lossy && expect != found {
            // Entries may be missing, but none is wrong, or outside of the range.
            expect = found.and_then(|(key, _)| {
                let there = Bound::Included(key);
                if forward { nearest(there, upper) } else { nearest(lower, there) }
            });
        }
        let show = |entry: Option<Entry<'_>>| entry.map(|(key, value)| (shorten(key), shorten(value)));
        assert!(
            expect == found,
            "{self}: {what} in {range:?} of {} at commit {commit}: found {:?}, expected {:?}",
            handle.keyspace.name(),
            show(found),
            show(expect),
        );
    }

    // Iterators.

    pub fn new_iter(&mut self) {
        if self.iters.len() >= 6 {
            return;
        }
        let handle = self.any_handle();
        let snapshot = self.any_snapshot();
        let prefix = draw::prefix(&mut self.random, &self.keys);
        let by_prefix = self.random.chance(30);
        let range =
            if by_prefix { draw::prefix_range(&prefix) } else { draw::range(&mut self.random, &self.keys) };
        let keyspace = &handle.keyspace;
        let (iter, commit) = match snapshot.map(|nth| &self.snapshots[nth]) {
            Some((snapshot, commit)) if by_prefix => (snapshot.prefix_in(keyspace, &prefix), *commit),
            Some((snapshot, commit)) => (snapshot.range_in(keyspace, range.clone()), *commit),
            None if by_prefix => (keyspace.prefix(&prefix), self.commits),
            None => (keyspace.range(range.clone()), self.commits),
        };
        let (front, back) = range.clone();
        self.iters.push(HeldIter { iter, handle, commit, range, front, back, ended: false });
    }

    pub fn drop_iter(&mut self) {
        if let Some(nth) = (self.random.next() as usize).checked_rem(self.iters.len()) {
            self.iters.swap_remove(nth);
        }
    }

    pub fn move_iter(&mut self) {
        if let Some(nth) = (self.random.next() as usize).checked_rem(self.iters.len()) {
            let moves = 1 + self.random.below(8);
            self.walk_iter(nth, moves, false);
        }
    }

    /// Takes from both ends of an iterator, and lets it seek now and then.
    pub fn walk_iter(&mut self, nth: usize, moves: u64, closed: bool) {
        for _ in 0..moves {
            match self.random.below(10) {
                0 => self.seek_iter(nth, closed),
                1..6 => self.take_from_iter(nth, true, closed),
                _ => self.take_from_iter(nth, false, closed),
            }
        }
    }

    fn seek_iter(&mut self, nth: usize, closed: bool) {
        let key = draw::target(&mut self.random, &self.keys);
        let held = &mut self.iters[nth];
        if let Err(error) = held.iter.seek(&key) {
            held.ended = true;
            let held = &self.iters[nth];
            return self.check_refusal(&held.handle, false, closed, &error);
        }
        let start = &held.range.0;
        let is_before = match start {
            Bound::Unbounded => false,
            Bound::Included(start) | Bound::Excluded(start) => key <= *start,
        };
        held.front = if is_before { start.clone() } else { Bound::Included(key) };
    }

    fn take_from_iter(&mut self, nth: usize, forward: bool, closed: bool) {
        let held = &mut self.iters[nth];
        let item = if forward { held.iter.next() } else { held.iter.next_back() };
        let ended = std::mem::replace(&mut held.ended, !matches!(item, Some(Ok(_))));
        let held = &self.iters[nth];
        let found = match item {
            Some(Err(error)) => {
                assert!(!ended, "{self}: an error after the end: {error}");
                return self.check_refusal(&held.handle, false, closed, &error);
            }
            Some(Ok(entry)) => Some(entry),
            None => None,
        };
        if ended {
            assert!(found.is_none(), "{self}: an iterator that ended stays ended");
            return;
        }
        let lent = found.as_ref().map(|(key, value)| (&key[..], &value[..]));
        let range = (held.front.clone(), held.back.clone());
        let what = format!("forward {forward} of {:?}", held.range);
        self.check_step(&held.handle, &range, forward, held.commit, lent, &what);
        if let Some((key, _)) = found {
            let bound = Bound::Excluded(key.to_vec());
            let held = &mut self.iters[nth];
            *(if forward { &mut held.front } else { &mut held.back }) = bound;
        }
    }
}
