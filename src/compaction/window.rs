//! Windows: the ways to cut a push of runs into deeper ones by key range, so that one compaction has bounded bytes.
//!
//! A [`Push`] takes an age-contiguous list of source runs, and optionally one target run that is older than all of
//! them. A window of it is a set of source tables together with every target table under their hull. It is found by
//! walking the source tables by their last key: all tables up to some key go in, except those that
//!
//! * a running compaction reads, or that would cross a *barrier* (target tables that are busy, key ranges into which
//!   a running compaction writes),
//! * share keys with an **older** source table that stays out: newer data must not pass older data.
//!
//! The bound moves right until the window has as many bytes as wanted; the next window begins there. Since a window
//! takes everything left of its bound that is free, working from left to right leaves nothing behind. Tables are
//! never split, and a run never has one user key in two tables, so versions of a key stay together.

use super::running::{Busy, Running};
use super::task::{Input, Span, level_number, total_bytes};
use crate::manifest::{Run, TableMeta};
use std::sync::Arc;

/// What is to be pushed down.
#[derive(Debug)]
pub(super) struct Push<'a> {
    /// Newest first: level and run.
    sources: Vec<(usize, &'a Arc<Run>)>,
    /// The run that is merged with, older than all sources.
    target: Option<(usize, &'a Arc<Run>)>,
    busy: Busy,
    /// Ascending key ranges, overlapping ones joined, that no window may touch or span.
    barriers: Vec<Span<'a>>,
    /// Only source tables that share keys with this range; `None`: all.
    within: Option<Span<'a>>,
}

/// One way to cut it.
#[derive(Debug, Clone)]
pub(super) struct Window<'a> {
    /// Newest first, the target's tables last.
    pub(super) inputs: Vec<Input>,
    /// Around all source tables.
    pub(super) hull: Span<'a>,
    /// Bytes of the source tables.
    pub(super) source_bytes: u64,
    /// Bytes of the source tables, deletes counted as what they will remove.
    pub(super) weight: u64,
    /// Bytes of the target tables.
    pub(super) target_bytes: u64,
    /// Source runs that share some key.
    pub(super) depth: usize,
    /// Whether a source table holds deletes.
    pub(super) has_deletes: bool,
}

impl Window<'_> {
    /// Whether writing the window costs less per byte pushed than writing the other.
    pub(super) fn is_cheaper_than(&self, other: &Window<'_>) -> bool {
        let cost = |one: &Window<'_>, two: &Window<'_>| {
            u128::from(one.target_bytes).saturating_mul(u128::from(two.weight))
        };
        cost(self, other) < cost(other, self)
    }
}

/// Source tables that go in, and where they came from.
struct Picked<'a> {
    /// Per source run, in the order of `Push::sources`.
    runs: Vec<Vec<&'a Arc<TableMeta>>>,
    bytes: u64,
    hull: Option<Span<'a>>,
}

