//! One stripe of the table: who holds which of its keys, and who waits, in order of arrival. Plain data; the mutex is
//! around it, and the sleeping elsewhere.
//!
//! Inputs: a request ([`Stripe::attempt`], then [`Stripe::insert`] or [`Stripe::enqueue`]), an end
//! ([`Stripe::remove_key`]), a wait given up ([`Stripe::cancel`]). After the latter two, [`Stripe::settle`] says who goes
//! on. Ranges are in every stripe alike; `range.rs` keeps them so.

use super::TxnId;
use super::owner::{Held, Owner};
use super::range::RangeHold;
use super::span::{Span, SpanRef};
use crate::base::deadlock::{LockDescription, LockMode as Mode};
use crate::base::hash::Seeded;
use crate::base::sync::{Mutex, Rank};
use crate::base::types::KeyspaceId;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// What somebody wants.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) owner: &'a Owner,
    pub(super) keyspace: KeyspaceId,
    pub(super) span: SpanRef<'a>,
    pub(super) mode: Mode,
}

impl Wanted<'_> {
    /// Whether it cannot be had together with this.
    fn conflicts(&self, owner: &Owner, keyspace: KeyspaceId, span: SpanRef<'_>, mode: Mode) -> bool {
        self.keyspace == keyspace
            && self.mode.conflicts(mode)
            && self.owner.id() != owner.id()
            && self.span.overlaps(span)
    }

    /// Whether it is of another owner and has keys in common with this.
    pub(super) fn meets(&self, request: &Request) -> bool {
        self.keyspace == request.keyspace
            && self.owner.id() != request.owner.id()
            && self.span.overlaps(request.span.as_ref())
    }

    /// Whether it cannot be had together with this range lock.
    pub(super) fn conflicts_with_range(&self, hold: &RangeHold) -> bool {
        self.conflicts(&hold.owner, hold.keyspace, hold.span.as_ref(), hold.mode)
    }

    /// Whether it cannot be had together with what this one waits for.
    pub(super) fn conflicts_with_request(&self, request: &Request) -> bool {
        self.mode.conflicts(request.mode) && self.meets(request)
    }
}

/// Requests by which an owner that holds locks is ahead of one that holds none.
pub(super) const HEAD_START: u64 = 1 << 16;

/// The place in all queues of the request that is the `arrival`th of the table: that of its arrival, but a head start
/// earlier if its owner holds locks.
///
/// Strictly in the order of arrival, one who holds a lock and needs another stands behind all who hold nothing, and
/// they get the lock first and do the same elsewhere. Where many want few keys, nearly all keys are then held by those
/// who stand at the end of another queue, and what goes on is deadlocks (a convoy, as in Blasgen, Gray, Mitoma, Price
/// 1979; compare contention-aware scheduling in Tian, Huang, Mozafari, Schoenebeck 2018). Whom nobody waits for loses
/// little by waiting. It loses no more than the head start: requests that arrive after that are behind it.
fn place(arrival: u64, is_holder: bool) -> u64 {
    let behind = if is_holder { 0 } else { HEAD_START };
    // Doubled, so that no two are the same.
    arrival.wrapping_add(behind).wrapping_mul(2).wrapping_add(u64::from(is_holder))
}

/// A request that waits.
#[derive(Debug)]
pub(super) struct Request {
    /// Its place in all queues, unlike that of any other request: see [`place`].
    pub(super) ticket: u64,
    pub(super) owner: Arc<Owner>,
    pub(super) keyspace: KeyspaceId,
    pub(super) span: Span,
    pub(super) mode: Mode,
    /// Stripe of a key; [`ALL_STRIPES`](super::owner::ALL_STRIPES) for a range.
    pub(super) stripe: u32,
    /// When the wait began.
    pub(super) since: Duration,
    /// Of a range: all owners that held something in it since the wait began. An owner lets go only when it ends, so
    /// those of them that ask for more still hold it.
    blockers: Mutex<BTreeSet<TxnId>>,
}

impl Request {
    pub(super) fn new(
        arrival: u64,
        owner: &Arc<Owner>,
        wanted: &Wanted<'_>,
        stripe: u32,
        since: Duration,
    ) -> Request {
        Request {
            ticket: place(arrival, owner.holds_any()),
            owner: Arc::clone(owner),
            keyspace: wanted.keyspace,
            span: wanted.span.to_owned(),
            mode: wanted.mode,
            stripe,
            since,
            blockers: Mutex::new(Rank::Leaf, BTreeSet::new()),
        }
    }

