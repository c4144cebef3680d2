//! The wait-for graph: the search for a cycle, and a picture of all of it.

use super::TxnId;
use super::edges::Edge;
use super::owner::Owner;
use super::queue::Request;
use super::report::{self, Link};
use super::stripes::{self, Stripes};
use super::table::LockTable;
use crate::base::deadlock::{DeadlockReport, LockDescription, transaction_name};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What searches leave behind. Whoever searches holds its mutex.
#[derive(Debug, Default)]
pub(super) struct Detector {
    /// The last deadlocks, newest last.
    reports: VecDeque<Arc<DeadlockReport>>,
}

impl LockTable {
    /// Breaks the cycles that go through this waiting owner, one victim each.
    pub(super) fn break_deadlocks(&self, owner: &Arc<Owner>) {
        // Most of those who begin to wait: they need not queue up for the detector.
        if !owner.holds_any() {
            return;
        }
        let mut detector = self.detector.lock();
        let search = || {
            let mut steps = 0;
            let cycle = stripes::find_cycle(&self.stripes, owner, &mut steps);
            self.counters.searches.fetch_add(1, Ordering::Relaxed);
            self.counters.search_steps.fetch_add(steps, Ordering::Relaxed);
            cycle
        };
        // Ends: each round takes a waiter out of the graph, or finds that one has left.
        while let Some(cycle) = search() {
            if cycle.iter().any(|link| !link.request.is_alive()) {
                continue;
            }
            let Some((at, why)) = report::choose(self.options.victim, &cycle) else { return };
            let Some(victim) = cycle.get(at) else { return };
            let report = Arc::new(self.report(&cycle, victim.owner().id(), why));
            if victim.request.owner.doom(victim.request.ticket, &report) {
                self.counters.deadlocks.fetch_add(1, Ordering::Relaxed);
                detector.reports.push_back(report);
                while detector.reports.len() > self.options.reports_kept {
                    detector.reports.pop_front();
                }
                victim.request.owner.notify();
            }
        }
    }

    fn report(&self, cycle: &[Link], victim: TxnId, why: String) -> DeadlockReport {
        let now = self.clock.now();
        let describe = |link: &Link| {
            let mut member = link.describe(now);
            member.waits_for = self.named(member.waits_for);
            member.holds = self.named(member.holds);
            member
        };
        DeadlockReport::new(cycle.iter().map(describe).collect(), victim, why, self.clock.unix_micros())
    }

    /// The last deadlocks, newest last.
    pub(crate) fn deadlocks(&self) -> Vec<DeadlockReport> {
        self.detector.lock().reports.iter().map(|report| (**report).clone()).collect()
    }

    /// Who waits for whom now. Each transaction's part is of one moment, the whole need not be.
    pub(crate) fn wait_graph(&self) -> WaitGraph {
        let waiting: BTreeMap<u64, Arc<Request>> = {
            let stripes = self.stripes.all();
            let requests = stripes.iter().flat_map(|stripe| stripe.waiting.iter());
            requests.map(|request| (request.ticket, Arc::clone(request))).collect()
        };
        let now = self.clock.now();
        let edges = waiting.values().flat_map(|request| {
            let wanted = self.named(request.describe());
            stripes::edges(&self.stripes, request)
                .into_iter()
                .map(move |edge| self.wait_edge(request, &wanted, &edge, now))
        });
        WaitGraph { edges: edges.collect() }
    }

    fn wait_edge(&self, request: &Request, wanted: &LockDescription, edge: &Edge, now: Duration) -> WaitEdge {
        let label = |owner: &Owner| owner.info().label.as_deref().map(str::to_string);
        WaitEdge {
            waiter: request.owner.id(),
            waiter_label: label(&request.owner),
            wants: wanted.clone(),
            waited: now.saturating_sub(request.since),
            blocker: edge.owner.id(),
            blocker_label: label(&edge.owner),
            blocked_by: self.named(edge.describe()),
            granted: edge.granted(),
        }
    }
}

/// One transaction that waits, and one that is in its way.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitEdge {
    /// The transaction that waits.
    pub waiter: u64,
    /// Its label.
    pub waiter_label: Option<String>,
    /// The lock it waits for.
    pub wants: LockDescription,
    /// How long it has waited.
    pub waited: Duration,
    /// The transaction in its way.
    pub blocker: u64,
    /// Its label.
    pub blocker_label: Option<String>,
    /// The lock of that one that is in the way.
    pub blocked_by: LockDescription,
    /// Whether that one has the lock; else it is ahead in the queue for it.
    pub granted: bool,
}

/// Which transactions wait for which, at about one moment.
///
/// [`Display`](fmt::Display) writes it as text, [`to_dot`](WaitGraph::to_dot) for Graphviz. Of several that are ahead in
/// a queue, those are left out that others ahead wait for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitGraph {
    /// In the order in which the waits began.
    pub edges: Vec<WaitEdge>,
}

impl WaitGraph {
    /// The graph in the DOT language of Graphviz.
    pub fn to_dot(&self) -> String {
        let mut nodes: BTreeMap<u64, Option<&str>> = BTreeMap::new();
        for edge in &self.edges {
            nodes.insert(edge.waiter, edge.waiter_label.as_deref());
            nodes.insert(edge.blocker, edge.blocker_label.as_deref());
        }
        let mut dot = String::from("digraph waits {\n");
        for (id, label) in nodes {
            let _ = writeln!(dot, "  t{id} [label={}];", dot_string(&transaction_name(id, label)));
        }
        for edge in &self.edges {
            let text = format!("{} waits {:?}", edge.wants, edge.waited);
            let style = if edge.granted { "solid" } else { "dashed" };
            let (waiter, blocker) = (edge.waiter, edge.blocker);
            let _ = writeln!(dot, "  t{waiter} -> t{blocker} [label={}, style={style}];", dot_string(&text));
        }
        dot.push_str("}\n");
        dot
    }
}

/// A quoted string of DOT that shows exactly this text: backslashes begin escapes in labels.
fn dot_string(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

impl fmt::Display for WaitGraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.edges.is_empty() {
            return f.write_str("no transaction waits for a lock");
        }
        for (index, edge) in self.edges.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            let waiter = transaction_name(edge.waiter, edge.waiter_label.as_deref());
            let blocker = transaction_name(edge.blocker, edge.blocker_label.as_deref());
            let verb = if edge.granted { "holds" } else { "is ahead in the queue for" };
            write!(f, "{waiter} waits {:?} for {}: {blocker} {verb} ", edge.waited, edge.wants)?;
            write!(f, "{}", edge.blocked_by)?;
        }
        Ok(())
    }
}
