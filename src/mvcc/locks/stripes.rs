//! What goes over several stripes: the end of an owner, a wait given up, the search for a cycle. Generic over the
//! mutexes around the stripes, so that a model checker can put its own.

use super::edges::{Edge, Search};
use super::owner::{ALL_STRIPES, Owner};
use super::queue::{Request, Stripe};
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

/// The shortest cycle through this owner, which comes first in it: breadth first, each waiter once. Counts its steps.
///
/// Who holds nothing closes no cycle: nobody waits for it but those who came later.
pub(super) fn find_cycle(stripes: &impl Stripes, owner: &Arc<Owner>, steps: &mut u64) -> Option<Vec<Link>> {
    let origin = owner.waiting().filter(|_| owner.holds_any())?;
    let mut search = Search::new(Arc::clone(&origin));
    let mut seen = HashSet::from([owner.id()]);
    let mut reached = vec![Reached { request: origin, from: None }];
    let mut next = 0;
    let mut found = None;
    while let (Some(from), None) = (reached.get(next), &found) {
        follow(stripes, &from.request, &mut search);
        for edge in search.edges.drain(..) {
            if edge.owner.id() == owner.id() {
                found = Some(edge);
                break;
            }
            // Who left the queue since, and waits elsewhere, is in nobody's way here.
            let is_here = |request: &Arc<Request>| edge.ticket.is_none_or(|ticket| ticket == request.ticket);
            if !seen.contains(&edge.owner.id())
                && let Some(request) = edge.owner.waiting().filter(is_here)
            {
                seen.insert(edge.owner.id());
                reached.push(Reached { request, from: Some((next, edge)) });
            }
        }
        next = next.saturating_add(1);
    }
    *steps = steps.saturating_add(search.steps);
    links(&reached, next.saturating_sub(1), found?)
}

/// Finds where a search can go on from a request.
fn follow(stripes: &impl Stripes, request: &Request, search: &mut Search) {
    if request.is_range() {
        range::follow(&stripes.all(), request, search);
    } else {
        stripes.one(request.stripe).follow(request, true, search);
    }
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
