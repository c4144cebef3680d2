//! Who is in the way of a waiting request, twice: for people, and for the search for a cycle.
//!
//! A search need not look at a whole queue. Whoever waits exclusively for a key waits for all its holders and for
//! everybody ahead; those ahead wait for some of the same holders and for some of each other, so past the holders they
//! lead nowhere. Whoever waits shared comes to all that way through the nearest exclusive request ahead. The one
//! request that matters by itself is that of the owner whom the cycle is to lead back to. So a search looks at holders,
//! and its cost hardly grows with the length of the queues in front of them.
//!
//! Where ranges are held or waited for, requests ahead overlap in different parts. Those for ranges are looked at one by
//! one then, and those for keys only if the request is shared.

use super::owner::Owner;
use super::queue::{Request, Stripe};
use super::span::Span;
use crate::base::deadlock::{LockDescription, LockMode as Mode};
use crate::base::types::KeyspaceId;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Somebody in the way of a request.
#[derive(Debug, Clone)]
pub(super) struct Edge {
    pub(super) owner: Arc<Owner>,
    pub(super) keyspace: KeyspaceId,
    pub(super) span: Span,
    pub(super) mode: Mode,
    /// Its ticket if it is ahead in the queue; else it has the lock.
    pub(super) ticket: Option<u64>,
}

impl Edge {
    pub(super) fn granted(&self) -> bool {
        self.ticket.is_none()
    }

    pub(super) fn describe(&self) -> LockDescription {
        LockDescription::new(self.keyspace.0, self.span.as_ref().describe(), self.mode)
    }

    fn to_request(ahead: &Request) -> Edge {
        Edge {
            owner: Arc::clone(&ahead.owner),
            keyspace: ahead.keyspace,
            span: ahead.span.clone(),
            mode: ahead.mode,
            ticket: Some(ahead.ticket),
        }
    }
}

/// A key, as a search remembers it.
type Place = (KeyspaceId, Arc<[u8]>);

/// A search for a cycle, as it goes from stripe to stripe.
///
/// It remembers what it has seen, so that each holder and each queue is looked at once. That it may be older than what
/// it is combined with does no harm: who begins to wait later searches as well.
#[derive(Debug)]
pub(super) struct Search {
    /// The request that the cycle goes through.
    pub(super) origin: Arc<Request>,
    /// In the way of the request that was looked at last.
    pub(super) edges: Vec<Edge>,
    /// Holders and requests looked at so far.
    pub(super) steps: u64,
    /// Keys all of whose holders were edges.
    followed: HashSet<Place>,
    /// Stripes whose queues are known.
    queues_of: HashSet<u32>,
    /// Exclusive requests for each key in those, in their order.
    exclusive: HashMap<Place, Vec<Arc<Request>>>,
}

impl Search {
    pub(super) fn new(origin: Arc<Request>) -> Search {
        Search {
            origin,
            edges: Vec::new(),
            steps: 0,
            followed: HashSet::new(),
            queues_of: HashSet::new(),
            exclusive: HashMap::new(),
        }
    }

    fn step(&mut self) {
        self.steps = self.steps.saturating_add(1);
    }

    /// Sorts the queues of a stripe by key.
    fn learn_queues(&mut self, stripe: &Stripe) {
        for request in &stripe.waiting {
            self.step();
            if let (Span::Key(key), Mode::Exclusive) = (&request.span, request.mode) {
                let place = (request.keyspace, Arc::clone(key));
                self.exclusive.entry(place).or_default().push(Arc::clone(request));
            }
        }
    }

    /// The last exclusive request for this key that is ahead of a shared one.
    fn nearest_exclusive(&mut self, request: &Request, place: &Place) -> Option<Edge> {
        let all = self.exclusive.get(place)?;
        let ahead = all.get(..all.partition_point(|other| other.ticket < request.ticket))?;
        let found = ahead.iter().rev().inspect(|_| self.steps = self.steps.saturating_add(1));
        let mut others = found.filter(|other| other.owner.id() != request.owner.id());
        others.find(|other| other.is_alive()).map(|other| Edge::to_request(other))
    }
}

