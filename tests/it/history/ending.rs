//! The state in which a history ends: all commits, or after a crash a prefix of them that has everything safe, and
//! nothing else.

use super::anomaly::{Findings, Kind};
use super::chains::{Chains, NOBODY, Source};
use super::model::{ABSENT, End, Key, Status};

pub fn check(chains: &Chains, end: &End, findings: &mut Findings) {
    if !check_sources(chains, end, findings) {
        return;
    }
    let least = least_rank(chains, end);
    if !has_prefix(chains, end, least) {
        explain(chains, end, least, findings);
    }
}

/// How many commits must be there.
fn least_rank(chains: &Chains, end: &End) -> usize {
    let must_be_there = |number: &u32| match (chains.transaction(*number).status, end.safe_seq) {
        (Status::Committed(seq), Some(safe)) => seq <= safe,
        (Status::Committed(_), None) => true,
        _ => false,
    };
    chains.commits.iter().skip(1).rposition(must_be_there).map_or(0, |at| at + 1)
}

/// Nothing is there that no commit put there.
fn check_sources(chains: &Chains, end: &End, findings: &mut Findings) -> bool {
    let mut is_clean = true;
    for (key, version) in end.state.iter().enumerate().filter(|one| *one.1 != ABSENT) {
        let from = match chains.source(key as Key, *version) {
            Source::Installed(_) => continue,
            Source::RolledBack(writer) => format!("of {}, which did not commit", chains.name(writer)),
            Source::Intermediate(writer) => format!("that {} had replaced", chains.name(writer)),
            Source::Nowhere => format!("that nobody wrote: {version}"),
        };
        findings.note(Kind::Dirty, || format!("in the end key {key} holds a value {from}"));
        is_clean = false;
    }
    is_clean
}

/// Whether the state is that of some prefix of at least so many commits.
fn has_prefix(chains: &Chains, end: &End, least: usize) -> bool {
    let base = &chains.history.base;
    let mut wrong = base.iter().zip(&end.state).filter(|(base, end)| base != end).count();
    let mut writes: Vec<_> =
        chains.entries.iter().enumerate().filter(|(_, entry)| entry.writer != NOBODY).collect();
    writes.sort_unstable_by_key(|(_, entry)| entry.rank);
    let mut writes = writes.into_iter().peekable();
    for rank in 0..chains.commits.len() {
        while let Some((at, entry)) = writes.next_if(|write| write.1.rank as usize == rank) {
            let shown = end.state[entry.key as usize];
            let before = chains.entries[at - 1].version;
            wrong -= usize::from(before != shown);
            wrong += usize::from(entry.version != shown);
        }
        if rank >= least && wrong == 0 {
            return true;
        }
    }
    false
}

fn explain(chains: &Chains, end: &End, least: usize, findings: &mut Findings) {
    // The newest commit of which something is there: all of it and everything before it had to be.
    let newest_shown = newest_rank_shown(chains, end);
    let upto = newest_shown.max(least as u32);
    for (key, shown) in end.state.iter().enumerate() {
        let Some(expect) = chains.chain(key as Key).iter().rev().find(|entry| entry.rank <= upto) else {
            continue;
        };
        if expect.version == *shown {
            continue;
        }
        let kind = if expect.rank <= newest_shown && shows_some(chains, end, expect.writer) {
            Kind::Partial
        } else {
            Kind::Lost
        };
        findings.note(kind, || {
            let writer = chains.name(expect.writer);
            format!(
                "in the end key {key} does not have what {writer} wrote, but {:?}",
                super::model::written_by(*shown)
            )
        });
    }
}

fn newest_rank_shown(chains: &Chains, end: &End) -> u32 {
    let shown = end.state.iter().enumerate().filter(|one| *one.1 != ABSENT);
    let ranks = shown.filter_map(|(key, version)| match chains.source(key as Key, *version) {
        Source::Installed(entry) => Some(chains.entry(entry).rank),
        _ => None,
    });
    ranks.max().unwrap_or(0)
}

/// Something of this transaction is there, on whatever key.
fn shows_some(chains: &Chains, end: &End, writer: u32) -> bool {
    let of_writer = chains.entries.iter().filter(|entry| entry.writer == writer && entry.version != ABSENT);
    of_writer.into_iter().any(|entry| end.state[entry.key as usize] == entry.version)
}
