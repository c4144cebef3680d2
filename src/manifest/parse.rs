//! Reads back what `text` writes. For tests of this and of other modules: panics on what it does not understand.

use super::edit::{Edit, EditOp};
use super::meta::{LEVELS, Level, Moment, Run, TableMeta, Tree};
use super::settings::KeyspaceSettings;
use super::text::{TABLE_BYTES_DEFAULT, TABLE_ENTRIES_DEFAULT, UNITS};
use crate::base::key::{InternalKey, KeyRef, Trailer};
use crate::base::types::{EntryKind, KeyspaceId};
use std::str::FromStr;
use std::sync::Arc;

impl Tree {
    /// A tree from lines such as `L0 #5: 12:[a..f]@10-20 13:[g..k]@11-19{bytes=64K,deletes=3}`, obeying all rules.
    pub(crate) fn parse(text: &str) -> Tree {
        let tree = Tree::parse_unchecked(text);
        tree.check().unwrap_or_else(|broken| panic!("{broken} in\n{text}"));
        tree
    }

    /// The same, whatever the rules say; runs stand as they are written.
    pub(crate) fn parse_unchecked(text: &str) -> Tree {
        let mut levels = vec![Level::default(); LEVELS];
        for line in lines(text) {
            let (head, tables) = line.split_once(": ").unwrap_or((line.trim_end_matches(':'), ""));
            let (level, epoch) = head.split_once(' ').unwrap_or_else(|| panic!("no epoch in {line:?}"));
            let tables = tables.split_whitespace().map(|word| Arc::new(TableMeta::parse(word))).collect();
            levels[tagged::<usize>(level, 'L')]
                .runs
                .push(Arc::new(Run { epoch: tagged(epoch, '#'), tables }));
        }
        Tree { levels }
    }
}

impl TableMeta {
    /// A table from a word such as `12:[a..f]@10-20`.
    pub(crate) fn parse(word: &str) -> TableMeta {
        table(word).unwrap_or_else(|| panic!("{word:?} is not a table"))
    }
}

impl Edit {
    /// An edit from lines such as `remove 0 L0 #5 12`.
    pub(crate) fn parse(text: &str) -> Edit {
        Edit(
            lines(text)
                .map(|line| op(line).unwrap_or_else(|| panic!("{line:?} is not an operation")))
                .collect(),
        )
    }
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty())
}

fn tagged<N: FromStr>(word: &str, tag: char) -> N {
    let number = word.strip_prefix(tag).and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("{word:?} is not {tag} and a number"))
}

fn table(word: &str) -> Option<TableMeta> {
    let (number, rest) = word.split_once(":[")?;
    let (bounds, rest) = rest.split_once("]@")?;
    let (smallest, largest) = bounds.split_once("..")?;
    let (seqs, extras) = rest.split_once('{').unwrap_or((rest, "}"));
    let (seq_min, seq_max) = seqs.split_once('-')?;
    let (number, seq_min, seq_max) = (number.parse().ok()?, seq_min.parse().ok()?, seq_max.parse().ok()?);
    let mut meta = TableMeta {
        number,
        origin: number,
        bytes: TABLE_BYTES_DEFAULT,
        smallest: key(smallest, Trailer::new(seq_max, EntryKind::Put))?,
        largest: key(largest, Trailer::new(seq_min, EntryKind::Put))?,
        entries: TABLE_ENTRIES_DEFAULT,
        deletes: 0,
        raw_bytes: TABLE_BYTES_DEFAULT,
        seq_min,
        seq_max,
        older_versions: 0,
    };
    for extra in extras.strip_suffix('}')?.split(',').filter(|extra| !extra.is_empty()) {
        let (name, value) = extra.split_once('=')?;
        match name {
            "bytes" => (meta.bytes, meta.raw_bytes) = (size(value)?, size(value)?),
            "raw" => meta.raw_bytes = size(value)?,
            "entries" => meta.entries = value.parse().ok()?,
            "deletes" => meta.deletes = value.parse().ok()?,
            "older" => meta.older_versions = value.parse().ok()?,
            "origin" => meta.origin = value.parse().ok()?,
            _ => return None,
        }
    }
    Some(meta)
}

fn size(text: &str) -> Option<u64> {
    let unit = UNITS.iter().find_map(|(suffix, unit)| Some((text.strip_suffix(*suffix)?, unit)));
    let (digits, unit) = unit.unwrap_or((text, &1));
    digits.parse::<u64>().ok()?.checked_mul(*unit)
}

fn key(text: &str, usual: Trailer) -> Option<InternalKey> {
    let (text, trailer) = match text.split_once('!') {
        None => (text, usual),
        Some((text, trailer)) => {
            let kind = if trailer.ends_with('d') { EntryKind::Delete } else { EntryKind::Put };
            (text, Trailer::new(trailer.trim_end_matches(['p', 'd']).parse().ok()?, kind))
        }
    };
    let mut parts = text.split("\\x");
    let mut user = parts.next()?.as_bytes().to_vec();
    for part in parts {
        user.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        user.extend_from_slice(&part.as_bytes()[2..]);
    }
    Some(KeyRef::new(&user, trailer).to_owned())
}

fn settings(words: &[&str]) -> Option<KeyspaceSettings> {
    let mut settings = KeyspaceSettings::default();
    for word in words {
        let (name, value) = word.split_once('=')?;
        let (tag, _, _) = settings.fields().into_iter().find(|field| field.1 == name)?;
        settings.set(tag, size(value)?)?;
    }
    Some(settings)
}

fn op(line: &str) -> Option<EditOp> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (name, words) = words.split_first()?;
    let number = |index: usize| words.get(index)?.parse::<u64>().ok();
    let keyspace = || Some(KeyspaceId(words.first()?.parse().ok()?));
    Some(match *name {
        "create" => EditOp::CreateKeyspace {
            id: keyspace()?,
            name: words.get(1)?.trim_matches('"').to_owned(),
            settings: settings(&words[2..])?,
        },
        "drop" => EditOp::DropKeyspace { id: keyspace()? },
        "settings" => EditOp::SetSettings { id: keyspace()?, settings: settings(&words[1..])? },
        "add" => EditOp::AddTable {
            keyspace: keyspace()?,
            level: tagged(words.get(1)?, 'L'),
            epoch: tagged(words.get(2)?, '#'),
            table: TableMeta::parse(words.get(3)?),
        },
        "remove" => EditOp::RemoveTable {
            keyspace: keyspace()?,
            level: tagged(words.get(1)?, 'L'),
            epoch: tagged(words.get(2)?, '#'),
            number: number(3)?,
        },
        "flushed" => EditOp::Flushed { keyspace: keyspace()?, seq: number(1)? },
        "log" => EditOp::LogNumber(number(0)?),
        "files" => EditOp::ReserveFiles(number(0)?),
        "epochs" => EditOp::NextEpoch(number(0)?),
        "keyspaces" => EditOp::NextKeyspace(words.first()?.parse().ok()?),
        "seq" => EditOp::LastSeq(number(0)?),
        "clean" => EditOp::Clean { next_log: number(0)? },
        "floor" => EditOp::Floor(number(0)?),
        "moment" => EditOp::Moment {
            moment: Moment { at_micros: number(0)?, seq: number(1)? },
            span_micros: number(2)?,
        },
        _ => return None,
    })
}