impl<'a> Push<'a> {
    /// A push of runs, newest first, into an older run or (`None`) to a place where nothing is merged with.
    /// `output_level` is where the outputs will go.
    pub(super) fn new(
        sources: Vec<(usize, &'a Arc<Run>)>,
        target: Option<(usize, &'a Arc<Run>)>,
        output_level: usize,
        running: &'a Running,
    ) -> Push<'a> {
        let busy = Busy::of(running);
        let mut spans: Vec<Span<'a>> = running.outputs(output_level).collect();
        let tables = target.iter().flat_map(|(_, run)| &run.tables);
        spans.extend(tables.filter(|table| busy.has(table.number)).map(|table| Span::of(table)));
        Push { sources, target, busy, barriers: joined(spans), within: None }
    }

    /// Restricts the push to source tables that share keys with this range, which the caller has widened so that no
    /// older table outside of it shares keys with a newer one inside.
    pub(super) fn within(mut self, span: Span<'a>) -> Push<'a> {
        self.within = Some(span);
        self
    }

    /// All windows, from left to right, each of up to `limit` bytes, or as few tables as possible.
    pub(super) fn windows(&self, limit: u64) -> Vec<Window<'a>> {
        let mut ends: Vec<Span<'a>> = self
            .sources
            .iter()
            .flat_map(|(_, run)| &run.tables)
            .filter(|table| self.is_free(table))
            .map(|table| Span::of(table))
            .collect();
        ends.sort_unstable_by_key(|span| span.hi);
        ends.dedup_by_key(|span| span.hi);
        // A free table is on one side of every barrier, so the segments between them are apart in this order, too.
        ends.chunk_by(|left, right| self.segment(*left) == self.segment(*right))
            .flat_map(|ends| self.windows_of_segment(ends, limit))
            .collect()
    }

    fn windows_of_segment(&self, ends: &[Span<'a>], limit: u64) -> Vec<Window<'a>> {
        let mut windows = Vec::new();
        let mut lo = None;
        let mut rest = ends;
        while let Some(first) = rest.first() {
            let segment = self.segment(*first);
            let pick = |index: usize| rest.get(index).map(|end| self.pick(segment, lo, end.hi));
            let fits = |index: usize| pick(index).is_some_and(|picked| self.cost(&picked) <= limit);
            let is_empty = |index: usize| pick(index).is_some_and(|picked| picked.hull.is_none());
            // Both are monotone: a bound further right takes in more.
            let mut count = count_while(rest.len(), fits);
            if count == 0 || is_empty(count.saturating_sub(1)) {
                count = count_while(rest.len(), is_empty).saturating_add(1);
            }
            let Some(picked) = pick(count.saturating_sub(1)) else { break };
            windows.extend(self.window(&picked));
            lo = rest.get(count.saturating_sub(1)).map(|end| end.hi);
            rest = rest.get(count..).unwrap_or_default();
        }
        windows
    }

    /// The source tables of a window that reaches from `lo` (exclusive) to `hi`.
    fn pick(&self, segment: usize, lo: Option<&[u8]>, hi: &[u8]) -> Picked<'a> {
        let mut stays: Vec<Span<'a>> = Vec::new();
        let mut runs = vec![Vec::new(); self.sources.len()];
        let mut bytes = 0u64;
        let mut hull: Option<Span<'a>> = None;
        for (taken, (_, run)) in runs.iter_mut().zip(&self.sources).rev() {
            for table in run.overlapping(lo, Some(hi)) {
                let span = Span::of(table);
                let inside =
                    span.hi <= hi && lo.is_none_or(|lo| span.lo > lo) && self.segment(span) == segment;
                if inside && self.is_free(table) && !stays.iter().any(|older| older.overlaps(span)) {
                    taken.push(table);
                    bytes = bytes.saturating_add(table.bytes);
                    hull = Some(hull.map_or(span, |hull| hull.join(span)));
                } else {
                    stays.push(span);
                }
            }
        }
        Picked { runs, bytes, hull }
    }

    fn cost(&self, picked: &Picked<'a>) -> u64 {
        picked.bytes.saturating_add(total_bytes(self.under(picked.hull)))
    }

    /// Tables of the target that have to go along.
    fn under(&self, hull: Option<Span<'a>>) -> &'a [Arc<TableMeta>] {
        match (self.target, hull) {
            (Some((_, run)), Some(hull)) => run.overlapping(Some(hull.lo), Some(hull.hi)),
            _ => &[],
        }
    }

    fn window(&self, picked: &Picked<'a>) -> Option<Window<'a>> {
        let hull = picked.hull?;
        let target = self.under(Some(hull));
        let mut inputs: Vec<Input> = Vec::new();
        for ((level, run), tables) in
            self.sources.iter().zip(&picked.runs).filter(|(_, tables)| !tables.is_empty())
        {
            inputs.push(input(*level, run, tables.iter().copied()));
        }
        if let Some((level, run)) = self.target.filter(|_| !target.is_empty()) {
            inputs.push(input(level, run, target));
        }
        let tables = || picked.runs.iter().flatten().copied();
        Some(Window {
            inputs,
            hull,
            source_bytes: picked.bytes,
            weight: tables().fold(0u64, |sum, table| sum.saturating_add(weight(table))).max(1),
            target_bytes: total_bytes(target),
            depth: depth(tables()),
            has_deletes: tables().any(|table| table.deletes > 0),
        })
    }

    /// The window with all source tables that fit under its target tables, which cost nothing more to write.
    /// For a push of one run.
    pub(super) fn widened(&self, window: Window<'a>) -> Window<'a> {
        let ([(_, run)], Some(target)) = (self.sources.as_slice(), Span::over(self.under(Some(window.hull))))
        else {
            return window;
        };
        let segment = self.segment(window.hull);
        let span = target.join(window.hull);
        let fits = |table: &&Arc<TableMeta>| {
            span.contains(Span::of(table)) && self.is_free(table) && self.segment(Span::of(table)) == segment
        };
        let tables: Vec<&'a Arc<TableMeta>> =
            run.overlapping(Some(span.lo), Some(span.hi)).iter().filter(fits).collect();
        let hull = Span::over(tables.iter().copied());
        let bytes = total_bytes(tables.iter().copied());
        self.window(&Picked { runs: vec![tables], bytes, hull }).unwrap_or(window)
    }

    fn is_free(&self, table: &TableMeta) -> bool {
        let span = Span::of(table);
        !self.busy.has(table.number)
            && self.within.is_none_or(|within| within.overlaps(span))
            && !self.barriers.get(self.segment(span)).is_some_and(|next| next.overlaps(span))
    }

    /// How many barriers are wholly left of it.
    fn segment(&self, span: Span<'_>) -> usize {
        self.barriers.partition_point(|barrier| barrier.hi < span.lo)
    }
}

/// An input of these tables.
pub(super) fn input<'a>(
    level: usize,
    run: &Run,
    tables: impl IntoIterator<Item = &'a Arc<TableMeta>>,
) -> Input {
    Input { level: level_number(level), epoch: run.epoch, tables: tables.into_iter().cloned().collect() }
}

/// Bytes of a table with its deletes counted twice: once they go down, as much again goes away.
fn weight(table: &TableMeta) -> u64 {
    let entry_bytes = table.bytes.checked_div(table.entries).unwrap_or(0);
    table.bytes.saturating_add(entry_bytes.saturating_mul(table.deletes))
}

/// How many indices from 0 satisfy a monotone condition, found by doubling steps and then halves: near indices are
/// cheaper to test than far ones.
fn count_while(len: usize, holds: impl Fn(usize) -> bool) -> usize {
    let mut low = 0usize;
    let mut high = 1usize;
    while high <= len && holds(high.saturating_sub(1)) {
        low = high;
        high = high.saturating_mul(2);
    }
    high = high.saturating_sub(1).min(len);
    while low < high {
        let middle = low.midpoint(high);
        if holds(middle) {
            low = middle.saturating_add(1);
        } else {
            high = middle;
        }
    }
    low
}

/// Sorts spans and joins those that overlap.
fn joined(mut spans: Vec<Span<'_>>) -> Vec<Span<'_>> {
    spans.sort_unstable();
    let mut joined: Vec<Span<'_>> = Vec::with_capacity(spans.len());
    for span in spans {
        match joined.last_mut() {
            Some(last) if last.overlaps(span) => *last = last.join(span),
            _ => joined.push(span),
        }
    }
    joined
}

/// The largest number of tables that share one user key.
pub(super) fn depth<'a>(tables: impl IntoIterator<Item = &'a Arc<TableMeta>>) -> usize {
    let mut edges: Vec<(&[u8], bool)> = Vec::new();
    for table in tables {
        edges.push((&table.smallest.user, false));
        edges.push((&table.largest.user, true));
    }
    // At one key a table opens before another closes: bounds are inclusive.
    edges.sort_unstable();
    let mut open = 0usize;
    let mut most = 0usize;
    for (_, closes) in edges {
        open = if closes { open.saturating_sub(1) } else { open.saturating_add(1) };
        most = most.max(open);
    }
    most
}
