//! Open tables: opened on first use, bounded in number and in the memory of their indexes and filters.

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::types::{DbId, FileNo};
use crate::cache::BlockCache;
use crate::env::Fs;
use crate::manifest::TableMeta;
use crate::sstable::{ReadMode, Table, TableSource};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// File name of a table.
pub(crate) fn table_path(dir: &Path, number: FileNo) -> PathBuf {
    dir.join(format!("{number:06}.sst"))
}

/// The number in a table's file name.
pub(crate) fn parse_table_name(name: &str) -> Option<FileNo> {
    let digits = name.strip_suffix(".sst")?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

#[derive(Clone)]
struct Weight {
    /// Least weight of a table, so that the byte bound also bounds the number of open files.
    floor: u64,
}

impl Weighter<FileNo, Arc<Table>> for Weight {
    fn weight(&self, _: &FileNo, table: &Arc<Table>) -> u64 {
        (table.memory_bytes() as u64).max(self.floor)
    }
}

/// The tables of one database.
pub(crate) struct Tables {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    db: DbId,
    mode: ReadMode,
    blocks: Arc<BlockCache>,
    open: Cache<FileNo, Arc<Table>, Weight>,
    closed: AtomicBool,
}

impl Tables {
    /// None open yet. `bytes` bounds indexes and filters, `files` the open files.
    pub(crate) fn new(
        fs: Arc<dyn Fs>,
        dir: PathBuf,
        db: DbId,
        mode: ReadMode,
        blocks: Arc<BlockCache>,
        bytes: u64,
        files: usize,
    ) -> Tables {
        let weight = Weight { floor: bytes.checked_div(files as u64).unwrap_or(bytes).max(1) };
        Tables {
            fs,
            dir,
            db,
            mode,
            blocks,
            open: Cache::with_weighter(files, bytes.max(1), weight),
            closed: AtomicBool::new(false),
        }
    }

    /// The open table, opened now if need be.
    #[inline]
    pub(crate) fn get(&self, meta: &TableMeta) -> Result<Arc<Table>> {
        match self.open.get(&meta.number) {
            Some(table) => Ok(table),
            None => self.open.get_or_insert_with(&meta.number, || self.open_table(meta)),
        }
    }

    fn open_table(&self, meta: &TableMeta) -> Result<Arc<Table>> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, "the database is closed"));
        }
        let path = table_path(&self.dir, meta.number);
        let file = match self.fs.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::corrupt(&path, None, "the table that the manifest names", "no such file"));
            }
            // Out of descriptors or memory for maps: give back what is held, then try once more.
            Err(error) if is_exhaustion(&error) => {
                self.open.clear();
                self.fs.open(&path).map_err(|error| Error::io("open", &path, error))?
            }
            Err(error) => return Err(Error::io("open", &path, error)),
        };
        let source = TableSource {
            file,
            path,
            db: self.db,
            origin: meta.origin,
            bytes: meta.bytes,
            mode: self.mode,
            cache: Arc::clone(&self.blocks),
        };
        Table::open(source).map(Arc::new)
    }

    /// Opens no more tables and forgets the open ones; readers that hold one keep it.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.open.clear();
    }

    /// Closes a table that is about to be removed.
    pub(crate) fn evict(&self, number: FileNo) {
        self.open.remove(&number);
    }

    /// Bytes of indexes and filters held.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.open.weight()
    }

    /// Number of open tables.
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// The cache of blocks.
    pub(crate) fn blocks(&self) -> &BlockCache {
        &self.blocks
    }
}

fn is_exhaustion(error: &io::Error) -> bool {
    // EMFILE, ENFILE, ENOMEM: the numbers are the same on every Unix.
    matches!(error.raw_os_error(), Some(24 | 23 | 12)) || error.kind() == io::ErrorKind::OutOfMemory
}
