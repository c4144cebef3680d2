//! Damage: every byte of every file of small databases changed, every file cut at every length, removed, swapped,
//! replaced by an older version of itself or by another database's, and every read failing.
//!
//! Whatever is damaged, an answer is right or an error that names the damaged file; nothing panics, and nothing goes
//! on for ever. The one thing that may be lost is the end of an uncleanly stopped log that nothing proves: then what
//! is there is a prefix of the commits, with everything proven, and the loss is reported.
//!
//! In the short version a sample of the positions is looked at, the same one each time; `ESKER_DAMAGE_ALL=1` takes all.

mod disk;
mod examine;
mod subject;

use crate::support::setting;
use esker::env::{Env, Fault, FaultFs, FaultRule, MemFs, Op, OpSet, When};
use esker::{ErrorKind, ReadMode};
use examine::{Answers, Right, check, with_file};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use subject::{HEADER_BYTES, Kind, Role, Subject, record_ends, used_len};

/// Failures shown before a test gives up.
const FAILURES_MAX: usize = 10;

/// Collects what is wrong, so that a test shows more than the first case.
#[derive(Default)]
struct Report {
    cases: u64,
    failures: Vec<String>,
}

impl Report {
    fn add(&mut self, case: impl FnOnce() -> String, outcome: Result<(), String>) {
        self.cases += 1;
        if let Err(what) = outcome {
            self.failures.push(format!("{}: {what}", case()));
            if self.failures.len() >= FAILURES_MAX {
                self.end();
            }
        }
    }

    fn end(&self) {
        println!("{} cases", self.cases);
        assert!(self.failures.is_empty(), "{} cases, wrong:\n{}", self.cases, self.failures.join("\n"));
        assert!(self.cases > 0, "nothing was looked at");
    }
}

fn is_complete() -> bool {
    setting("ESKER_DAMAGE_ALL", 0) > 0
}

/// Positions to look at: all of the first `used`, and a sample of the zeros behind.
fn positions(kind: Kind, used: usize, len: usize) -> Vec<usize> {
    let (dense, sparse) = match (is_complete(), kind) {
        (true, Kind::Wide) => (10_000, 500),
        (true, _) => (usize::MAX, 2000),
        (false, _) => (60, 6),
    };
    let stride = |count: usize, most: usize| {
        // Odd, so that all columns of a regular layout get their turn.
        if count <= most { 1 } else { (count / most) | 1 }
    };
    let dense = (0..used).step_by(stride(used, dense));
    dense.chain((used..len).step_by(stride(len - used, sparse))).collect()
}

fn mode_of(position: usize) -> ReadMode {
    if position.is_multiple_of(2) { ReadMode::Mmap } else { ReadMode::Pread }
}

/// What is right when the bytes of this file from `offset` on are damaged, and nothing behind the file's part in use
/// is missing.
fn right_for(subject: &Subject, path: &Path, offset: u64) -> Right {
    let mut right = Right::all(subject, &[path]);
    match subject.role(path) {
        // Healed from the other copy, without a word.
        Role::Manifest | Role::Lock => right.named.clear(),
        Role::LastSegment => {
            right.least = subject.proven.max(subject.commits_before(path, offset).0);
        }
        Role::Table | Role::Segment | Role::Prepared => {}
    }
    right
}

/// What is right when this much is left of a file.
fn right_for_cut(subject: &Subject, path: &Path, bytes: &[u8], len: usize) -> Right {
    let mut right = right_for(subject, path, len as u64);
    if subject.role(path) == Role::LastSegment {
        // What a cut takes, it takes with its proofs. Only a record cut in two shows: a log cut where a record ends
        // is one that ended there, byte for byte, unless its length is known.
        (right.least, right.most) = subject.commits_before(path, len as u64);
        let whole = record_ends(bytes).take_while(|end| *end <= len).last().unwrap_or(len);
        right.reported = used_len(&bytes[whole..len]) > 0;
    }
    right
}

/// Whether a file with this much left has something in it, and its header tells that it was longer.
fn is_known_cut(subject: &Subject, path: &Path, bytes: &[u8], len: usize) -> bool {
    let is_begun = used_len(&bytes[..len]) > HEADER_BYTES;
    subject.role(path) == Role::LastSegment && subject.reserves && is_begun
}

