//! Looking at a damaged database in every way there is, and judging what it answered.
//!
//! Every single answer must be right or an error that names the damage. "Right" is what all commits together say, or,
//! where a torn tail of the log is allowed for, what one and the same prefix of them says in all answers.

use super::subject::{DIR, KEYSPACES, State, Subject, keys, options};
use crate::support::Map;
use esker::env::{Env, Fs, MemFs};
use esker::{Db, Error, ErrorKind, Iter, Keyspace, ReadMode};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

type Entry = (Vec<u8>, Vec<u8>);

/// What a scan yielded, and the error that ended it.
struct Scan {
    keyspace: usize,
    backward: bool,
    items: Vec<Entry>,
    error: Option<Error>,
}

/// Keyspace, key, and what a get of it answered.
type Get = (usize, Vec<u8>, Result<Option<Vec<u8>>, Error>);

/// All answers of a database.
pub struct Answers {
    gets: Vec<Get>,
    scans: Vec<Scan>,
    pub verify: Result<(), Error>,
    compact: Vec<Result<(), Error>>,
    pub dropped_bytes: u64,
}

/// What is right in a case.
#[derive(Debug)]
pub struct Right {
    /// Files that errors may name; a directory stands for all in it.
    pub named: Vec<PathBuf>,
    /// The fewest of the logged commits that may be shown, where there are not all.
    pub least: usize,
    /// The most.
    pub most: usize,
    /// Whether fewer than all must be reported as dropped bytes.
    pub reported: bool,
    /// Whether the damaged bytes may say that another program or version wrote them.
    pub foreign: bool,
    /// Kind of the errors.
    pub kind: ErrorKind,
}

impl Right {
    /// Everything that was committed, or `Corruption` that names one of these files.
    pub fn all(subject: &Subject, named: &[&Path]) -> Right {
        let all = subject.logged.len();
        let named = named.iter().map(|path| path.to_path_buf()).collect();
        Right { named, least: all, most: all, reported: true, foreign: false, kind: ErrorKind::Corruption }
    }
}

/// Opens the database on this file system and asks it everything; with `compact`, once more after trying to compact.
pub fn examine(fs: Arc<dyn Fs>, mode: ReadMode, compact: bool) -> Result<Answers, Error> {
    let env = Env::simulated(fs, 99);
    let db = options(&env, mode).create_if_missing(false).open(DIR)?;
    let mut answers = Answers {
        gets: Vec::new(),
        scans: Vec::new(),
        verify: db.verify().map(|_| ()),
        compact: Vec::new(),
        dropped_bytes: db.stats().wal_bytes_dropped,
    };
    ask(&db, &mut answers)?;
    if compact {
        for name in KEYSPACES {
            answers.compact.push(db.existing_keyspace(name)?.compact());
        }
        ask(&db, &mut answers)?;
    }
    Ok(answers)
}

fn ask(db: &Db, answers: &mut Answers) -> Result<(), Error> {
    for (nth, name) in KEYSPACES.iter().enumerate() {
        let keyspace = db.existing_keyspace(name)?;
        for key in keys() {
            let found = keyspace.get(&key).map(|value| value.map(|value| value.to_vec()));
            answers.gets.push((nth, key, found));
        }
        for backward in [false, true] {
            answers.scans.push(scan(&keyspace, nth, backward));
        }
    }
    Ok(())
}

fn scan(keyspace: &Keyspace, nth: usize, backward: bool) -> Scan {
    let mut scan = Scan { keyspace: nth, backward, items: Vec::new(), error: None };
    let mut iter: Iter = keyspace.iter();
    // Bounded, so that an endless scan shows as wrong entries.
    for _ in 0..=2 * keys().len() {
        match if backward { iter.next_back() } else { iter.next() } {
            Some(Ok((key, value))) => scan.items.push((key.to_vec(), value.to_vec())),
            Some(Err(error)) => scan.error = Some(error),
            None => break,
        }
    }
    scan
}

impl Answers {
    fn errors(&self) -> impl Iterator<Item = &Error> {
        let gets = self.gets.iter().filter_map(|(_, _, found)| found.as_ref().err());
        let scans = self.scans.iter().filter_map(|scan| scan.error.as_ref());
        gets.chain(scans)
            .chain(self.verify.as_ref().err())
            .chain(self.compact.iter().filter_map(|one| one.as_ref().err()))
    }