    pub(super) fn wanted(&self) -> Wanted<'_> {
        Wanted { owner: &self.owner, keyspace: self.keyspace, span: self.span.as_ref(), mode: self.mode }
    }

    pub(super) fn describe(&self) -> LockDescription {
        LockDescription::new(self.keyspace.0, self.span.as_ref().describe(), self.mode)
    }

    /// What its owner holds once it is granted.
    pub(super) fn held(&self) -> Held {
        Held { stripe: self.stripe, keyspace: self.keyspace, span: self.span.clone() }
    }

    pub(super) fn is_range(&self) -> bool {
        matches!(self.span, Span::Range { .. })
    }

    /// The waiting range learns of an owner that it has to wait for.
    pub(super) fn add_blocker(&self, owner: TxnId) {
        self.blockers.lock().insert(owner);
    }

    /// Whether the wait goes on: nobody granted it, took it back or chose it as a victim.
    pub(super) fn is_alive(&self) -> bool {
        self.owner.waits_on(self.ticket)
    }

    fn has_blocker(&self, owner: TxnId) -> bool {
        self.blockers.lock().contains(&owner)
    }
}

/// What a stripe says to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    /// The owner has it already.
    Held,
    /// Nobody is in the way. `fresh`: the owner has no lock of its own on exactly this.
    Free { fresh: bool },
    /// Somebody is.
    Blocked,
}

#[derive(Debug)]
struct Holder {
    owner: Arc<Owner>,
    mode: Mode,
}

/// Holders of a key: at least one, and mostly just that.
#[derive(Debug)]
struct Entry {
    first: Holder,
    more: Vec<Holder>,
}

impl Entry {
    fn holders(&self) -> impl Iterator<Item = &Holder> {
        std::iter::once(&self.first).chain(&self.more)
    }

    fn mode_of(&self, owner: TxnId) -> Option<Mode> {
        self.holders().find(|holder| holder.owner.id() == owner).map(|holder| holder.mode)
    }

    fn add(&mut self, holder: Holder) {
        let id = holder.owner.id();
        if self.first.owner.id() == id {
            self.first.mode = self.first.mode.max(holder.mode);
        } else if let Some(own) = self.more.iter_mut().find(|other| other.owner.id() == id) {
            own.mode = own.mode.max(holder.mode);
        } else {
            self.more.push(holder);
        }
    }

    /// Removes a holder; says whether it was the last one, which then is still there.
    fn remove(&mut self, owner: TxnId) -> bool {
        if self.first.owner.id() != owner {
            if let Some(at) = self.more.iter().position(|holder| holder.owner.id() == owner) {
                self.more.swap_remove(at);
            }
            return false;
        }
        match self.more.pop() {
            Some(holder) => {
                self.first = holder;
                false
            }
            None => true,
        }
    }
}

type Keys = HashMap<Arc<[u8]>, Entry, Seeded>;

/// Keyspaces whose empty maps are kept, so that locking one key at a time does not make and drop them.
const EMPTY_KEYSPACES_MAX: usize = 8;

/// Memory for so many keys is kept when none is locked.
const EMPTY_CAPACITY_MAX: usize = 64;

/// A stripe.
#[derive(Debug, Default)]
pub(super) struct Stripe {
    keys: BTreeMap<KeyspaceId, Keys>,
    /// Held ranges, the same in every stripe.
    pub(super) ranges: Vec<Arc<RangeHold>>,
    /// Requests for keys of this stripe and for ranges, by ticket: who is ahead of whom.
    pub(super) waiting: Vec<Arc<Request>>,
    /// How many of them are for ranges.
    waiting_ranges: usize,
    /// Held keys, counted once for each holder.
    pub(super) held: usize,
}

/// Looks at the holder of a key; says whether to go on.
type Visit<'a> = dyn FnMut(&Arc<[u8]>, &Arc<Owner>, Mode) -> bool + 'a;

impl Stripe {
    fn entry(&self, keyspace: KeyspaceId, key: &[u8]) -> Option<&Entry> {
        self.keys.get(&keyspace)?.get(key)
    }

    /// Looks at a request for a key of this stripe.
    pub(super) fn attempt(&self, wanted: &Wanted<'_>, key: &[u8]) -> Attempt {
        let owner = wanted.owner.id();
        let own = self.entry(wanted.keyspace, key).and_then(|entry| entry.mode_of(owner));
        let ranges = self.ranges.iter().filter(|hold| hold.owner.id() == owner);
        let mut covering = ranges.filter(|hold| hold.mode >= wanted.mode);
        if own.is_some_and(|own| own >= wanted.mode)
            || covering.any(|hold| hold.covers(wanted.keyspace, wanted.span))
        {
            Attempt::Held
        } else if self.is_blocked(wanted, u64::MAX) {
            Attempt::Blocked
        } else {
            Attempt::Free { fresh: own.is_none() }
        }
    }

