//! Checking: everything in the index follows from the stored contents, and nothing else is in it.

use crate::store::{Entry, Index, NOT_INDEXED, Outcome, decode_count, decode_id, hash, split_word_key};
use crate::words::count_words;
use esker::Snapshot;
use std::collections::HashMap;
use std::fmt;
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

/// What a check went through.
#[derive(Debug, Default)]
pub struct Report {
    files: u64,
    bytes: u64,
    entries: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} files, {} bytes, {} word entries: sound", self.files, self.bytes, self.entries)
    }
}

/// A set of word counts, compared without keeping it: how many there are, and the sum of their hashes, which does
/// not depend on their order.
#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
struct WordSet {
    words: u64,
    sum: u64,
}

impl WordSet {
    fn add(&mut self, word: &[u8], count: u32) {
        self.words += 1;
        self.sum = self.sum.wrapping_add(xxh3_64_with_seed(word, u64::from(count)));
    }
}

/// Verifies the word index and the catalog against the stored contents.
pub fn check(index: &Index) -> Outcome<Report> {
    let snapshot = index.db.snapshot();
    let mut indexed = word_sets(index, &snapshot)?;
    let mut report = Report { entries: indexed.values().map(|set| set.words).sum(), ..Report::default() };
    for item in snapshot.prefix_in(&index.catalog, "f") {
        let (key, entry) = item?;
        let path = &key[1..];
        let entry = Entry::decode(&entry)?;
        if entry.id == NOT_INDEXED {
            continue;
        }
        let found = indexed.remove(&entry.id).unwrap_or_default();
        check_file(index, &snapshot, path, entry, found)
            .map_err(|problem| format!("{}: {problem}", String::from_utf8_lossy(path)))?;
        report.files += 1;
        report.bytes += entry.size;
    }
    if let Some(id) = indexed.keys().next() {
        return Err(
            format!("the word index has entries of file {id}, which the catalog does not know").into()
        );
    }
    let next_id = index.next_id()?;
    check_count("contents", snapshot.iter_in(&index.files).count() as u64, report.files)?;
    let mut ids = 0;
    for item in snapshot.prefix_in(&index.catalog, "i") {
        let (key, path) = item?;
        let id = decode_id(&key[1..])?;
        let known = index.entry(&path)?;
        if id >= next_id || known.is_none_or(|entry| entry.id != id) {
            return Err(
                format!("file id {id} names {}, and not the other way round", path.escape_ascii()).into()
            );
        }
        ids += 1;
    }
    check_count("file ids", ids, report.files)?;
    Ok(report)
}

/// The words of each file according to the word index.
fn word_sets(index: &Index, snapshot: &Snapshot) -> Outcome<HashMap<u64, WordSet>> {
    let mut sets: HashMap<u64, WordSet> = HashMap::new();
    for item in snapshot.iter_in(&index.words) {
        let (key, count) = item?;
        let (word, id) = split_word_key(&key)?;
        sets.entry(id).or_default().add(word, decode_count(&count)?);
    }
    Ok(sets)
}

fn check_file(index: &Index, snapshot: &Snapshot, path: &[u8], entry: Entry, found: WordSet) -> Outcome<()> {
    let contents = snapshot.get_in(&index.files, path)?.ok_or("its contents are missing")?;
    if contents.len() as u64 != entry.size || hash(&contents) != entry.hash {
        return Err("its contents are not those that were indexed".into());
    }
    let mut expected = WordSet::default();
    for (word, count) in count_words(&contents) {
        expected.add(&word, count);
    }
    if found != expected {
        return Err(format!("the word index says {found:?}, the contents say {expected:?}").into());
    }
    Ok(())
}

fn check_count(what: &str, found: u64, expected: u64) -> Outcome<()> {
    if found == expected {
        return Ok(());
    }
    Err(format!("{found} {what} for {expected} files").into())
}

/// A digest of every key and value of every keyspace.
pub fn digest(index: &Index) -> Outcome<String> {
    let snapshot = index.db.snapshot();
    let mut hasher = Xxh3::new();
    let mut entries = 0u64;
    for keyspace in [&index.files, &index.words, &index.catalog] {
        hasher.update(keyspace.name().as_bytes());
        for item in snapshot.iter_in(keyspace) {
            let (key, value) = item?;
            for part in [&key, &value] {
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part);
            }
            entries += 1;
        }
    }
    Ok(format!("{:032x} {entries} entries", hasher.digest128()))
}
