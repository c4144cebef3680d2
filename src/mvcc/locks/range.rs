//! Locks on ranges. They are in every stripe, so that a key's stripe alone decides about the key; whoever changes them
//! holds all stripes, in their order.
//!
//! The functions take all stripes, however they are held: as guards, or as they are in a test.

use super::TxnId;
use super::edges::{Edge, Search};
use super::owner::Owner;
use super::queue::{Attempt, Request, Stripe, Wanted};
use super::span::{Span, SpanRef};
use crate::base::deadlock::LockMode as Mode;
use crate::base::types::KeyspaceId;
use std::ops::DerefMut;
use std::sync::Arc;

/// A held range.
#[derive(Debug)]
pub(super) struct RangeHold {
    pub(super) owner: Arc<Owner>,
    pub(super) keyspace: KeyspaceId,
    pub(super) span: Span,
    pub(super) mode: Mode,
}

impl RangeHold {
    /// Whether all of this lies in it.
    pub(super) fn covers(&self, keyspace: KeyspaceId, span: SpanRef<'_>) -> bool {
        self.keyspace == keyspace && self.span.as_ref().covers(span)
    }
}

/// Looks at a request for a range.
pub(super) fn attempt<S: DerefMut<Target = Stripe>>(stripes: &[S], wanted: &Wanted<'_>) -> Attempt {
    let held = stripes.first().is_some_and(|stripe| {
        let mut own = stripe.ranges.iter().filter(|hold| hold.owner.id() == wanted.owner.id());
        own.any(|hold| hold.mode >= wanted.mode && hold.covers(wanted.keyspace, wanted.span))
    });
    if held {
        Attempt::Held
    } else if is_blocked(stripes, wanted, u64::MAX) {
        Attempt::Blocked
    } else {
        Attempt::Free { fresh: true }
    }
}

pub(super) fn is_blocked<S: DerefMut<Target = Stripe>>(
    stripes: &[S],
    wanted: &Wanted<'_>,
    ticket: u64,
) -> bool {
    stripes.iter().any(|stripe| stripe.is_blocked(wanted, ticket))
}

/// Adds a held range.
pub(super) fn insert<S: DerefMut<Target = Stripe>>(
    stripes: &mut [S],
    owner: &Arc<Owner>,
    keyspace: KeyspaceId,
    span: Span,
    mode: Mode,
) {
    let hold = Arc::new(RangeHold { owner: Arc::clone(owner), keyspace, span, mode });
    let granted = Wanted { owner, keyspace, span: hold.span.as_ref(), mode };
    let waiting = stripes.first().map(|stripe| stripe.waiting.as_slice()).unwrap_or_default();
    for range in waiting.iter().filter(|request| request.is_range()) {
        if granted.conflicts_with_request(range) {
            range.add_blocker(owner.id());
        }
    }
    for stripe in stripes {
        stripe.ranges.push(Arc::clone(&hold));
    }
}

/// Puts a request for a range at its place in every queue.
pub(super) fn enqueue<S: DerefMut<Target = Stripe>>(stripes: &mut [S], request: &Arc<Request>) {
    for edge in edges(stripes, request).into_iter().filter(Edge::granted) {
        request.add_blocker(edge.owner.id());
    }
    for stripe in stripes {
        stripe.enqueue(Arc::clone(request));
    }
}

/// Who is in the way of a request for a range.
pub(super) fn edges<S: DerefMut<Target = Stripe>>(stripes: &[S], request: &Request) -> Vec<Edge> {
    let mut edges = Vec::new();
    for (index, stripe) in stripes.iter().enumerate() {
        stripe.edges(request, index == 0, &mut edges);
    }
    edges
}

/// Adds to the edges of a search where it can go on from a request for a range.
pub(super) fn follow<S: DerefMut<Target = Stripe>>(stripes: &[S], request: &Request, search: &mut Search) {
    for (index, stripe) in stripes.iter().enumerate() {
        stripe.follow(request, index == 0, search);
    }
}

/// Takes an owner off all its ranges.
pub(super) fn remove<S: DerefMut<Target = Stripe>>(stripes: &mut [S], owner: TxnId) {
    for stripe in stripes {
        stripe.ranges.retain(|hold| hold.owner.id() != owner);
    }
}

/// Takes a request for a range out of every queue.
pub(super) fn cancel<S: DerefMut<Target = Stripe>>(stripes: &mut [S], ticket: u64) {
    for stripe in stripes {
        stripe.cancel(ticket);
    }
}

/// Grants what can be granted, keys and ranges; `woken` gets the owners.
///
/// Keys first is as fair as the order of arrival: a key that came after a conflicting range waits for it, unless the
/// range waits for the key's owner and cannot go on anyway. And one pass is enough, since a grant lets nobody else go
/// on.
pub(super) fn settle<S: DerefMut<Target = Stripe>>(stripes: &mut [S], woken: &mut Vec<Arc<Owner>>) {
    for stripe in stripes.iter_mut() {
        stripe.settle(woken);
    }
    let waiting = stripes.first().map(|stripe| stripe.waiting.as_slice()).unwrap_or_default();
    let ranges: Vec<Arc<Request>> = waiting.iter().filter(|request| request.is_range()).cloned().collect();
    for request in ranges {
        if is_blocked(stripes, &request.wanted(), request.ticket) {
            continue;
        }
        cancel(stripes, request.ticket);
        let (keyspace, span) = (request.keyspace, request.span.clone());
        if request.owner.grant(&request, Some(request.held())) {
            insert(stripes, &request.owner, keyspace, span, request.mode);
            woken.push(Arc::clone(&request.owner));
        }
    }
}