/// Nothing that remains knows of the last segment: see "What is not promised" in docs/durability.md.
fn missing_segment(subject: &Subject, path: &Path) -> Right {
    let (before, _) = subject.commits_before(path, 0);
    Right { least: before, most: before, reported: false, ..Right::all(subject, &[path]) }
}

/// After damage to one copy of the manifest both are sound: the other one can go.
fn check_healed(subject: &Subject, fs: &MemFs, path: &Path) -> Result<(), String> {
    let other = if path.ends_with("MANIFEST-A") { "MANIFEST-B" } else { "MANIFEST-A" };
    let fs = Arc::new(fs.crash_clone(1, esker::env::CrashMode::ProcessKill));
    fs.remove_file(&path.with_file_name(other)).expect("there");
    let right = Right::all(subject, &[]);
    check(subject, fs, ReadMode::Mmap, false, &right, |_| Ok(()))
        .map_err(|what| format!("the copy was not healed: {what}"))
}

/// A table is read whole by `verify`, which misses nothing.
fn check_found(role: Role, answers: &Result<Answers, esker::Error>) -> Result<(), String> {
    match (role, answers) {
        (Role::Table, Ok(answers)) if answers.verify.is_ok() => Err("verify found nothing".to_string()),
        _ => Ok(()),
    }
}

fn flip_every_byte(kind: Kind) {
    let subject = Subject::new(kind, 7);
    let mut report = Report::default();
    for (path, bytes) in subject.files() {
        let (role, used) = (subject.role(&path), used_len(&bytes));
        for position in positions(kind, used, bytes.len()) {
            for mask in [0xff, 1 << (position % 8)] {
                let fs = subject.copy();
                fs.flip(&path, position as u64, mask).expect("there");
                let right = right_for(&subject, &path, position as u64);
                let compact = position.is_multiple_of(4) && mask == 0xff;
                let outcome = check(&subject, fs.clone(), mode_of(position), compact, &right, |answers| {
                    if role == Role::Manifest && position < used {
                        check_healed(&subject, &fs, &path)?;
                    }
                    check_found(role, answers)
                });
                let case = || format!("{} {} byte {position} ^ {mask:#x}", subject.name, path.display());
                report.add(case, outcome);
            }
        }
    }
    report.end();
}

fn cut_at_every_length(kind: Kind) {
    let subject = Subject::new(kind, 7);
    let mut report = Report::default();
    for (path, bytes) in subject.files() {
        let (role, used) = (subject.role(&path), used_len(&bytes));
        let mut lens = positions(kind, used, bytes.len());
        if role == Role::LastSegment {
            lens.extend(record_ends(&bytes).filter(|len| *len < bytes.len()));
        }
        for len in lens {
            let fs = subject.copy();
            fs.truncate(&path, len as u64).expect("there");
            let right = right_for_cut(&subject, &path, &bytes, len);
            let outcome =
                check(&subject, fs.clone(), mode_of(len), len.is_multiple_of(4), &right, |answers| {
                    if role == Role::Manifest && len < used {
                        check_healed(&subject, &fs, &path)?;
                    }
                    if is_known_cut(&subject, &path, &bytes, len) && answers.is_ok() {
                        return Err("a cut log was taken for a whole one".to_string());
                    }
                    check_found(role, answers)
                });
            report
                .add(|| format!("{} {} cut to {len} of {used} bytes", subject.name, path.display()), outcome);
        }
    }
    report.end();
}

#[test]
fn flipped_bytes_of_a_closed_database() {
    flip_every_byte(Kind::Clean);
}

#[test]
fn flipped_bytes_of_an_unclean_database() {
    flip_every_byte(Kind::Unproven);
}

#[test]
fn flipped_bytes_of_an_unclean_database_that_was_idle() {
    flip_every_byte(Kind::Proven);
}

#[test]
fn flipped_bytes_of_records_over_several_blocks() {
    flip_every_byte(Kind::Wide);
}

#[test]
fn files_cut_at_every_length() {
    for kind in Kind::ALL {
        cut_at_every_length(kind);
    }
}

