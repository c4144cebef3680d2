//! Windows: the ways to cut a push of runs into deeper ones by key range, so that one compaction has bounded bytes.
//!
//! A [`Push`] takes an age-contiguous list of source runs, and optionally one target run that is older than all of
//! them. A window of it is a set of source tables together with every target table under their hull. It is found by
//! walking the source tables by their last key: the tables that end in a range of keys go in, except those that
//!
//! * a running compaction reads, or that would cross a *barrier* (target tables that are busy, key ranges into which
//!   a running compaction writes),
//! * share keys with an **older** source table that stays out: newer data must not pass older data.
//!
//! The end of the range moves right until the window has as many bytes as wanted, and on to the end of the target
//! tables that go in anyway: what fits over them costs nothing more. The next window begins there. Tables are never
//! split, and a run never has one user key in two tables, so versions of a key stay together.
//!
//! A push can be told to look only where many runs overlap: pushing down what lies alone would move it early, without
//! merging it with what is still to come.

use super::running::{Busy, Running};
use super::task::{Input, Span, level_number, total_bytes};
use crate::base::types::FileNo;
use crate::manifest::{Run, TableMeta};
use std::collections::HashSet;
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
    /// Only source tables at whose last key so many of them overlap.
    depth_min: usize,
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

/// Where a source table ends.
#[derive(Debug, Clone, Copy)]
struct End<'a> {
    hi: &'a [u8],
    /// How many barriers are left of it.
    segment: usize,
    /// Whether enough runs overlap there.
    deep: bool,
}

/// Source tables that go in.
struct Picked<'a> {
    /// Per source run, in the order of `Push::sources`.
    runs: Vec<Vec<&'a Arc<TableMeta>>>,
    bytes: u64,
    hull: Option<Span<'a>>,
    /// End of the range of keys in which they end.
    end: &'a [u8],
}

impl<'a> Picked<'a> {
    fn add(&mut self, run: usize, table: &'a Arc<TableMeta>) {
        let span = Span::of(table);
        self.bytes = self.bytes.saturating_add(table.bytes);
        self.hull = Some(self.hull.map_or(span, |hull| hull.join(span)));
        if let Some(tables) = self.runs.get_mut(run) {
            tables.push(table);
        }
    }
}

