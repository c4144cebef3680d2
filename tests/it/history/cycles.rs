//! The direct serialization graph, and its cycles by name.
//!
//! Nodes are the committed transactions. One comes before another because that one overwrote what it wrote (ww), read
//! what it wrote (wr), overwrote what it read, gaps of ranges included (rw), or began after it had ended. Real time is a
//! chain of extra nodes, so the graph grows linearly with the history. That a process does one thing after another is
//! part of real time.
//!
//! In a mixed history only those edges count that somebody has asked for (the mixing of Adya's thesis): wr for whoever
//! may only see committed data, rw out of transactions at SERIALIZABLE. A cycle of them is an anomaly.

use super::anomaly::{Findings, Kind};
use super::chains::{Chains, NOBODY};
use super::graph::{Edge, Graph, Labels};
use super::model::{Level, Status};
use super::reads::Seen;

const WW: Labels = 1;
const WR: Labels = 2;
const RW: Labels = 4;
const RW_RANGE: Labels = 8;
const TIME: Labels = 16;
const MISSED: Labels = RW | RW_RANGE;

/// The graph of what must not have cycles; with the edges that nobody asked for only if those are wanted.
pub fn graph(chains: &Chains, seen: &[Seen], all: bool) -> Graph {
    let mut edges = Vec::with_capacity(seen.len() * 2);
    add_writes(chains, &mut edges);
    add_reads(chains, seen, all, &mut edges);
    let nodes = add_time(chains, &mut edges);
    edges.retain(|edge| edge.from != edge.to);
    Graph::new(nodes, &edges)
}

fn add_writes(chains: &Chains, edges: &mut Vec<Edge>) {
    for pair in chains.entries.windows(2).filter(|pair| pair[0].key == pair[1].key) {
        if pair[0].writer != NOBODY {
            edges.push(Edge { from: pair[0].writer, to: pair[1].writer, label: WW });
        }
    }
}

fn add_reads(chains: &Chains, seen: &[Seen], all: bool, edges: &mut Vec<Edge>) {
    for one in seen.iter().filter(|one| chains.is_committed[one.reader as usize]) {
        // Of several removals that may have been seen, the first is certainly before the reader.
        let writer = chains.entry(one.first).writer;
        if writer != NOBODY {
            edges.push(Edge { from: writer, to: one.reader, label: WR });
        }
        // And what follows the last is certainly after it.
        if (all || chains.transaction(one.reader).level == Level::Serializable)
            && let Some(next) = chains.next(one.last)
        {
            let label = if one.by_range { RW_RANGE } else { RW };
            edges.push(Edge { from: one.reader, to: next.writer, label });
        }
    }
}

/// Between transactions that ended and one that begins stands a node. Answers how many nodes there are then.
fn add_time(chains: &Chains, edges: &mut Vec<Edge>) -> usize {
    let mut nodes = chains.history.transactions.len();
    let mut last: Option<u32> = None;
    let mut ended: Vec<u32> = Vec::new();
    for (number, is_begin) in chains.ticks.iter().filter(|tick| tick.0 != NOBODY) {
        if !chains.is_committed[*number as usize] {
            continue;
        }
        if !is_begin {
            if chains.transaction(*number).status != Status::Unknown {
                ended.push(*number);
            }
            continue;
        }
        if !ended.is_empty() {
            let node = nodes as u32;
            nodes += 1;
            let before = ended.drain(..).chain(last);
            edges.extend(before.map(|from| Edge { from, to: node, label: TIME }));
            last = Some(node);
        }
        edges.extend(last.map(|from| Edge { from, to: *number, label: TIME }));
    }
    nodes
}

/// Notes the cycles: of each component one of every kind that it has.
pub fn note_cycles(chains: &Chains, graph: &Graph, findings: &mut Findings) {
    for component in graph.components() {
        let whole = graph.part(&component, |_| true);
        let writes = whole.part(&all(&whole), |edge| edge.label == WW);
        let forward = whole.part(&all(&whole), |edge| edge.label & MISSED == 0);
        let apart = whole.without_neighbours(MISSED);
        for part in [&writes, &forward, &apart, &whole] {
            if let Some(nodes) = part.components().first() {
                let inner = part.part(nodes, |_| true);
                let count = whole.nodes() as u32;
                let outer = |node: u32| component[(nodes[node as usize] % count) as usize];
                let cycle = inner.cycle(&all(&inner));
                let cycle =
                    cycle.iter().map(|edge| Edge { from: outer(edge.from), to: outer(edge.to), ..*edge });
                note_cycle(chains, &without_time(chains, cycle.collect()), findings);
            }
        }
    }
}

fn all(graph: &Graph) -> Vec<u32> {
    (0..graph.nodes() as u32).collect()
}

/// Leaves out the nodes that stand for moments.
fn without_time(chains: &Chains, mut cycle: Vec<Edge>) -> Vec<Edge> {
    let count = chains.history.transactions.len() as u32;
    if let Some(start) = cycle.iter().position(|edge| edge.from < count) {
        cycle.rotate_left(start);
    }
    let mut shown: Vec<Edge> = Vec::new();
    for edge in cycle {
        match shown.last_mut() {
            Some(last) if edge.from >= count => last.to = edge.to,
            _ => shown.push(edge),
        }
    }
    shown
}

fn note_cycle(chains: &Chains, cycle: &[Edge], findings: &mut Findings) {
    findings.note(name(cycle), || {
        let mut text = String::from("a cycle:");
        for edge in cycle {
            let [from, to] = [edge.from, edge.to].map(|one| chains.name(one));
            text += &format!("\n    {from} {} {to}", reason(edge.label));
        }
        text
    });
}

fn reason(label: Labels) -> &'static str {
    match label {
        WW => "wrote what was overwritten by",
        WR => "wrote what was read by",
        RW => "read a key and did not see the write of",
        RW_RANGE => "read a range and did not see the write of",
        _ => "had ended before the beginning of",
    }
}

fn name(cycle: &[Edge]) -> Kind {
    let missed = cycle.iter().filter(|edge| edge.label & MISSED != 0).count();
    let has = |label: Labels| cycle.iter().any(|edge| edge.label & label != 0);
    let following = || cycle.iter().zip(cycle.iter().cycle().skip(1));
    let is_missed = |edge: &Edge| edge.label & MISSED != 0;
    let are_adjacent = following().any(|(a, b)| is_missed(a) && is_missed(b));
    match missed {
        0 if cycle.iter().all(|edge| edge.label == WW) => Kind::G0,
        0 => Kind::G1c,
        1 if has(TIME) => Kind::GSi,
        1 if has(RW_RANGE) => Kind::Pmp,
        1 => Kind::GSingle,
        _ if are_adjacent && has(RW_RANGE) => Kind::G2,
        _ if are_adjacent => Kind::G2Item,
        _ if has(WW) || has(TIME) => Kind::GSi,
        _ => Kind::LongFork,
    }
}