    /// Whether holders in this stripe, or requests with a lower ticket, are in the way.
    pub(super) fn is_blocked(&self, wanted: &Wanted<'_>, ticket: u64) -> bool {
        let mut found = false;
        self.visit_keys(wanted, &mut |_, _, _| {
            found = true;
            false
        });
        found
            || self.ranges.iter().any(|hold| wanted.conflicts_with_range(hold))
            || !self.ahead(wanted, ticket, false).is_empty()
    }

    /// Calls for each conflicting holder of a key, until the answer is false.
    pub(super) fn visit_keys(&self, wanted: &Wanted<'_>, visit: &mut Visit<'_>) {
        let Some(keys) = self.keys.get(&wanted.keyspace) else { return };
        let mut visit_entry = |key: &Arc<[u8]>, entry: &Entry| {
            let mut others = entry.holders().filter(|holder| {
                holder.owner.id() != wanted.owner.id() && holder.mode.conflicts(wanted.mode)
            });
            others.all(|holder| visit(key, &holder.owner, holder.mode))
        };
        match wanted.span {
            SpanRef::Key(key) => {
                if let Some((key, entry)) = keys.get_key_value(key) {
                    visit_entry(key, entry);
                }
            }
            SpanRef::Range { start, end } => {
                // All keys are looked at: range locks are rare, and an ordered map would cost every key lock.
                let is_inside = |key: &[u8]| key >= start && end.is_none_or(|end| key < end);
                let mut inside = keys.iter().filter(|(key, _)| is_inside(key));
                inside.all(|(key, entry)| visit_entry(key, entry));
            }
        }
    }

    /// Conflicting requests with a lower ticket, but for those that wait for this owner, directly or behind others
    /// that do: all of them, or just the first.
    pub(super) fn ahead(&self, wanted: &Wanted<'_>, ticket: u64, all: bool) -> Vec<&Arc<Request>> {
        let end = self.waiting.partition_point(|request| request.ticket < ticket);
        let earlier = self.waiting.get(..end).unwrap_or_default();
        let (mut ahead, mut waiting_for_owner) = (Vec::new(), Vec::<&Request>::new());
        for request in earlier.iter().filter(|request| wanted.meets(request)) {
            let is_behind = |other: &&Request| {
                request.wanted().conflicts_with_request(other) && !self.waits_for(other, &request.owner)
            };
            if self.waits_for(request, wanted.owner) || waiting_for_owner.iter().any(is_behind) {
                waiting_for_owner.push(request);
            } else if wanted.mode.conflicts(request.mode) {
                ahead.push(request);
                if !all {
                    break;
                }
            }
        }
        ahead
    }

    /// Whether a request of this stripe waits for something that this owner holds.
    fn waits_for(&self, request: &Request, owner: &Owner) -> bool {
        let Span::Key(key) = &request.span else { return request.has_blocker(owner.id()) };
        let own = self.entry(request.keyspace, key).and_then(|entry| entry.mode_of(owner.id()));
        own.is_some_and(|own| own.conflicts(request.mode))
            || self
                .ranges
                .iter()
                .any(|hold| hold.owner.id() == owner.id() && request.wanted().conflicts_with_range(hold))
    }

    /// Adds a holder of a key.
    pub(super) fn insert(&mut self, owner: &Arc<Owner>, keyspace: KeyspaceId, key: &Arc<[u8]>, mode: Mode) {
        let holder = Holder { owner: Arc::clone(owner), mode };
        let keys = self.keys.entry(keyspace).or_default();
        match keys.get_mut(&**key) {
            Some(entry) => {
                let before = entry.more.len();
                entry.add(holder);
                self.held = self.held.saturating_add(entry.more.len().saturating_sub(before));
            }
            None => {
                keys.insert(Arc::clone(key), Entry { first: holder, more: Vec::new() });
                self.held = self.held.saturating_add(1);
            }
        }
        if !self.waiting.is_empty() {
            self.tell_ranges(owner, keyspace, key, mode);
        }
    }

    /// Raises the mode of a lock that the owner holds.
    pub(super) fn upgrade(&mut self, owner: &Arc<Owner>, keyspace: KeyspaceId, key: &[u8], mode: Mode) {
        let entry = self.keys.get_mut(&keyspace).and_then(|keys| keys.get_mut(key));
        if let Some(entry) = entry {
            entry.add(Holder { owner: Arc::clone(owner), mode });
        }
        if !self.waiting.is_empty() {
            self.tell_ranges(owner, keyspace, key, mode);
        }
    }

    fn tell_ranges(&self, owner: &Arc<Owner>, keyspace: KeyspaceId, key: &[u8], mode: Mode) {
        let granted = Wanted { owner, keyspace, span: SpanRef::Key(key), mode };
        for range in self.waiting.iter().filter(|request| request.is_range()) {
            if granted.conflicts_with_request(range) {
                range.add_blocker(owner.id());
            }
        }
    }

