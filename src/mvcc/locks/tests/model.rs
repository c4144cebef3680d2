//! The queue and grant logic against a model that has no stripes and no data structures: a list of what is held and a
//! list of who waits. All short histories must agree with it; after long random
//! ones, nobody may hold what conflicts, and nobody may wait without somebody in the way.

use super::kernel::{Kernel, Plain, kernel_stripe, parse};
use super::*;
use crate::base::random::{SplitMix64, test_seed};
use crate::mvcc::locks::owner::Outcome;
use crate::mvcc::locks::queue::Request;
use crate::mvcc::locks::span::Span;
use crate::mvcc::locks::stripes::Stripes;

#[derive(Debug, Clone)]
struct Lock {
    owner: usize,
    mode: Mode,
    span: Span,
}

impl Lock {
    fn conflicts(&self, other: &Lock) -> bool {
        self.owner != other.owner && self.mode.conflicts(other.mode) && self.meets(other)
    }

    fn meets(&self, other: &Lock) -> bool {
        self.span.as_ref().overlaps(other.span.as_ref())
    }

    /// Stripes that it is in.
    fn is_in(&self, stripe: u32) -> bool {
        match &self.span {
            Span::Key(key) => kernel_stripe(key) == stripe,
            Span::Range { .. } => true,
        }
    }
}

#[derive(Debug, Default, Clone)]
struct Model {
    held: Vec<Lock>,
    waiting: Vec<Lock>,
}

impl Model {
    /// Whether somebody is in the way of what comes after the first `place` in the queue.
    fn is_blocked(&self, wanted: &Lock, place: usize) -> bool {
        let holders = self.held.iter().any(|held| held.conflicts(wanted));
        holders || (0..super::kernel::KERNEL_STRIPES).any(|stripe| self.is_behind(wanted, place, stripe))
    }

    fn is_behind(&self, wanted: &Lock, place: usize, stripe: u32) -> bool {
        let earlier = self.waiting[..place].iter();
        let earlier = earlier.filter(|other| other.is_in(stripe) && wanted.is_in(stripe));
        let mut waits_for_owner: Vec<&Lock> = Vec::new();
        for other in earlier.filter(|other| other.owner != wanted.owner && other.meets(wanted)) {
            let mut own = self.held.iter().filter(|held| held.owner == wanted.owner);
            if own.any(|held| held.conflicts(other))
                || waits_for_owner
                    .iter()
                    .any(|first| first.conflicts(other) && !self.awaits(first, other.owner))
            {
                waits_for_owner.push(other);
            } else if other.conflicts(wanted) {
                return true;
            }
        }
        false
    }

    /// Whether this waiting request waits for what that owner holds.
    fn awaits(&self, waiting: &Lock, owner: usize) -> bool {
        self.held.iter().any(|held| held.owner == owner && held.conflicts(waiting))
    }

    fn request(&mut self, wanted: Lock) {
        let mut own = self.held.iter().filter(|held| held.owner == wanted.owner);
        let has_it =
            own.any(|held| held.mode >= wanted.mode && held.span.as_ref().covers(wanted.span.as_ref()));
        if has_it {
            return;
        }
        let place = self.place(wanted.owner);
        if self.is_blocked(&wanted, place) {
            self.waiting.insert(place, wanted);
        } else {
            self.held.push(wanted);
        }
    }

    /// Where in the queue the next request of this owner goes: before those of all who hold nothing, if it holds
    /// something.
    fn place(&self, owner: usize) -> usize {
        let holds = |owner: usize| self.held.iter().any(|held| held.owner == owner);
        let first = self.waiting.iter().position(|waiting| holds(owner) && !holds(waiting.owner));
        first.unwrap_or(self.waiting.len())
    }

    fn settle(&mut self) {
        let mut place = 0;
        while place < self.waiting.len() {
            if self.is_blocked(&self.waiting[place].clone(), place) {
                place += 1;
            } else {
                self.held.push(self.waiting.remove(place));
                place = 0;
            }
        }
    }