#[test]
fn every_file_missing() {
    let mut report = Report::default();
    for kind in Kind::ALL {
        let subject = Subject::new(kind, 7);
        for (path, _) in subject.files() {
            let fs = subject.copy();
            fs.remove_file(&path).expect("there");
            let mut right = right_for(&subject, &path, 0);
            if subject.role(&path) == Role::LastSegment {
                right = missing_segment(&subject, &path);
            }
            let outcome = check(&subject, fs, ReadMode::Mmap, true, &right, |answers| {
                check_found(subject.role(&path), answers)
            });
            report.add(|| format!("{} without {}", subject.name, path.display()), outcome);
        }
    }
    report.end();
}

#[test]
fn every_two_files_swapped() {
    let mut report = Report::default();
    for kind in Kind::ALL {
        let subject = Subject::new(kind, 7);
        let files = subject.files();
        for (nth, (one, one_bytes)) in files.iter().enumerate() {
            for (other, other_bytes) in &files[nth + 1..] {
                let fs = with_file(&subject, one, other_bytes);
                fs.write_file(other, one_bytes).expect("replace");
                let mut right = Right::all(&subject, &[one, other]);
                if [one, other].map(|path| subject.role(path)) == [Role::LastSegment, Role::Lock] {
                    // An empty segment is one that was never written.
                    right = missing_segment(&subject, one);
                }
                let outcome = check(&subject, fs, ReadMode::Pread, true, &right, |_| Ok(()));
                let case = || format!("{}: {} and {} swapped", subject.name, one.display(), other.display());
                report.add(case, outcome);
            }
        }
    }
    report.end();
}

#[test]
fn a_file_as_it_was_earlier() {
    let mut report = Report::default();
    for kind in Kind::ALL {
        let subject = Subject::new(kind, 7);
        let mut seen = BTreeSet::new();
        for (commits, files) in &subject.stale {
            for (path, bytes) in files {
                let now = subject.fs.read_file(path).ok();
                if now.as_ref() == Some(bytes) || !seen.insert((path, bytes)) {
                    continue;
                }
                let fs = with_file(&subject, path, bytes);
                let mut right = right_for(&subject, path, 0);
                if subject.role(path) == Role::LastSegment {
                    // As if what came later had never been written.
                    let shown = (*commits).max(subject.commits_before(path, 0).0);
                    (right.least, right.most, right.reported) = (shown, shown, false);
                } else if now.is_none() {
                    // A removed file that came back: an orphan, or a segment from before the log that is needed.
                    right = Right::all(&subject, &[path]);
                }
                let outcome = check(&subject, fs, ReadMode::Mmap, true, &right, |_| Ok(()));
                report
                    .add(|| format!("{}: {} after {commits} commits", subject.name, path.display()), outcome);
            }
        }
    }
    report.end();
}

#[test]
fn a_file_of_another_database() {
    let mut report = Report::default();
    for kind in Kind::ALL {
        let (subject, other) = (Subject::new(kind, 7), Subject::new(kind, 8));
        for (path, bytes) in other.files() {
            let fs = with_file(&subject, &path, &bytes);
            // Two sound copies of the manifest that are of different databases: nobody can say which one is right.
            let copies = ["MANIFEST-A", "MANIFEST-B"].map(|name| path.with_file_name(name));
            let named: Vec<&Path> = match subject.role(&path) {
                Role::Manifest => copies.iter().map(PathBuf::as_path).collect(),
                _ => vec![&path],
            };
            let right = Right::all(&subject, &named);
            let outcome = check(&subject, fs, ReadMode::Mmap, true, &right, |answers| match answers {
                Ok(_) if subject.role(&path) != Role::Table => match subject.role(&path) {
                    Role::Prepared | Role::Lock => Ok(()),
                    _ => Err("taken for its own".to_string()),
                },
                answers => check_found(subject.role(&path), answers),
            });
            report.add(|| format!("{}: {} of another database", subject.name, path.display()), outcome);
        }
    }
    report.end();
}

