//! Writing a table: entries in ascending order in, one finished and synced file out.
//!
//! Blocks are framed into one buffer that goes to the file in large pieces. Index separators and key hashes are kept
//! in memory until the end (a few bytes per block, eight per user key).

use super::block::BlockBuilder;
use super::bytes::{Extent, common_prefix_len};
use super::footer::{FOOTER_BYTES, Footer};
use super::frame::Framer;
use super::index::{IndexEntries, Separator};
use super::meta::{Metaindex, Properties};
use super::{Compression, FilterKind, TableOptions, TableSummary, filter};
use crate::base::checksum::{FileTag, Origin, key_hash};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::key::{KeyRef, TRAILER_BYTES as KEY_TRAILER_BYTES, Trailer};
use crate::base::types::{DbId, EntryKind, FileNo, KEY_BYTES_MAX, SEQ_MAX, SeqNo, VALUE_BYTES_MAX};
use crate::env::AppendFile;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes that are collected before they are appended to the file.
const PIECE_BYTES: usize = 256 << 10;

/// Bytes written between two hints to start writing back, so that the sync at the end has little left.
const WRITEBACK_BYTES: u64 = 4 << 20;

/// Blocks longer than this, before compression, go to the file from the buffer they were built in.
const DIRECT_BYTES: usize = 16 << 20;

/// Index partitions are about this long: small enough to be read for one key.
const PARTITION_BYTES: usize = 32 << 10;

/// Data blocks asked to be longer are cut to this.
const BLOCK_BYTES_MAX: usize = 16 << 20;

const CREATED_BY: &str = concat!("esker ", env!("CARGO_PKG_VERSION"));

/// Builds one table.
pub(crate) struct TableBuilder {
    out: Output,
    db: DbId,
    number: FileNo,
    options: TableOptions,
    framer: Framer,
    block: BlockBuilder,
    /// User key and trailer added last.
    last: Vec<u8>,
    last_trailer: Trailer,
    index: IndexEntries,
    /// Place of a finished block that has no separator yet: it depends on the next key.
    unindexed: Option<Extent>,
    hashes: Vec<u64>,
    smallest: Option<(Vec<u8>, Trailer)>,
    entries: u64,
    deletes: u64,
    raw_bytes: u64,
    seq_min: SeqNo,
    seq_max: SeqNo,
    pub(super) created_by: &'static str,
}

impl TableBuilder {
    /// Begins a table in an empty file.
    pub(crate) fn new(
        file: Arc<dyn AppendFile>,
        path: &Path,
        db: DbId,
        number: FileNo,
        options: TableOptions,
    ) -> TableBuilder {
        let options = TableOptions { block_bytes: options.block_bytes.clamp(1, BLOCK_BYTES_MAX), ..options };
        TableBuilder {
            out: Output::new(file, path),
            db,
            number,
            framer: Framer::new(Origin::new(db, FileTag::Table, number)),
            block: BlockBuilder::new(options.restart_interval),
            options,
            last: Vec::new(),
            last_trailer: Trailer::LAST,
            index: IndexEntries::default(),
            unindexed: None,
            hashes: Vec::new(),
            smallest: None,
            entries: 0,
            deletes: 0,
            raw_bytes: 0,
            seq_min: SEQ_MAX,
            seq_max: 0,
            created_by: CREATED_BY,
        }
    }

    /// Adds an entry. Keys must ascend; after an error the table is of no use.
    pub(crate) fn add(&mut self, key: KeyRef<'_>, value: &[u8]) -> Result<()> {
        let shared = common_prefix_len(&self.last, key.user);
        self.check_entry(shared, key, value)?;
        let same_user_key = shared == key.user.len() && shared == self.last.len();
        if !same_user_key {
            self.hash(key.user);
        }
        if self.must_cut_before(key, value) {
            self.end_block()?;
        }
        if let Some(place) = self.unindexed.take() {
            let last = KeyRef::new(&self.last, self.last_trailer);
            self.index.push(Separator::between(last, key.user), place);
        }
        self.block.add(shared, key, value);
        self.last.truncate(shared);
        self.last.extend_from_slice(key.user.get(shared..).unwrap_or_default());
        self.last_trailer = key.trailer;
        self.count(key, value);
        if self.block.estimated_bytes() >= self.options.block_bytes {
            self.end_block()?;
        }
        Ok(())
    }

