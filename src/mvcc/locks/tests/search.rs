//! The search for a cycle: what it finds, against a graph with every edge; and what it costs, counted in steps.

use super::kernel::{Kernel, Plain};
use super::*;
use crate::base::random::{SplitMix64, test_seed};
use crate::mvcc::locks::owner::Outcome;
use crate::mvcc::locks::queue::Request;
use crate::mvcc::locks::stripes::{self, Stripes};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Owners on stripes of one thread.
struct World {
    kernel: Kernel<Plain>,
    owners: Vec<Arc<Owner>>,
    requests: Vec<Option<Arc<Request>>>,
}

impl World {
    fn new(owners: usize) -> World {
        let owners = (0..owners as u64).map(|id| Arc::new(Owner::new(info(id)))).collect::<Vec<_>>();
        World { kernel: Kernel::new(Plain::new()), requests: vec![None; owners.len()], owners }
    }

    /// Adds an owner with this request, and answers its number.
    fn add(&mut self, what: &str) -> usize {
        let at = self.owners.len();
        self.owners.push(Arc::new(Owner::new(info(at as u64))));
        self.requests.push(None);
        self.take(at, what);
        at
    }

    /// Adds an owner that has a lock of its own, so that others who have do not pass it, and that waits for this.
    fn add_holder(&mut self, what: &str) {
        let at = self.add(&format!("x own{}", self.owners.len()));
        self.waits(at, what);
    }

    fn take(&mut self, at: usize, what: &str) {
        self.requests[at] = self.kernel.request(&self.owners[at], what);
    }

    fn takes(&mut self, at: usize, what: &str) {
        self.take(at, what);
        assert!(self.requests[at].is_none(), "{at} waits for {what}");
    }

    fn waits(&mut self, at: usize, what: &str) {
        self.take(at, what);
        assert!(self.requests[at].is_some(), "{at} got {what}");
    }

    /// The ids in the cycle through this owner, and the steps of the search.
    fn search(&self, at: usize) -> (Option<Vec<u64>>, u64) {
        let mut steps = 0;
        let cycle = stripes::find_cycle(&self.kernel.stripes, &self.owners[at], &mut steps);
        (cycle.map(|cycle| cycle.iter().map(|link| link.owner().id()).collect()), steps)
    }

    fn is_waiting(&self, at: usize) -> bool {
        self.owners[at].waiting().is_some()
    }

    /// Forgets the requests that were granted.
    fn settle(&mut self) {
        for (owner, request) in self.owners.iter().zip(&mut self.requests) {
            if request.is_some() && owner.waiting().is_none() {
                assert!(matches!(owner.outcome(), Outcome::Granted { .. }));
                *request = None;
            }
        }
    }

    /// Everybody whom a request waits for, one by one.
    fn blockers(&self, request: &Request) -> BTreeSet<u64> {
        let mut blockers = BTreeSet::new();
        let all = self.kernel.stripes.all();
        let stripes = all.iter().enumerate();
        for (_, stripe) in stripes.filter(|(at, _)| request.is_range() || *at == request.stripe as usize) {
            stripe.visit_keys(&request.wanted(), &mut |_, owner, _| {
                blockers.insert(owner.id());
                true
            });
            let ranges = stripe.ranges.iter().filter(|hold| request.wanted().conflicts_with_range(hold));
            blockers.extend(ranges.map(|hold| hold.owner.id()));
            let ahead = stripe.ahead(&request.wanted(), request.ticket, true);
            blockers.extend(ahead.iter().map(|other| other.owner.id()));
        }
        blockers
    }