    fn waits(&self, owner: usize) -> bool {
        self.waiting.iter().any(|waiting| waiting.owner == owner)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Take(&'static str),
    GiveUp,
    End,
}

/// The real thing and the model, side by side.
struct Pair {
    /// Whether the model says for itself who goes on; else it follows, and says whether that was right.
    decides: bool,
    kernel: Kernel<Plain>,
    model: Model,
    owners: Vec<(Arc<Owner>, Option<Arc<Request>>)>,
    next_id: u64,
}

impl Pair {
    fn new(owners: usize, decides: bool) -> Pair {
        let fresh = |id: usize| (Arc::new(Owner::new(info(id as u64))), None);
        let owners: Vec<_> = (0..owners).map(fresh).collect();
        let next_id = owners.len() as u64;
        Pair { decides, kernel: Kernel::new(Plain::new()), model: Model::default(), owners, next_id }
    }

    /// Whether the operation makes sense now.
    fn can(&self, at: usize, op: Op) -> bool {
        match op {
            Op::Take(_) => !self.model.waits(at),
            Op::GiveUp => self.model.waits(at),
            Op::End => !self.model.waits(at) && self.model.held.iter().any(|held| held.owner == at),
        }
    }

    fn apply(&mut self, at: usize, op: Op) {
        let (owner, request) = &mut self.owners[at];
        match op {
            Op::Take(what) => {
                let (mode, span) = parse(what);
                *request = self.kernel.request(owner, what);
                let wanted = Lock { owner: at, mode, span };
                if self.decides {
                    self.model.request(wanted);
                } else if request.is_some() {
                    let place = self.model.place(at);
                    self.model.waiting.insert(place, wanted);
                } else {
                    self.model.held.push(wanted);
                }
            }
            Op::GiveUp => {
                assert!(matches!(owner.give_up(), Outcome::Waiting));
                self.kernel.cancel(&request.take().unwrap());
                self.model.waiting.retain(|waiting| waiting.owner != at);
            }
            Op::End => {
                self.kernel.release(owner);
                self.model.held.retain(|held| held.owner != at);
                *owner = Arc::new(Owner::new(info(self.next_id)));
                self.next_id += 1;
            }
        }
        if self.decides {
            self.model.settle();
        }
        for (at, (owner, request)) in self.owners.iter_mut().enumerate() {
            if request.is_none() || !matches!(owner.outcome(), Outcome::Granted { .. }) {
                continue;
            }
            *request = None;
            if !self.decides {
                let place = self.model.waiting.iter().position(|waiting| waiting.owner == at).unwrap();
                let lock = self.model.waiting.remove(place);
                self.model.held.push(lock);
            }
        }
    }

    /// Compares.
    fn check(&self, history: &[(usize, Op)]) {
        for (at, (_, request)) in self.owners.iter().enumerate() {
            assert_eq!(request.is_some(), self.model.waits(at), "{at} after {history:?}");
        }
        let held = &self.model.held;
        for (index, one) in held.iter().enumerate() {
            let clash = held[..index].iter().find(|other| one.conflicts(other));
            assert!(clash.is_none(), "{one:?} and {clash:?} after {history:?}");
        }
        for (place, waiting) in self.model.waiting.iter().enumerate() {
            assert!(self.model.is_blocked(waiting, place), "{waiting:?} may go on after {history:?}");
        }
        for stripe in self.kernel.stripes.all() {
            for (_, key, id, mode) in stripe.holders() {
                let mut owners = self.owners.iter();
                let owner = owners.position(|(owner, _)| owner.id() == id).unwrap();
                let lock = Lock { owner, mode, span: Span::Key(key) };
                let is_known =
                    |held: &Lock| held.owner == owner && held.span == lock.span && held.mode == mode;
                assert!(held.iter().any(is_known), "{lock:?} after {history:?}");
            }
        }
    }
}

const SHORT: [Op; 6] =
    [Op::Take("s a"), Op::Take("x a"), Op::Take("s a..c"), Op::Take("x a..c"), Op::GiveUp, Op::End];

/// All histories of three owners, up to renaming them.
#[test]
fn all_short_histories_agree_with_the_model() {
    let mut count = 0u64;
    let mut pending: Vec<Vec<(usize, Op)>> = vec![Vec::new()];
    while let Some(history) = pending.pop() {
        let mut pair = Pair::new(3, true);
        for (at, op) in &history {
            pair.apply(*at, *op);
        }
        pair.check(&history);
        count += 1;
        if history.len() == 6 {
            continue;
        }
        let known = history.iter().map(|(at, _)| at + 1).max().unwrap_or(0);
        for at in 0..(known + 1).min(3) {
            for op in SHORT.into_iter().filter(|op| pair.can(at, *op)) {
                pending.push(history.iter().copied().chain([(at, op)]).collect());
            }
        }
    }
    assert!(count > 10_000, "{count}");
    println!("{count} histories");
}

const LONG_OPS: [Op; 14] = [
    Op::Take("s a"),
    Op::Take("x a"),
    Op::Take("s b"),
    Op::Take("x b"),
    Op::Take("x c"),
    Op::Take("s d"),
    Op::Take("x d"),
    Op::Take("s a..c"),
    Op::Take("x b..d"),
    Op::Take("s b.."),
    Op::Take("x a.."),
    Op::GiveUp,
    Op::End,
    Op::End,
];

#[test]
fn after_long_random_histories_everybody_who_waits_has_to() {
    let mut random = SplitMix64::new(test_seed(20));
    for _ in 0..300 {
        let mut pair = Pair::new(6, false);
        let mut history = Vec::new();
        for _ in 0..150 {
            let (at, op) = (random.below(6) as usize, LONG_OPS[random.below(14) as usize]);
            if pair.can(at, op) {
                history.push((at, op));
                pair.apply(at, op);
                pair.check(&history);
            }
        }
        // Nobody needs to wait once the others have ended.
        for round in 0..6 {
            for at in 0..6 {
                if pair.can(at, Op::GiveUp) && round == 5 {
                    pair.apply(at, Op::GiveUp);
                }
                if pair.can(at, Op::End) {
                    pair.apply(at, Op::End);
                }
                pair.check(&history);
            }
        }
        assert!(pair.model.waiting.is_empty() && pair.kernel.is_empty());
    }
}