    /// About how long the file would be if it ended here.
    pub(crate) fn estimated_bytes(&self) -> u64 {
        let filter = match self.options.filter {
            FilterKind::None => 0,
            _ => (self.hashes.len() as u64).saturating_mul(u64::from(self.options.bits_per_key)) / 8,
        };
        // The last separator, and the bounds among the properties.
        let bounds = self.last.len().saturating_mul(3);
        let ends = self.index.estimated_bytes().saturating_add(bounds).saturating_add(FOOTER_BYTES) as u64;
        let pending = if self.block.is_empty() { 0 } else { self.block.estimated_bytes() as u64 };
        self.out.offset().saturating_add(pending).saturating_add(filter).saturating_add(ends)
    }

    /// Writes what follows the data, checks the length and syncs the file (not its directory).
    pub(crate) fn finish(mut self) -> Result<TableSummary> {
        let Some((smallest, smallest_trailer)) = self.smallest.take() else {
            return Err(Error::new(ErrorKind::InvalidArgument, "a table without entries"));
        };
        self.end_block()?;
        let last = std::mem::take(&mut self.last);
        let largest = KeyRef::new(&last, self.last_trailer);
        if let Some(place) = self.unindexed.take() {
            self.index.push(Separator::after(largest), place);
        }
        let data_bytes = self.out.offset();
        let data_blocks = self.index.len() as u64;
        let (index, index_levels) = self.write_index()?;
        let filter = self.write_filter()?;
        let mut summary = TableSummary {
            bytes: 0,
            smallest: KeyRef::new(&smallest, smallest_trailer).to_owned(),
            largest: largest.to_owned(),
            entries: self.entries,
            deletes: self.deletes,
            raw_bytes: self.raw_bytes,
            seq_min: self.seq_min,
            seq_max: self.seq_max,
        };
        let counts = (data_blocks, data_bytes, self.hashes.len() as u64);
        let properties = Properties::new(&summary, &self.options, counts, self.created_by).encode();
        let properties = self.write_block(&properties, Compression::None)?;
        let named = Metaindex { filter, properties: Some(properties) }.encode();
        let metaindex = self.write_block(&named, Compression::None)?;
        summary.bytes = metaindex.end.saturating_add(FOOTER_BYTES as u64);
        let filter = if filter.is_some() { self.options.filter } else { FilterKind::None };
        let footer = Footer {
            db: self.db,
            origin: self.number,
            file_bytes: summary.bytes,
            index,
            metaindex,
            filter: filter as u8,
            index_levels,
        };
        self.out.buffer.extend_from_slice(&footer.encode());
        self.out.finish(summary.bytes)?;
        Ok(summary)
    }

    fn check_entry(&self, shared: usize, key: KeyRef<'_>, value: &[u8]) -> Result<()> {
        if key.user.is_empty() || key.user.len() > KEY_BYTES_MAX || value.len() > VALUE_BYTES_MAX {
            let message = format!("a key of {} bytes with a value of {}", key.user.len(), value.len());
            return Err(Error::new(ErrorKind::LimitExceeded, message));
        }
        // Both go on after what they share, or the one that does not is the smaller; equal keys order by trailer.
        let ascends = match (self.last.get(shared), key.user.get(shared)) {
            (Some(last), Some(this)) => last < this,
            (None, Some(_)) => true,
            (Some(_), None) => false,
            (None, None) => key.trailer < self.last_trailer,
        };
        if !ascends {
            let (last, this) = (self.last.escape_ascii(), key.user.escape_ascii());
            let message = format!("table entries do not ascend: \"{last}\" and then \"{this}\"");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        Ok(())
    }

    fn hash(&mut self, user: &[u8]) {
        if self.options.filter != FilterKind::None && self.options.bits_per_key > 0 {
            self.hashes.push(key_hash(user));
        }
    }

    /// A record that would overfill the block by much begins its own, so that small records before a large value
    /// are not read with it.
    fn must_cut_before(&self, key: KeyRef<'_>, value: &[u8]) -> bool {
        let record = key.user.len().saturating_add(value.len());
        let full = self.options.block_bytes.saturating_add(self.options.block_bytes / 4);
        !self.block.is_empty() && self.block.estimated_bytes().saturating_add(record) > full
    }

    fn count(&mut self, key: KeyRef<'_>, value: &[u8]) {
        if self.smallest.is_none() {
            self.smallest = Some((key.user.to_vec(), key.trailer));
        }
        let seq = key.trailer.seq();
        let bytes = key.user.len().saturating_add(KEY_TRAILER_BYTES).saturating_add(value.len());
        self.entries = self.entries.saturating_add(1);
        self.deletes =
            self.deletes.saturating_add(u64::from(key.trailer.kind_byte() == EntryKind::Delete as u8));
        self.raw_bytes = self.raw_bytes.saturating_add(bytes as u64);
        self.seq_min = self.seq_min.min(seq);
        self.seq_max = self.seq_max.max(seq);
    }

    fn end_block(&mut self) -> Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let start = self.out.offset();
        let raw = self.block.finish(&self.last);
        if raw.len() > DIRECT_BYTES && self.options.compression == Compression::None {
            self.framer.seal_raw(raw, start);
            self.out.flush()?;
            self.out.append(raw)?;
        } else {
            self.framer.push(raw, start, self.options.compression, &mut self.out.buffer);
            self.out.flush_if_large()?;
        }
        self.block.reset();
        self.unindexed = Some(Extent { start, end: self.out.offset() });
        Ok(())
    }