    /// Whether no answer contradicts this state.
    fn agree_with(&self, state: &State) -> bool {
        let gets = self.gets.iter().all(|(keyspace, key, found)| match found {
            Ok(found) => found.as_ref() == state[*keyspace].get(key),
            Err(_) => true,
        });
        gets && self.scans.iter().all(|scan| scan.agrees_with(&state[scan.keyspace]))
    }
}

impl Scan {
    fn agrees_with(&self, map: &Map) -> bool {
        let count = self.items.len();
        let complete = self.error.is_some() || count == map.len();
        let same = |(found, expect): (&Entry, (&Vec<u8>, &Vec<u8>))| (&found.0, &found.1) == expect;
        let all_same = if self.backward {
            self.items.iter().zip(map.iter().rev()).all(same)
        } else {
            self.items.iter().zip(map.iter()).all(same)
        };
        complete && count <= map.len() && all_same
    }
}

impl Right {
    /// Whether this error is one that the damage may cause.
    fn allows(&self, error: &Error) -> bool {
        let foreign = matches!(error.kind(), ErrorKind::NotADatabase | ErrorKind::VersionUnsupported);
        if self.foreign && foreign {
            return true;
        }
        let file = match self.kind {
            ErrorKind::Corruption => error.corruption().map(|damage| &damage.file),
            _ => error.io_fault().map(|fault| &fault.path),
        };
        error.kind() == self.kind
            && file.is_some_and(|file| self.named.iter().any(|named| file.starts_with(named)))
    }

    /// Says what is wrong with the answers, if anything.
    pub fn judge(&self, subject: &Subject, answers: &Result<Answers, Error>) -> Result<(), String> {
        let answers = match answers {
            Ok(answers) => answers,
            Err(error) if self.allows(error) => return Ok(()),
            Err(error) => return Err(format!("refused with {:?}: {error}", error.kind())),
        };
        if let Some(error) = answers.errors().find(|error| !self.allows(error)) {
            return Err(format!("an error of kind {:?}: {error}", error.kind()));
        }
        let all = subject.logged.len();
        let shown = (0..=all).rev().find(|count| answers.agree_with(&subject.states[*count]));
        match shown {
            None => Err(format!("answers that fit no state; {}", answers.describe(subject.full()))),
            Some(count) if count == all => Ok(()),
            Some(count) if count < self.least || count > self.most => {
                Err(format!("{count} of {all} commits, at least {} must be there", self.least))
            }
            Some(count) if self.reported && answers.dropped_bytes == 0 => {
                Err(format!("{count} of {all} commits, and nothing is said of it"))
            }
            Some(_) => Ok(()),
        }
    }
}

impl Answers {
    fn describe(&self, state: &State) -> String {
        let wrong = self.gets.iter().filter(|(keyspace, key, found)| {
            found.as_ref().is_ok_and(|found| found.as_ref() != state[*keyspace].get(key))
        });
        let keys: Vec<_> =
            wrong.map(|(keyspace, key, _)| (keyspace, key.escape_ascii().to_string())).collect();
        let scans = self.scans.iter().map(|scan| {
            let (found, expect) = (scan.items.len(), state[scan.keyspace].len());
            format!("{found} of {expect} entries, error {:?}", scan.error.as_ref().map(Error::kind))
        });
        format!("unlike the full state: {keys:?}; scans: {:?}", scans.collect::<Vec<_>>())
    }
}

/// Examines and judges; a panic is as wrong as anything. Answers what is wrong.
pub fn check(
    subject: &Subject,
    fs: Arc<dyn Fs>,
    mode: ReadMode,
    compact: bool,
    right: &Right,
    more: impl FnOnce(&Result<Answers, Error>) -> Result<(), String>,
) -> Result<(), String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let answers = examine(fs, mode, compact);
        right.judge(subject, &answers).and_then(|()| more(&answers))
    }));
    outcome.unwrap_or_else(|_| Err("a panic".to_string()))
}

/// A file system on which one file is another.
pub fn with_file(subject: &Subject, path: &Path, bytes: &[u8]) -> Arc<MemFs> {
    let fs = subject.copy();
    fs.write_file(path, bytes).expect("replace");
    fs
}