    /// Length of the shortest cycle through this owner in the graph of all edges.
    fn shortest(&self, at: usize) -> Option<usize> {
        let of = |request: &Arc<Request>| (request.owner.id(), self.blockers(request));
        let graph: BTreeMap<u64, BTreeSet<u64>> = self.requests.iter().flatten().map(of).collect();
        let (start, mut seen) = (self.owners[at].id(), BTreeSet::new());
        let mut next = VecDeque::from([(start, 0)]);
        while let Some((id, length)) = next.pop_front() {
            for blocker in graph.get(&id).into_iter().flatten() {
                if *blocker == start {
                    return Some(length + 1);
                }
                if seen.insert(*blocker) {
                    next.push_back((*blocker, length + 1));
                }
            }
        }
        None
    }
}

/// Keys held by one owner each, who waits for the next key, behind a queue of owners without locks. The last one
/// holds on, or closes the cycle.
fn chain(keys: usize, queue: &[&str], wanted: &[&str], is_closed: bool) -> World {
    let mut world = World::new(keys);
    for at in 0..keys {
        world.takes(at, &format!("x k{at}"));
        for mode in queue {
            world.add(&format!("{mode} k{at}"));
        }
    }
    for at in 0..keys - usize::from(!is_closed) {
        world.waits(at, &format!("{} k{}", wanted[at % wanted.len()], (at + 1) % keys));
    }
    world
}

#[test]
fn the_cost_of_a_search_does_not_grow_with_the_queues() {
    const KEYS: u64 = 30;
    for is_closed in [false, true] {
        for length in [0, 1, 10, 300] {
            let world = chain(KEYS as usize, &vec!["x"; length], &["x"], is_closed);
            let (cycle, steps) = world.search(0);
            assert_eq!(cycle.map(|cycle| cycle.len() as u64), is_closed.then_some(KEYS));
            assert!(steps <= 3 * KEYS, "{steps} steps past queues of {length}");
        }
    }
}

/// Shared requests have to look for the exclusive ones ahead of them: each waiter is looked at once, by whomever.
#[test]
fn a_search_looks_at_each_holder_and_each_waiter_a_few_times_at_most() {
    const KEYS: usize = 30;
    for is_closed in [false, true] {
        for queue in [&["s", "x"] as &[&str], &["s"], &["x", "s", "s"]] {
            let queue: Vec<&str> = queue.iter().copied().cycle().take(90).collect();
            let world = chain(KEYS, &queue, &["s", "x", "s"], is_closed);
            let (cycle, steps) = world.search(0);
            assert_eq!(cycle.map(|cycle| cycle.len() >= KEYS), is_closed.then_some(true));
            assert!(steps <= 3 * world.owners.len() as u64, "{steps} steps");
        }
    }
    // Many holders of a key wait for another one, all of whose holders wait for the first.
    for wanted in [&["x"] as &[&str], &["s", "x"]] {
        let mut world = World::new(600);
        for at in 0..600 {
            world.takes(at, if at < 300 { "s left" } else { "s right" });
        }
        world.add_holder("x left");
        world.add_holder("x right");
        for at in 1..600 {
            let wanted = wanted[at % wanted.len()];
            world.waits(at, &format!("{wanted} {}", if at < 300 { "right" } else { "left" }));
        }
        world.waits(0, "x right");
        let (cycle, steps) = world.search(0);
        assert_eq!(cycle.map(|cycle| cycle.len()), Some(2));
        assert!(steps <= 3 * 1200, "{steps} steps");
        // The same when there is nothing to find.
        let mut world = World::new(0);
        for _ in 0..300 {
            world.add("s left");
        }
        world.add_holder("x left");
        for at in 0..300 {
            let last = world.add(&format!("s next{at}"));
            world.waits(last, &format!("{} left", wanted[at % wanted.len()]));
            world.waits(at, &format!("x next{at}"));
        }
        let first = world.add("x start");
        world.waits(first, "x left");
        let (cycle, steps) = world.search(first);
        assert_eq!(cycle, None);
        assert!(steps <= 3 * 1200, "{steps} steps");
    }
}

#[test]
fn who_holds_nothing_does_not_search() {
    let mut world = chain(10, &["x"], &["x"], true);
    let last = world.add("x k3");
    assert_eq!(world.search(last), (None, 0));
}