    /// Puts a request at its place in the queue.
    pub(super) fn enqueue(&mut self, request: Arc<Request>) {
        self.waiting_ranges = self.waiting_ranges.saturating_add(usize::from(request.is_range()));
        let at = self.waiting.partition_point(|other| other.ticket < request.ticket);
        self.waiting.insert(at, request);
    }

    /// Takes an owner off a key.
    pub(super) fn remove_key(&mut self, owner: TxnId, keyspace: KeyspaceId, key: &[u8]) {
        let Some(keys) = self.keys.get_mut(&keyspace) else { return };
        let Some(entry) = keys.get_mut(key) else { return };
        let before = entry.more.len();
        let is_last = entry.remove(owner);
        let removed = usize::from(is_last).saturating_add(before.saturating_sub(entry.more.len()));
        self.held = self.held.saturating_sub(removed);
        if is_last {
            keys.remove(key);
        }
        if keys.is_empty() && keys.capacity() > EMPTY_CAPACITY_MAX {
            *keys = Keys::default();
        }
        if keys.is_empty() && self.keys.len() > EMPTY_KEYSPACES_MAX {
            self.keys.remove(&keyspace);
        }
    }

    /// Takes a request out of the queue; says whether it was there.
    pub(super) fn cancel(&mut self, ticket: u64) -> bool {
        match self.waiting.binary_search_by_key(&ticket, |request| request.ticket) {
            Ok(at) => {
                let request = self.waiting.remove(at);
                self.waiting_ranges = self.waiting_ranges.saturating_sub(usize::from(request.is_range()));
                true
            }
            Err(_) => false,
        }
    }

    /// Grants the requests for keys that nobody is in the way of any more, in order of arrival; `woken` gets their
    /// owners. Says whether a range found nobody in its way here.
    pub(super) fn settle(&mut self, woken: &mut Vec<Arc<Owner>>) -> bool {
        let mut range_may_go = false;
        let mut at = 0;
        while let Some(request) = self.waiting.get(at) {
            if self.is_blocked(&request.wanted(), request.ticket) {
                at = at.saturating_add(1);
                continue;
            }
            let Span::Key(key) = &request.span else {
                range_may_go = true;
                at = at.saturating_add(1);
                continue;
            };
            let (request, key) = (Arc::clone(request), Arc::clone(key));
            self.waiting.remove(at);
            self.grant(&request, &key, woken);
        }
        range_may_go
    }

    fn grant(&mut self, request: &Request, key: &Arc<[u8]>, woken: &mut Vec<Arc<Owner>>) {
        let keyspace = request.keyspace;
        let own = self.mode_of(request.owner.id(), keyspace, key);
        if request.owner.grant(request, own.is_none().then(|| request.held())) {
            self.insert(&request.owner, keyspace, key, request.mode);
            woken.push(Arc::clone(&request.owner));
        }
    }

    /// The mode in which an owner holds exactly this key.
    pub(super) fn mode_of(&self, owner: TxnId, keyspace: KeyspaceId, key: &[u8]) -> Option<Mode> {
        self.entry(keyspace, key)?.mode_of(owner)
    }

    /// Who holds this key alone, by its own lock or that of a range around it.
    pub(super) fn exclusive_holder(&self, keyspace: KeyspaceId, key: &[u8]) -> Option<TxnId> {
        let entry = self.entry(keyspace, key);
        let holder = entry.map(|entry| &entry.first).filter(|holder| holder.mode == Mode::Exclusive);
        holder.map(|holder| holder.owner.id()).or_else(|| {
            let mut alone = self.ranges.iter().filter(|hold| hold.mode == Mode::Exclusive);
            let range = alone.find(|hold| hold.covers(keyspace, SpanRef::Key(key)));
            range.map(|hold| hold.owner.id())
        })
    }

    /// Whether a range is held or waited for.
    pub(super) fn has_ranges(&self) -> bool {
        !self.ranges.is_empty() || self.waiting_ranges > 0
    }

    /// Whether nothing is held or wanted.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.keys.values().all(HashMap::is_empty) && self.ranges.is_empty() && self.waiting.is_empty()
    }

    /// Holders of every key, for tests of the invariants.
    #[cfg(test)]
    pub(super) fn holders(&self) -> Vec<(KeyspaceId, Arc<[u8]>, TxnId, Mode)> {
        let entries = self
            .keys
            .iter()
            .flat_map(|(keyspace, keys)| keys.iter().map(move |(key, entry)| (*keyspace, key, entry)));
        let of = |(keyspace, key, entry): (KeyspaceId, &Arc<[u8]>, &Entry)| {
            let all = entry.holders().map(|one| (keyspace, Arc::clone(key), one.owner.id(), one.mode));
            all.collect::<Vec<_>>()
        };
        entries.flat_map(of).collect()
    }
}
