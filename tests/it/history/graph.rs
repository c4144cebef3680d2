//! Directed graphs with labelled edges: strongly connected components (Tarjan 1972, without recursion) and short
//! cycles, also those in which certain edges do not follow each other.

use super::chains::starts_of;
use std::collections::VecDeque;

/// A set of kinds of edges.
pub type Labels = u8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge {
    pub from: u32,
    pub to: u32,
    pub label: Labels,
}

pub struct Graph {
    starts: Vec<u32>,
    edges: Vec<Edge>,
}

impl Graph {
    pub fn new(nodes: usize, all: &[Edge]) -> Graph {
        let mut counts = vec![0u32; nodes];
        all.iter().for_each(|edge| counts[edge.from as usize] += 1);
        let starts = starts_of(&counts);
        let mut next = starts.clone();
        let mut edges = vec![Edge { from: 0, to: 0, label: 0 }; all.len()];
        for edge in all {
            edges[next[edge.from as usize] as usize] = *edge;
            next[edge.from as usize] += 1;
        }
        Graph { starts, edges }
    }

    pub fn nodes(&self) -> usize {
        self.starts.len() - 1
    }

    pub fn edges_of(&self, node: u32) -> &[Edge] {
        &self.edges[self.starts[node as usize] as usize..self.starts[node as usize + 1] as usize]
    }

    /// The strongly connected components of more than one node.
    pub fn components(&self) -> Vec<Vec<u32>> {
        Tarjan::new(self).run()
    }

    /// These nodes, renumbered in their order, and the edges among them that `keep` wants.
    pub fn part(&self, nodes: &[u32], keep: impl Fn(&Edge) -> bool) -> Graph {
        let mut place = vec![u32::MAX; self.nodes()];
        nodes.iter().enumerate().for_each(|(at, node)| place[*node as usize] = at as u32);
        let inside = nodes.iter().flat_map(|node| self.edges_of(*node)).filter(|edge| keep(edge));
        let moved =
            inside.map(|edge| Edge { from: place[edge.from as usize], to: place[edge.to as usize], ..*edge });
        let edges: Vec<Edge> = moved.filter(|edge| edge.to != u32::MAX).collect();
        Graph::new(nodes.len(), &edges)
    }

    /// Each node twice: as reached by an edge of these labels (the second half), and by any other. What is left are the
    /// walks in which no two edges of these labels follow each other.
    pub fn without_neighbours(&self, labels: Labels) -> Graph {
        let count = self.nodes() as u32;
        let mut edges = Vec::new();
        for edge in &self.edges {
            let is_one = edge.label & labels != 0;
            let to = if is_one { edge.to + count } else { edge.to };
            edges.push(Edge { to, ..*edge });
            if !is_one {
                edges.push(Edge { from: edge.from + count, to, ..*edge });
            }
        }
        Graph::new(2 * count as usize, &edges)
    }

    /// A shortest cycle through one of the first of these nodes, which all lie on cycles.
    pub fn cycle(&self, nodes: &[u32]) -> Vec<Edge> {
        const TRIED: usize = 40;
        let cycles = nodes.iter().take(TRIED).filter_map(|node| self.cycle_through(*node));
        cycles.min_by_key(|cycle| cycle.len()).unwrap_or_default()
    }

    fn cycle_through(&self, start: u32) -> Option<Vec<Edge>> {
        let mut came_by: Vec<Option<Edge>> = vec![None; self.nodes()];
        let mut waiting = VecDeque::from([start]);
        while let Some(node) = waiting.pop_front() {
            for edge in self.edges_of(node) {
                if came_by[edge.to as usize].is_some() {
                    continue;
                }
                came_by[edge.to as usize] = Some(*edge);
                if edge.to == start {
                    return Some(way_back(&came_by, start));
                }
                waiting.push_back(edge.to);
            }
        }
        None
    }
}

fn way_back(came_by: &[Option<Edge>], start: u32) -> Vec<Edge> {
    let mut way = Vec::new();
    let mut node = start;
    while let Some(edge) = came_by[node as usize] {
        way.push(edge);
        node = edge.from;
        if node == start {
            break;
        }
    }
    way.reverse();
    way
}

const UNSEEN: u32 = u32::MAX;

struct Tarjan<'g> {
    graph: &'g Graph,
    order: Vec<u32>,
    low: Vec<u32>,
    on_stack: Vec<bool>,
    stack: Vec<u32>,
    /// Node and the next of its edges to follow.
    path: Vec<(u32, u32)>,
    found: Vec<Vec<u32>>,
    counter: u32,
}

impl<'g> Tarjan<'g> {
    fn new(graph: &'g Graph) -> Tarjan<'g> {
        let count = graph.nodes();
        Tarjan {
            graph,
            order: vec![UNSEEN; count],
            low: vec![0; count],
            on_stack: vec![false; count],
            stack: Vec::new(),
            path: Vec::new(),
            found: Vec::new(),
            counter: 0,
        }
    }

    fn run(mut self) -> Vec<Vec<u32>> {
        for node in 0..self.graph.nodes() as u32 {
            if self.order[node as usize] == UNSEEN {
                self.enter(node);
                self.follow();
            }
        }
        self.found
    }

    fn enter(&mut self, node: u32) {
        self.order[node as usize] = self.counter;
        self.low[node as usize] = self.counter;
        self.counter += 1;
        self.stack.push(node);
        self.on_stack[node as usize] = true;
        self.path.push((node, self.graph.starts[node as usize]));
    }

    fn follow(&mut self) {
        while let Some((node, next)) = self.path.last_mut() {
            let node = *node;
            if *next == self.graph.starts[node as usize + 1] {
                self.leave(node);
                continue;
            }
            let to = self.graph.edges[*next as usize].to;
            *next += 1;
            if self.order[to as usize] == UNSEEN {
                self.enter(to);
            } else if self.on_stack[to as usize] {
                self.low[node as usize] = self.low[node as usize].min(self.order[to as usize]);
            }
        }
    }

    fn leave(&mut self, node: u32) {
        self.path.pop();
        if let Some((parent, _)) = self.path.last() {
            let low = self.low[node as usize];
            self.low[*parent as usize] = self.low[*parent as usize].min(low);
        }
        if self.low[node as usize] != self.order[node as usize] {
            return;
        }
        let at = self.stack.iter().rposition(|one| *one == node).unwrap_or(0);
        let component = self.stack.split_off(at);
        component.iter().for_each(|one| self.on_stack[*one as usize] = false);
        if component.len() > 1 {
            self.found.push(component);
        }
    }
}
