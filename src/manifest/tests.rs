//! Tests of the manifest, by topic.

mod apply;
mod codec;
mod crash;
mod damage;
mod format;
mod log;
mod tree;
mod world;

use super::*;
use crate::base::key::{KeyRef, Trailer};
use crate::base::types::{EntryKind, KeyspaceId};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// A generator whose seed is printed, and taken from `ESKER_SEED` when that is set.
fn seeded(default: u64) -> StdRng {
    let seed = std::env::var("ESKER_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    println!("ESKER_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// Some bytes, sometimes printable, sometimes not.
fn random_key(rng: &mut StdRng) -> Vec<u8> {
    let len = rng.random_range(1..12);
    let printable = rng.random_bool(0.5);
    (0..len).map(|_| if printable { rng.random_range(b'a'..=b'z') } else { rng.random() }).collect()
}

/// A table that obeys its own rules.
fn random_table(rng: &mut StdRng, number: u64) -> TableMeta {
    let (one, two) = (random_key(rng), random_key(rng));
    let (smallest, largest) = if one <= two { (one, two) } else { (two, one) };
    let (seq_bits, byte_bits) = (rng.random_range(1..56), rng.random_range(1..40));
    let seq_min = rng.random_range(0..1 << seq_bits);
    let seq_max = seq_min + rng.random_range(0..100);
    let kind = |rng: &mut StdRng| if rng.random_bool(0.5) { EntryKind::Put } else { EntryKind::Delete };
    let (newer, older) = (Trailer::new(seq_max, kind(rng)), Trailer::new(seq_min, kind(rng)));
    let (newer, older) = (newer.max(older), newer.min(older));
    let entries = rng.random_range(1..1000);
    TableMeta {
        number,
        origin: if rng.random_bool(0.8) { number } else { rng.random() },
        bytes: rng.random_range(1..1 << byte_bits),
        smallest: KeyRef::new(&smallest, newer).to_owned(),
        largest: KeyRef::new(&largest, older).to_owned(),
        entries,
        deletes: rng.random_range(0..=entries),
        raw_bytes: rng.random_range(0..1 << 40),
        seq_min,
        seq_max,
        older_versions: if rng.random_bool(0.5) { 0 } else { rng.random_range(0..entries) },
    }
}

fn random_settings(rng: &mut StdRng) -> KeyspaceSettings {
    let mut settings = KeyspaceSettings::default();
    for (tag, _, _) in settings.fields() {
        if rng.random_bool(0.7) {
            let _refused_when_too_wide = settings.set(tag, rng.random::<u64>() >> rng.random_range(0..64));
        }
    }
    settings
}

fn random_op(rng: &mut StdRng) -> EditOp {
    let keyspace = KeyspaceId(rng.random_range(0..5));
    let (level, epoch, number) =
        (rng.random_range(0..7), rng.random_range(0..1 << 40), rng.random::<u64>() >> 8);
    match rng.random_range(0..14) {
        0 => EditOp::CreateKeyspace {
            id: keyspace,
            name: format!("name{number}"),
            settings: random_settings(rng),
        },
        1 => EditOp::DropKeyspace { id: keyspace },
        2 => EditOp::SetSettings { id: keyspace, settings: random_settings(rng) },
        3 => EditOp::AddTable { keyspace, level, epoch, table: random_table(rng, number) },
        4 => EditOp::RemoveTable { keyspace, level, epoch, number },
        5 => EditOp::Flushed { keyspace, seq: number },
        6 => EditOp::LogNumber(number),
        7 => EditOp::ReserveFiles(number),
        8 => EditOp::NextEpoch(number),
        9 => EditOp::NextKeyspace(rng.random()),
        10 => EditOp::LastSeq(number),
        11 => EditOp::Floor(number),
        12 => EditOp::Moment {
            moment: Moment { at_micros: rng.random(), seq: number },
            span_micros: rng.random::<u64>() >> 40,
        },
        _ => EditOp::Clean { next_log: number },
    }
}

fn random_edit(rng: &mut StdRng) -> Edit {
    Edit((0..rng.random_range(0..8)).map(|_| random_op(rng)).collect())
}

/// Text without the indentation that tests give it.
fn dedent(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}