/// Tables of a run whose last key is after `lo` and not after `hi`.
fn ending_in<'a>(run: &'a Run, lo: Option<&[u8]>, hi: &[u8]) -> &'a [Arc<TableMeta>] {
    let start = lo.map_or(0, |lo| run.tables.partition_point(|table| *table.largest.user <= *lo));
    let end = run.tables.partition_point(|table| *table.largest.user <= *hi);
    run.tables.get(start..end).unwrap_or_default()
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
        Push { sources, target, busy, barriers: joined(spans), within: None, depth_min: 1 }
    }

    /// Restricts the push to source tables that share keys with this range, which the caller has widened so that no
    /// older table outside of it shares keys with a newer one inside.
    pub(super) fn within(mut self, span: Span<'a>) -> Push<'a> {
        self.within = Some(span);
        self
    }

    /// Restricts the push to where so many source runs overlap.
    pub(super) fn where_deep(mut self, depth_min: usize) -> Push<'a> {
        self.depth_min = depth_min;
        self
    }

    /// The first windows from left to right, up to `count`, each of up to `limit` bytes, or as few tables as possible.
    pub(super) fn windows(&self, limit: u64, count: usize) -> Vec<Window<'a>> {
        let mut windows = Vec::new();
        let mut before: Option<End<'a>> = None;
        // A free table is on one side of every barrier, so segments are apart in the order of ends, too.
        for zone in
            self.ends().chunk_by(|left, right| left.segment == right.segment && left.deep == right.deep)
        {
            let (Some(first), Some(last)) = (zone.first(), zone.last()) else { continue };
            if first.deep && windows.len() < count {
                let lo = before.filter(|end| end.segment == first.segment).map(|end| end.hi);
                self.windows_of_zone(zone, lo, (limit, count), &mut windows);
            }
            before = Some(*last);
        }
        windows
    }

    /// Where free source tables end, ascending.
    fn ends(&self) -> Vec<End<'a>> {
        let tables =
            || self.sources.iter().flat_map(|(_, run)| &run.tables).filter(|table| self.is_free(table));
        let deep = deep_spans(tables(), self.depth_min);
        let end = |table: &'a Arc<TableMeta>| {
            let span = Span::of(table);
            let next = deep.get(deep.partition_point(|deep| deep.hi < span.lo));
            let deep = next.is_some_and(|next| next.overlaps(span));
            End { hi: span.hi, segment: self.segment(span), deep }
        };
        let mut ends: Vec<End<'a>> = tables().map(end).collect();
        // Sorted runs one after the other: a stable sort merges them.
        ends.sort_by_key(|end| (end.hi, !end.deep));
        ends.dedup_by_key(|end| end.hi);
        ends
    }

    fn windows_of_zone(
        &self,
        ends: &[End<'a>],
        mut lo: Option<&'a [u8]>,
        (limit, count_max): (u64, usize),
        windows: &mut Vec<Window<'a>>,
    ) {
        let mut rest = ends;
        while let Some(first) = rest.first()
            && windows.len() < count_max
        {
            let pick = |index: usize| rest.get(index).map(|end| self.pick(first.segment, lo, end.hi));
            let fits = |index: usize| pick(index).is_some_and(|picked| self.cost(&picked) <= limit);
            let is_empty = |index: usize| pick(index).is_some_and(|picked| picked.hull.is_none());
            // Both are monotone: an end further right takes in more.
            let mut count = count_while(rest.len(), fits);
            if count == 0 || is_empty(count.saturating_sub(1)) {
                count = count_while(rest.len(), is_empty).saturating_add(1);
            }
            let index = count.saturating_sub(1);
            let (Some(picked), Some(end)) = (pick(index), rest.get(index)) else { break };
            let picked = self.filled_up(picked, first.segment, lo, end.hi);
            windows.extend(self.window(&picked));
            let done = picked.end.max(end.hi);
            lo = Some(done);
            rest = rest.get(rest.partition_point(|end| end.hi <= done)..).unwrap_or_default();
        }
    }

    /// The source tables that end between `lo` (exclusive) and `hi` and may go.
    fn pick(&self, segment: usize, lo: Option<&[u8]>, hi: &'a [u8]) -> Picked<'a> {
        let mut taken = HashSet::new();
        let mut picked = Picked { runs: vec![Vec::new(); self.sources.len()], bytes: 0, hull: None, end: hi };
        for (index, (_, run)) in self.sources.iter().enumerate().rev() {
            let older = self.sources.get(index.saturating_add(1)..).unwrap_or_default();
            let goes = |table: &TableMeta, taken: &HashSet<FileNo>| {
                let span = Span::of(table);
                let stays = |older: &Arc<TableMeta>| !taken.contains(&older.number);
                self.segment(span) == segment
                    && self.is_free(table)
                    && !older.iter().any(|(_, run)| span.in_run(run).iter().any(stays))
            };
            for table in ending_in(run, lo, hi) {
                if goes(table, &taken) {
                    taken.insert(table.number);
                    picked.add(index, table);
                }
            }
        }
        picked
    }

    /// With all source tables that end over the target tables which go in anyway.
    fn filled_up(&self, picked: Picked<'a>, segment: usize, lo: Option<&[u8]>, hi: &[u8]) -> Picked<'a> {
        let target = self.under(picked.hull);
        let Some(end) = target.last().map(|table| &*table.largest.user).filter(|end| *end > hi) else {
            return picked;
        };
        let filled = self.pick(segment, lo, end);
        if self.under(filled.hull).len() == target.len() { filled } else { picked }
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
        })
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
    let mut most = 0;
    sweep(tables, |_, open| most = most.max(open));
    most
}

/// Where at least `depth_min` tables overlap, ascending.
fn deep_spans<'a>(tables: impl IntoIterator<Item = &'a Arc<TableMeta>>, depth_min: usize) -> Vec<Span<'a>> {
    let mut spans: Vec<Span<'a>> = Vec::new();
    let mut since: Option<&'a [u8]> = None;
    sweep(tables, |key, open| match since {
        None if open >= depth_min => since = Some(key),
        Some(lo) if open < depth_min => {
            spans.push(Span { lo, hi: key });
            since = None;
        }
        _ => {}
    });
    spans
}

/// Walks the bounds of tables in ascending order and tells how many tables are open after each.
fn sweep<'a>(tables: impl IntoIterator<Item = &'a Arc<TableMeta>>, mut visit: impl FnMut(&'a [u8], usize)) {
    let mut edges: Vec<(&[u8], bool)> = Vec::new();
    for table in tables {
        edges.push((&table.smallest.user, false));
        edges.push((&table.largest.user, true));
    }
    // At one key a table opens before another closes: bounds are inclusive. Tables mostly come as sorted runs one after
    // the other, which a stable sort merges.
    edges.sort();
    let mut open = 0usize;
    for (key, closes) in edges {
        open = if closes { open.saturating_sub(1) } else { open.saturating_add(1) };
        visit(key, open);
    }
}