/// A range is looked at with everything in it, but only once.
#[test]
fn a_search_looks_at_each_waiting_range_once() {
    let mut world = World::new(40);
    for at in 0..40 {
        world.takes(at, &format!("x k{at:02}"));
    }
    for at in 0..40 {
        world.add(&format!("x k{at:02}..k{:02}", at + 3));
    }
    for at in 0..39 {
        world.waits(at, &format!("x k{:02}..k{:02}", at + 1, at + 2));
    }
    let (cycle, steps) = world.search(0);
    assert_eq!(cycle, None);
    let (ranges, held_or_wanted) = (80, 120);
    assert!(steps <= ranges * held_or_wanted * 2, "{steps} steps");
}

/// Whoever gave up is still in the queue for a moment. It hides nobody ahead of it.
#[test]
fn requests_that_gave_up_hide_nobody() {
    for with_range in [false, true] {
        let mut world = World::new(5);
        world.takes(0, "s k");
        world.takes(1, "x m");
        world.takes(2, "x o");
        world.takes(3, "x p");
        if with_range {
            world.takes(4, "x y..z");
        }
        world.waits(2, "x k");
        world.waits(3, "x k");
        world.waits(1, "s k");
        world.waits(0, "x m");
        assert!(world.search(0).0.is_some_and(|cycle| cycle.len() == 3));
        assert!(matches!(world.owners[3].give_up(), Outcome::Waiting));
        assert_eq!(world.search(0).0, Some(vec![0, 1, 2]));
    }
}

/// In the stripe of `b` the range waits behind who waits for the owner, and so it need not be waited for; in that of
/// `a` nothing says so. So it is waited for, and this has to be found.
#[test]
fn a_range_ahead_is_seen_from_every_stripe() {
    let mut world = World::new(3);
    world.takes(0, "s b");
    world.takes(1, "x f");
    world.takes(2, "x h");
    world.waits(1, "x b");
    world.waits(2, "s a..c");
    world.waits(0, "x a..b");
    assert_eq!(world.search(0).0, Some(vec![0, 2, 1]));
}

#[test]
fn a_search_finds_the_shortest_cycle_of_the_whole_graph() {
    const OPS: [&str; 13] =
        ["s a", "x a", "s b", "x b", "s c", "x c", "x d", "s d", "s e", "x e", "s a..c", "x b..d", "s c.."];
    let mut random = SplitMix64::new(test_seed(41));
    let mut found = BTreeMap::<usize, usize>::new();
    for round in 0..3000 {
        let kinds = if round % 2 == 0 { 10 } else { 13 };
        let mut world = World::new(7);
        let mut history = Vec::new();
        for _ in 0..40 {
            let at = random.below(7) as usize;
            if world.is_waiting(at) {
                if random.below(12) == 0 {
                    let request = world.requests[at].take().unwrap();
                    world.owners[at].give_up();
                    world.kernel.cancel(&request);
                    history.push((at, "gives up"));
                }
            } else if random.below(10) == 0 {
                world.kernel.release(&world.owners[at]);
                world.owners[at] = Arc::new(Owner::new(info(100 + random.below(1 << 40))));
                history.push((at, "ends"));
            } else {
                let what = OPS[random.below(kinds) as usize];
                world.take(at, what);
                history.push((at, what));
            }
            world.settle();
            for at in (0..7).filter(|at| world.is_waiting(*at) && world.owners[*at].holds_any()) {
                let cycle = world.search(at).0.map(|cycle| cycle.len());
                assert_eq!(cycle, world.shortest(at), "through {at} after {history:?}");
                *found.entry(cycle.unwrap_or(0)).or_default() += 1;
            }
        }
    }
    println!("cycles by length: {found:?}");
    assert!(found[&0] > 1000 && found[&2] > 1000 && found[&3] > 100 && found[&4] > 10, "{found:?}");
}