impl Stripe {
    /// Who is in the way of a waiting request: all holders, and of those ahead enough that all others are in the way of
    /// these. Ranges are looked at if asked for: they are the same in every stripe.
    pub(super) fn edges(&self, request: &Request, with_ranges: bool, edges: &mut Vec<Edge>) {
        self.holders_in_the_way(request, with_ranges, &mut |edge| edges.push(edge));
        let ahead = self.ahead(&request.wanted(), request.ticket, true);
        for other in ahead.into_iter().rev() {
            let is_known = |edge: &Edge| edge.ticket == Some(other.ticket);
            // A range is in the queue of every stripe.
            if with_ranges || !other.is_range() || !edges.iter().any(is_known) {
                edges.push(Edge::to_request(other));
            }
            // An exclusive request for the same key waits for everything before it, or is waited for by it.
            if !self.has_ranges() && other.mode == Mode::Exclusive {
                break;
            }
        }
    }

    fn holders_in_the_way(&self, request: &Request, with_ranges: bool, push: &mut dyn FnMut(Edge)) {
        let (wanted, keyspace) = (request.wanted(), request.keyspace);
        self.visit_keys(&wanted, &mut |key, owner, mode| {
            let (owner, span) = (Arc::clone(owner), Span::Key(Arc::clone(key)));
            push(Edge { owner, keyspace, span, mode, ticket: None });
            true
        });
        if with_ranges {
            for hold in self.ranges.iter().filter(|hold| wanted.conflicts_with_range(hold)) {
                let (owner, span) = (Arc::clone(&hold.owner), hold.span.clone());
                push(Edge { owner, keyspace, span, mode: hold.mode, ticket: None });
            }
        }
    }

    /// Adds to the edges of a search where it can go on from a waiting request.
    pub(super) fn follow(&self, request: &Request, with_ranges: bool, search: &mut Search) {
        match &request.span {
            Span::Key(key) if !self.has_ranges() => self.follow_key(request, key, search),
            _ => {
                self.follow_holders(request, with_ranges, search);
                self.follow_all_ahead(request, search);
            }
        }
    }

    /// Looks at a key where there are no ranges.
    fn follow_key(&self, request: &Request, key: &Arc<[u8]>, search: &mut Search) {
        search.step();
        let is_behind_origin = search.origin.ticket < request.ticket && search.origin.wanted().meets(request);
        if is_behind_origin {
            self.follow_all_ahead(request, search);
        }
        let place = (request.keyspace, Arc::clone(key));
        if search.followed.contains(&place) {
            return;
        }
        self.follow_holders(request, true, search);
        if request.mode == Mode::Exclusive {
            // Who holds it as well was not one of the edges, but may be that of the next request.
            if self.mode_of(request.owner.id(), request.keyspace, key).is_none() {
                search.followed.insert(place);
            }
            return;
        }
        if search.queues_of.insert(request.stripe) {
            search.learn_queues(self);
        }
        let nearest = search.nearest_exclusive(request, &place);
        search.edges.extend(nearest);
    }

    fn follow_holders(&self, request: &Request, with_ranges: bool, search: &mut Search) {
        self.holders_in_the_way(request, with_ranges, &mut |edge| {
            search.step();
            search.edges.push(edge);
        });
    }

    /// Looks at everybody ahead.
    fn follow_all_ahead(&self, request: &Request, search: &mut Search) {
        for ahead in self.ahead(&request.wanted(), request.ticket, true) {
            search.step();
            let leads_on =
                ahead.is_range() || request.mode == Mode::Shared || ahead.ticket == search.origin.ticket;
            if leads_on && ahead.is_alive() {
                search.edges.push(Edge::to_request(ahead));
            }
        }
    }
}
