//! What is stored where, and the one batch that brings a file in or takes it out.
//!
//! | keyspace  | key               | value                                             |
//! | --------- | ----------------- | ------------------------------------------------- |
//! | `files`   | path              | contents                                          |
//! | `words`   | word `\0` file id | number of occurrences                             |
//! | `catalog` | `f` path          | file id, size, modification time, hash of contents |
//! | `catalog` | `i` file id       | path                                              |
//! | `catalog` | `n`               | next file id                                      |
//!
//! An entry of the word index names one word and one file, so that adding a file only adds keys. The usual list of
//! files per word would have to be read, changed and written again for every word of every file.

use crate::words::count_words;
use esker::{Batch, Compression, Db, Durability, Keyspace, KeyspaceOptions, Options, Slice};
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

/// The result of everything here; the text of the error is for the person at the terminal.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Id of a file that is known but not indexed: too large, or not text.
pub const NOT_INDEXED: u64 = 0;

/// What the catalog knows of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub id: u64,
    pub size: u64,
    pub modified_nanos: u64,
    pub hash: u64,
}

impl Entry {
    fn encode(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (part, number) in
            bytes.chunks_exact_mut(8).zip([self.id, self.size, self.modified_nanos, self.hash])
        {
            part.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Outcome<Entry> {
        let bytes: &[u8; 32] = bytes.try_into().map_err(|_| "a catalog entry has not 32 bytes")?;
        let number =
            |index: usize| bytes[index * 8..].first_chunk().map_or(0, |part| u64::from_le_bytes(*part));
        Ok(Entry { id: number(0), size: number(1), modified_nanos: number(2), hash: number(3) })
    }
}

/// The open index.
pub struct Index {
    pub db: Db,
    pub files: Keyspace,
    pub words: Keyspace,
    pub catalog: Keyspace,
}

impl Index {
    /// Opens the index, creating it if it is not there.
    pub fn create(dir: &Path) -> Outcome<Index> {
        let db = options().open(dir)?;
        // Contents are read whole and compress well in large blocks; words are looked up.
        let contents = KeyspaceOptions::new().compression(Compression::Lz4).block_bytes(32 << 10);
        Ok(Index {
            files: db.keyspace_with("files", &contents)?,
            words: db.keyspace("words")?,
            catalog: db.keyspace("catalog")?,
            db,
        })
    }

    /// Opens an index that exists.
    pub fn open(dir: &Path) -> Outcome<Index> {
        let db = options().create_if_missing(false).open(dir)?;
        Ok(Index {
            files: db.existing_keyspace("files")?,
            words: db.existing_keyspace("words")?,
            catalog: db.existing_keyspace("catalog")?,
            db,
        })
    }

    /// Closes it and tells whether that went well.
    pub fn close(self) -> Outcome<()> {
        Ok(self.db.close()?)
    }

    /// What is known of a file.
    pub fn entry(&self, path: &[u8]) -> Outcome<Option<Entry>> {
        self.catalog.get(file_key(path))?.map(|bytes| Entry::decode(&bytes)).transpose()
    }

    /// The id that the next new file gets.
    pub fn next_id(&self) -> Outcome<u64> {
        match self.catalog.get("n")? {
            Some(bytes) => Ok(decode_id(&bytes)?),
            None => Ok(NOT_INDEXED + 1),
        }
    }

    /// Stores a file, its words and its catalog entry in place of what was there, in one atomic batch. Answers the
    /// id that the next new file gets.
    pub fn put(&self, path: &[u8], entry: Entry, contents: &[u8], next_id: u64) -> Outcome<u64> {
        let mut batch = self.db.batch();
        let old = self.remove_contents(path, &mut batch)?;
        let id = old.unwrap_or(next_id);
        batch.put(&self.files, path, contents)?;
        for (word, count) in count_words(contents) {
            batch.put(&self.words, word_key(&word, id), count.to_le_bytes())?;
        }
        batch.put(&self.catalog, file_key(path), Entry { id, ..entry }.encode())?;
        batch.put(&self.catalog, id_key(id), path)?;
        let next_id = next_id.max(id + 1);
        batch.put(&self.catalog, "n", next_id.to_be_bytes())?;
        batch.commit()?;
        Ok(next_id)
    }

    /// Notes a file that is not indexed, or new times of one that is.
    pub fn note(&self, path: &[u8], entry: Entry) -> Outcome<()> {
        let mut batch = self.db.batch();
        if entry.id == NOT_INDEXED
            && let Some(id) = self.remove_contents(path, &mut batch)?
        {
            batch.delete(&self.catalog, id_key(id))?;
        }
        batch.put(&self.catalog, file_key(path), entry.encode())?;
        batch.commit()?;
        Ok(())
    }

    /// Removes a file that is gone.
    pub fn remove(&self, path: &[u8]) -> Outcome<()> {
        let mut batch = self.db.batch();
        if let Some(id) = self.remove_contents(path, &mut batch)? {
            batch.delete(&self.catalog, id_key(id))?;
        }
        batch.delete(&self.catalog, file_key(path))?;
        batch.commit()?;
        Ok(())
    }

    /// Adds to the batch what takes a file's contents and words out. Answers its id if it was indexed.
    fn remove_contents(&self, path: &[u8], batch: &mut Batch) -> Outcome<Option<u64>> {
        let Some(entry) = self.entry(path)?.filter(|entry| entry.id != NOT_INDEXED) else { return Ok(None) };
        let contents = self.files.get(path)?.ok_or("a file of the catalog has no contents; run check")?;
        for (word, _) in count_words(&contents) {
            batch.delete(&self.words, word_key(&word, entry.id))?;
        }
        batch.delete(&self.files, path)?;
        Ok(Some(entry.id))
    }
}

/// Every write is in the operating system's hands when it returns, so it survives `kill -9`; the loader syncs now and
/// then, so that a power cut takes little. Whatever is lost is the end of what was written, never a part before it:
/// what the catalog says is in is in.
fn options() -> Options {
    Options::new().durability(Durability::Os)
}

pub fn hash(contents: &[u8]) -> u64 {
    xxh3_64(contents)
}

fn file_key(path: &[u8]) -> Vec<u8> {
    [b"f", path].concat()
}

fn id_key(id: u64) -> Vec<u8> {
    [b"i".as_slice(), &id.to_be_bytes()].concat()
}

fn word_key(word: &[u8], id: u64) -> Vec<u8> {
    [word, b"\0", &id.to_be_bytes()].concat()
}

/// What all entries of a word start with.
pub fn word_prefix(word: &[u8]) -> Vec<u8> {
    [word, b"\0"].concat()
}

/// Word and file id of an entry of the word index.
pub fn split_word_key(key: &[u8]) -> Outcome<(&[u8], u64)> {
    match key.split_last_chunk::<8>() {
        Some(([word @ .., 0], id)) => Ok((word, u64::from_be_bytes(*id))),
        _ => Err(format!("{:?} is no key of the word index", String::from_utf8_lossy(key)).into()),
    }
}

pub fn decode_id(bytes: &[u8]) -> Outcome<u64> {
    Ok(u64::from_be_bytes(bytes.try_into().map_err(|_| "a file id has not 8 bytes")?))
}

pub fn decode_count(bytes: &[u8]) -> Outcome<u32> {
    Ok(u32::from_le_bytes(bytes.try_into().map_err(|_| "a word count has not 4 bytes")?))
}

/// Path of a file id as text.
pub fn path_of(index: &Index, id: u64) -> Outcome<String> {
    let path: Option<Slice> = index.catalog.get(id_key(id))?;
    let path = path.ok_or_else(|| format!("file {id} of the word index is not in the catalog; run check"))?;
    Ok(String::from_utf8_lossy(&path).into_owned())
}
