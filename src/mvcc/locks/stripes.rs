//! What goes over several stripes: the end of an owner, a wait given up, the search for a cycle. Generic over the
//! mutexes around the stripes, so that a model checker can put its own.

use super::owner::{ALL_STRIPES, Owner};
use super::queue::{Edge, Request, Stripe};
use super::range;
use super::report::Link;
use super::span::Span;
use super::table::cost;
use std::collections::HashSet;
use std::ops::DerefMut;
use std::sync::Arc;

/// The stripes of a table.
pub(super) trait Stripes {
    type Guard<'a>: DerefMut<Target = Stripe>
    where
        Self: 'a;

    /// Takes one.
    fn one(&self, index: u32) -> Self::Guard<'_>;

    /// Takes all, in their order.
    fn all(&self) -> Vec<Self::Guard<'_>>;
}

/// What came of taking locks or requests away.
#[derive(Debug, Default)]
pub(super) struct Released {
    /// Owners whose requests were granted, to be notified.
    pub(super) woken: Vec<Arc<Owner>>,
    /// Memory of what was held, in bytes.
    pub(super) bytes: usize,
}

/// Takes everything from an owner, for good.
pub(super) fn release(stripes: &impl Stripes, owner: &Owner) -> Released {
    let mut released = Released::default();
    let mut held = owner.end();
    // Few different values: linear. Ranges come last.
    held.sort_unstable_by_key(|held| held.stripe);
    let mut ranges_may_go = false;
    for of_stripe in held.chunk_by(|left, right| left.stripe == right.stripe) {
        let Some(first) = of_stripe.first() else { continue };
        let costs = of_stripe.iter().map(|held| cost(held.span.as_ref()));
        released.bytes = costs.fold(released.bytes, usize::saturating_add);
        if first.stripe == ALL_STRIPES {
            range::remove(&mut stripes.all(), owner.id());
            ranges_may_go = true;
            continue;
        }
        let mut stripe = stripes.one(first.stripe);
        for held in of_stripe {
            if let Span::Key(key) = &held.span {
                stripe.remove_key(owner.id(), held.keyspace, key);
            }
        }
        if !stripe.waiting.is_empty() {
            ranges_may_go |= stripe.settle(&mut released.woken);
        }
    }
    if ranges_may_go {
        range::settle(&mut stripes.all(), &mut released.woken);
    }
    released
}

/// Takes a request that was not granted out of the queue, and lets those behind it go on.
pub(super) fn cancel(stripes: &impl Stripes, request: &Request) -> Released {
    let mut released = Released::default();
    if request.is_range() {
        let mut all = stripes.all();
        range::cancel(&mut all, request.ticket);
        range::settle(&mut all, &mut released.woken);
        return released;
    }
    let ranges_may_go = {
        let mut stripe = stripes.one(request.stripe);
        stripe.cancel(request.ticket);
        stripe.settle(&mut released.woken)
    };
    if ranges_may_go {
        range::settle(&mut stripes.all(), &mut released.woken);
    }
    released
}

/// Who is in the way of a request.
pub(super) fn edges(stripes: &impl Stripes, request: &Request) -> Vec<Edge> {
    if request.is_range() {
        return range::edges(&stripes.all(), request);
    }
    let mut edges = Vec::new();
    stripes.one(request.stripe).edges(request, true, &mut edges);
    edges
}

/// A transaction that a search came to, and how.
struct Reached {
    request: Arc<Request>,
    /// Where from, and what is in the way there; nothing for the first.
    from: Option<(usize, Edge)>,
}

/// The shortest cycle through this owner, which comes first in it: breadth first, each waiter once.
pub(super) fn find_cycle(stripes: &impl Stripes, owner: &Arc<Owner>) -> Option<Vec<Link>> {
    let start = owner.waiting()?;
    let mut seen = HashSet::from([owner.id()]);
    let mut reached = vec![Reached { request: start, from: None }];
    let mut next = 0;
    while let Some(from) = reached.get(next) {
        for edge in edges(stripes, &from.request) {
            if edge.owner.id() == owner.id() {
                return links(&reached, next, edge);
            }
            if seen.insert(edge.owner.id())
                && let Some(request) = edge.owner.waiting()
            {
                reached.push(Reached { request, from: Some((next, edge)) });
            }
        }
        next = next.saturating_add(1);
    }
    None
}

/// The way from the first one to the one at `last`, which `closing` of the first one is in the way of.
fn links(reached: &[Reached], last: usize, closing: Edge) -> Option<Vec<Link>> {
    let mut cycle = Vec::new();
    let mut at = last;
    loop {
        let one = reached.get(at)?;
        let request = Arc::clone(&one.request);
        match &one.from {
            Some((from, edge)) => {
                cycle.push(Link { request, holds: edge.clone() });
                at = *from;
            }
            None => {
                cycle.push(Link { request, holds: closing });
                break;
            }
        }
    }
    cycle.reverse();
    Some(cycle)
}