    fn write_block(&mut self, raw: &[u8], compression: Compression) -> Result<Extent> {
        let start = self.out.offset();
        self.framer.push(raw, start, compression, &mut self.out.buffer);
        self.out.flush_if_large()?;
        Ok(Extent { start, end: self.out.offset() })
    }

    /// Writes the index; answers its place (of the top level) and the number of levels.
    fn write_index(&mut self) -> Result<(Extent, u8)> {
        let entries = std::mem::take(&mut self.index);
        let compression = self.options.compression;
        if entries.estimated_bytes() <= self.options.index_block_bytes {
            return Ok((self.write_block(&entries.encode(0..entries.len()), compression)?, 1));
        }
        let mut top = IndexEntries::default();
        for range in entries.partitions(PARTITION_BYTES.min(self.options.index_block_bytes)) {
            let separator = entries.last_before(range.end);
            let place = self.write_block(&entries.encode(range), compression)?;
            top.push(separator, place);
        }
        Ok((self.write_block(&top.encode(0..top.len()), compression)?, 2))
    }

    fn write_filter(&mut self) -> Result<Option<Extent>> {
        match filter::build(self.options.filter, self.options.bits_per_key, &self.hashes) {
            Some(bytes) => Ok(Some(self.write_block(&bytes, Compression::None)?)),
            None => Ok(None),
        }
    }
}

/// The file and what was not yet appended to it.
struct Output {
    file: Arc<dyn AppendFile>,
    path: PathBuf,
    buffer: Vec<u8>,
    appended: u64,
    hinted: u64,
    failed: bool,
}

impl Output {
    fn new(file: Arc<dyn AppendFile>, path: &Path) -> Output {
        let buffer = Vec::with_capacity(PIECE_BYTES.saturating_add(PIECE_BYTES / 4));
        Output { file, path: path.to_path_buf(), buffer, appended: 0, hinted: 0, failed: false }
    }

    /// Where the next byte will stand.
    fn offset(&self) -> u64 {
        self.appended.saturating_add(self.buffer.len() as u64)
    }

    fn flush_if_large(&mut self) -> Result<()> {
        if self.buffer.len() >= PIECE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        let result = self.append(&buffer);
        self.buffer = buffer;
        self.buffer.clear();
        self.buffer.shrink_to(PIECE_BYTES.saturating_mul(4));
        result
    }

    /// Appends bytes; after a failure the file must not be appended to again.
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if self.failed {
            let message = format!("{}: an earlier write failed", self.path.display());
            return Err(Error::new(ErrorKind::Io, message));
        }
        if bytes.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.file.append(bytes) {
            self.failed = true;
            return Err(Error::io("append", &self.path, error));
        }
        self.appended = self.appended.saturating_add(bytes.len() as u64);
        if self.appended.saturating_sub(self.hinted) >= WRITEBACK_BYTES {
            self.hinted = self.appended;
            self.file.start_writeback();
        }
        Ok(())
    }

    /// Appends the rest, checks the length and syncs.
    fn finish(&mut self, bytes: u64) -> Result<()> {
        self.flush()?;
        self.file.finish().map_err(|error| Error::io("finish", &self.path, error))?;
        let len = self.file.len();
        if len != bytes {
            let error = io::Error::other(format!("{bytes} bytes were written and {len} are there"));
            return Err(Error::io("finish", &self.path, error));
        }
        self.file.sync().map_err(|error| Error::io("sync", &self.path, error))?;
        if self.file.is_poisoned() {
            let error = io::Error::other("a store into the mapped file failed");
            return Err(Error::io("append", &self.path, error));
        }
        Ok(())
    }
}
