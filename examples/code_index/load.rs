//! Loading: walk the trees in a fixed order, skip what is unchanged, bring in the rest file by file.

use crate::store::{Entry, Index, NOT_INDEXED, Outcome, hash};
use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Larger files are noted but not indexed.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// Changed files between two syncs: what a power cut can take.
const SYNC_EVERY_FILES: u64 = 500;

/// What a load did.
#[derive(Debug, Default)]
pub struct Report {
    indexed: u64,
    indexed_bytes: u64,
    unchanged: u64,
    not_indexed: u64,
    removed: u64,
    unreadable: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} files indexed ({} bytes), {} unchanged, {} not text or too large, {} removed, {} unreadable",
            self.indexed, self.indexed_bytes, self.unchanged, self.not_indexed, self.removed, self.unreadable
        )
    }
}

/// Brings these trees into the index, and takes out files that are gone from them.
pub fn load(index: &Index, roots: &[PathBuf]) -> Outcome<Report> {
    let mut loader = Loader { index, next_id: index.next_id()?, report: Report::default() };
    for root in roots {
        let metadata = fs::metadata(root).map_err(|error| format!("{}: {error}", root.display()))?;
        loader.visit(root, &metadata)?;
        loader.remove_missing(root)?;
    }
    index.db.sync()?;
    Ok(loader.report)
}

struct Loader<'a> {
    index: &'a Index,
    next_id: u64,
    report: Report,
}

impl Loader<'_> {
    fn visit(&mut self, path: &Path, metadata: &Metadata) -> Outcome<()> {
        if metadata.is_dir() {
            return self.visit_directory(path);
        }
        if !metadata.is_file() {
            return Ok(());
        }
        self.visit_file(path, metadata)
    }

    /// In the order of names, so that the same trees give the same ids however often the load was interrupted.
    fn visit_directory(&mut self, dir: &Path) -> Outcome<()> {
        let Some(entries) = self.readable(dir, fs::read_dir(dir).and_then(Iterator::collect))? else {
            return Ok(());
        };
        let mut entries: Vec<fs::DirEntry> = entries;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let path = entry.path();
            // Of the entry itself: links are not followed.
            if let Some(metadata) = self.readable(&path, entry.metadata())? {
                self.visit(&path, &metadata)?;
            }
        }
        Ok(())
    }

    fn visit_file(&mut self, path: &Path, metadata: &Metadata) -> Outcome<()> {
        let key = path.as_os_str().as_encoded_bytes();
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let modified_nanos = u64::try_from(modified.as_nanos()).unwrap_or(u64::MAX);
        let known = self.index.entry(key)?;
        if known.is_some_and(|known| known.size == metadata.len() && known.modified_nanos == modified_nanos) {
            self.report.unchanged += 1;
            return Ok(());
        }
        let mut entry = Entry { id: NOT_INDEXED, size: metadata.len(), modified_nanos, hash: 0 };
        if metadata.len() > FILE_BYTES_MAX {
            return self.pass_over(key, entry);
        }
        let Some(contents) = self.readable(path, fs::read(path))? else { return Ok(()) };
        if contents.contains(&0) {
            return self.pass_over(key, entry);
        }
        // The file may have changed since it was looked at: what counts is what was read.
        entry.size = contents.len() as u64;
        entry.hash = hash(&contents);
        if let Some(known) = known.filter(|known| known.id != NOT_INDEXED && known.hash == entry.hash) {
            self.report.unchanged += 1;
            return self.index.note(key, Entry { id: known.id, ..entry });
        }
        self.next_id = self.index.put(key, entry, &contents, self.next_id)?;
        self.report.indexed += 1;
        self.report.indexed_bytes += entry.size;
        if self.report.indexed.is_multiple_of(SYNC_EVERY_FILES) {
            self.index.db.sync()?;
        }
        Ok(())
    }

    fn pass_over(&mut self, key: &[u8], entry: Entry) -> Outcome<()> {
        self.report.not_indexed += 1;
        self.index.note(key, entry)
    }

    /// Takes out what the catalog has below this root and the disk has not.
    fn remove_missing(&mut self, root: &Path) -> Outcome<()> {
        let prefix = [b"f", root.as_os_str().as_encoded_bytes()].concat();
        for item in self.index.catalog.prefix(prefix) {
            let (key, _) = item?;
            let Some(name) = key.get(1..).and_then(|name| std::str::from_utf8(name).ok()) else { continue };
            let path = Path::new(name);
            let is_missing = matches!(fs::symlink_metadata(path), Err(error) if is_absence(&error));
            if path.starts_with(root) && is_missing {
                self.index.remove(name.as_bytes())?;
                self.report.removed += 1;
            }
        }
        Ok(())
    }

    /// What was read, or `None` with a note to the user where it could not be.
    fn readable<T>(&mut self, path: &Path, read: io::Result<T>) -> Outcome<Option<T>> {
        match read {
            Ok(value) => Ok(Some(value)),
            // It went away while the tree was walked.
            Err(error) if is_absence(&error) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                eprintln!("code_index: {}: {error}", path.display());
                self.report.unreadable += 1;
                Ok(None)
            }
            Err(error) => Err(format!("{}: {error}", path.display()).into()),
        }
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