/// Every operation that reads fails, one at a time, and from there on.
#[test]
fn a_failed_read_is_never_taken_for_absence() {
    let mut report = Report::default();
    for kind in [Kind::Clean, Kind::Unproven] {
        let subject = Subject::new(kind, 7);
        for (mode, lasting) in [
            (ReadMode::Mmap, false),
            (ReadMode::Pread, false),
            (ReadMode::Mmap, true),
            (ReadMode::Pread, true),
        ] {
            for nth in 1.. {
                let disk = subject.copy();
                let fs = Arc::new(FaultFs::new(disk.clone()));
                let when = if lasting { When::From(nth) } else { When::Nth(nth) };
                fs.add(FaultRule::new(OpSet::reads(), Fault::Errno(5)).when(when));
                let mut right = Right::all(&subject, &[Path::new(subject::DIR)]);
                right.kind = ErrorKind::Io;
                let outcome = check(&subject, fs.clone(), mode, nth.is_multiple_of(3), &right, |_| {
                    // The disk recovers, and so does the database.
                    let right = Right::all(&subject, &[]);
                    check(&subject, disk, mode, false, &right, |_| Ok(()))
                        .map_err(|what| format!("afterwards: {what}"))
                });
                report.add(|| format!("{} {mode:?} read {nth}, lasting {lasting}", subject.name), outcome);
                if fs.faults() == 0 {
                    break;
                }
            }
        }
    }
    report.end();
}

/// A device that returns wrong bits now and then, without an error.
#[test]
fn a_read_with_a_wrong_bit_is_found() {
    let mut report = Report::default();
    for kind in [Kind::Clean, Kind::Unproven] {
        let subject = Subject::new(kind, 7);
        for mode in [ReadMode::Mmap, ReadMode::Pread] {
            for nth in 1.. {
                let fs = Arc::new(FaultFs::new(subject.copy()));
                let reads = OpSet::from([Op::Read, Op::MapRead]);
                fs.add(FaultRule::new(reads, Fault::BitFlip).when(When::Nth(nth)));
                let mut right = Right::all(&subject, &[Path::new(subject::DIR)]);
                right.least = subject.proven;
                let outcome = check(&subject, fs.clone(), mode, nth.is_multiple_of(3), &right, |_| Ok(()));
                report.add(|| format!("{} {mode:?} wrong bit in read {nth}", subject.name), outcome);
                if fs.faults() == 0 {
                    break;
                }
            }
        }
    }
    report.end();
}

/// The ends of records as they are parsed are those that were seen when each commit had been appended.
fn check_record_ends(subject: &Subject) {
    for (path, bytes) in subject.files() {
        let role = subject.role(&path);
        if !matches!(role, Role::Segment | Role::LastSegment) {
            continue;
        }
        let ends: BTreeSet<usize> = record_ends(&bytes).collect();
        for commit in subject.logged.iter().filter(|commit| commit.segment == path) {
            // A record of several fragments may end in zeros, which could not be seen then.
            let end = commit.end as usize;
            assert!(ends.range(end..=end + subject.zeros_max as usize).count() == 1, "{commit:?}: {ends:?}");
        }
        let last = *ends.last().expect("the header's");
        assert!(last >= used_len(&bytes) && last <= bytes.len(), "{}: {ends:?}", subject.name);
        let has_tail = subject.reserves && role == Role::LastSegment;
        assert_eq!(last < bytes.len(), has_tail, "{}: {ends:?}", subject.name);
    }
}

/// What the subjects are made of, so that no kind of damage is tested on nothing.
#[test]
fn the_subjects_have_everything_that_can_be_damaged() {
    for kind in Kind::ALL {
        let subject = Subject::new(kind, 7);
        check_record_ends(&subject);
        let count = |role| subject.files().iter().filter(|(path, _)| subject.role(path) == role).count();
        assert_eq!(count(Role::Manifest), 2, "{}", subject.name);
        assert!(count(Role::Table) >= 5, "{}: {:?}", subject.name, subject.fs);
        let (segments, last) = match kind {
            Kind::Clean => (0, 0),
            Kind::Wide => (0, 1),
            _ => (2, 1),
        };
        assert!(count(Role::Segment) >= segments, "{}: {:?}", subject.name, subject.fs);
        assert_eq!(count(Role::LastSegment), last, "{}: {:?}", subject.name, subject.fs);
        let unproven = subject.logged.len() - subject.proven;
        assert_eq!(
            unproven,
            if matches!(kind, Kind::Unproven | Kind::Unreserved | Kind::Wide) { 3 } else { 0 }
        );
        let env = Env::simulated(subject.copy(), 3);
        let db = subject::options(&env, ReadMode::Mmap).open(subject::DIR).expect("open");
        let stats = db.stats();
        for keyspace in &stats.keyspaces {
            assert!(keyspace.levels.len() >= 2, "{}: {stats}", subject.name);
        }
    }
}
