//! Every operation of the disk fails, once or from then on, in each way it can, in a session of the log that does all
//! it can do. Whatever fails, and whether the process dies or the power goes right after that or at the end: the next
//! open refuses nothing, finds every commit that was promised, and none that was refused.

use super::*;
use crate::env::{CrashMode, Fault, FaultFs, FaultRule, MemFs, Op, When};
use std::io::ErrorKind::Other;
use std::sync::Arc;

/// An attempt to commit, by its number; a refused one gives its sequence number to the next.
type Attempt = u64;

/// A log on a disk that fails, and what was said of each commit.
struct Session {
    disk: Arc<MemFs>,
    faults: Arc<FaultFs>,
    env: Env,
    log: Log,
    /// Commits that may be there, in order: all but the refused.
    commits: Vec<(SeqNo, Attempt)>,
    /// How many of them were acknowledged.
    acknowledged: usize,
    /// How many of them are safe from a power cut.
    durable: usize,
    attempts: Attempt,
    what: String,
}

impl Session {
    fn new(rule: &FaultRule) -> Session {
        let disk = Arc::new(MemFs::new());
        disk.write_file(&dir().join("LOCK"), b"").unwrap();
        let faults = Arc::new(FaultFs::new(disk.clone()));
        let env = Env::simulated(faults.clone(), 1);
        let log = Log::new(&env, dir(), DB, OPTIONS, LogStart { next: 1, ..LogStart::default() });
        faults.add(rule.clone());
        Session {
            disk,
            faults,
            env,
            log,
            commits: Vec::new(),
            acknowledged: 0,
            durable: 0,
            attempts: 0,
            what: format!("{rule:?}"),
        }
    }

    /// All that a log does, until it does nothing any more.
    fn work(&mut self) {
        let mut has_failed = false;
        for n in 0..16 {
            let goes_on = self.step(n);
            let fails_now = self.faults.faults() > 0;
            if fails_now && !has_failed {
                self.check_crashes("after the failure");
            }
            has_failed = fails_now;
            if !goes_on {
                break;
            }
        }
        let closed = self.log.close();
        if closed.is_ok() {
            self.durable = self.commits.len();
        }
        self.check_crashes("after the close");
    }

    /// False when nothing can be logged any more.
    fn step(&mut self, n: usize) -> bool {
        let appended = self.append([100, 900, 2500, 30, 6000][n % 5]);
        let also = match n {
            2 | 7 => self.sync(),
            3 | 10 => self.prepare(),
            8 => self.log.write_proof().and_then(|_| self.sync()),
            12 => {
                self.log.seal();
                Ok(())
            }
            _ => Ok(()),
        };
        let is_final = |result: Result<()>| {
            result.is_err_and(|error| matches!(error.kind(), ErrorKind::Poisoned | ErrorKind::OutcomeUnknown))
        };
        !is_final(appended) && !is_final(also)
    }

    fn append(&mut self, bytes: usize) -> Result<()> {
        self.attempts += 1;
        let seq = self.commits.last().map_or(1, |(seq, _)| seq + 1);
        let mut batch = BatchBuilder::new();
        let value = [self.attempts.to_be_bytes().to_vec(), vec![7; bytes]].concat();
        batch.put(KeyspaceId::DEFAULT, &seq.to_be_bytes(), &value).unwrap();
        let result = self.log.append(RecordKind::Batch, seq, 1, batch.bytes());
        match &result {
            Ok(_) => {
                self.commits.push((seq, self.attempts));
                self.acknowledged = self.commits.len();
            }
            Err(error) if error.kind() == ErrorKind::OutcomeUnknown => {
                self.commits.push((seq, self.attempts));
            }
            Err(_) => {}
        }
        result.map(|_| ())
    }

    fn sync(&mut self) -> Result<()> {
        if let Some(segment) = self.log.active() {
            let claimed = segment.sync()?;
            self.durable = self.commits.partition_point(|(seq, _)| *seq <= claimed);
        }
        Ok(())
    }

    fn prepare(&mut self) -> Result<()> {
        if let Some(number) = self.log.wants_prepared() {
            self.log.offer_prepared(prepare(&self.env, dir(), DB, number, &OPTIONS)?);
        }
        Ok(())
    }

    fn check_crashes(&self, when: &str) {
        for mode in CrashMode::ALL {
            let seeds = if matches!(mode, CrashMode::ProcessKill | CrashMode::SyncedOnly) { 1 } else { 3 };
            for seed in 0..seeds {
                let what = format!("{} {when} {mode:?} {seed}", self.what);
                let least = if mode == CrashMode::ProcessKill { self.acknowledged } else { self.durable };
                self.check_open(Arc::new(self.disk.crash_clone(seed, mode)), least, &what);
            }
        }
    }

    /// The next open finds what it has to, and so does the one after it.
    fn check_open(&self, disk: Arc<MemFs>, least: usize, what: &str) {
        let env = Env::simulated(disk, 1);
        let open = |env: &Env| {
            sync_segments(env, dir(), 1).unwrap();
            replay(env, dir(), DB, 1, None).unwrap_or_else(|error| panic!("{what}: {error}"))
        };
        let found = open(&env);
        let commits = attempts(&found);
        assert!(commits.len() >= least, "{what}: {commits:?}, {least} of {:?} expected", self.commits);
        assert!(self.commits.starts_with(&commits), "{what}: {commits:?} of {:?}", self.commits);

        let mut log = Log::new(&env, dir(), DB, OPTIONS, found.start);
        log.append(RecordKind::Batch, found.last_seq + 1, 1, &payload(found.last_seq + 1, 1, 100)).unwrap();
        log.close().unwrap();
        let again = open(&env);
        assert_eq!(attempts(&again)[..commits.len()], commits, "{what}: the next time");
        assert_eq!(again.last_seq, found.last_seq + 1, "{what}: the next time");
    }
}

/// What is in the log, in order: sequence numbers and which attempts they are of.
fn attempts(replay: &Replay) -> Vec<(SeqNo, Attempt)> {
    let batches = replay.segments.iter().flat_map(|segment| &segment.batches.batches);
    let attempt = |batch: &KeptBatch| {
        let op = ops(&batch.payload).unwrap().next().unwrap().unwrap();
        (batch.first_seq, u64::from_be_bytes(op.value[..8].try_into().unwrap()))
    };
    batches.map(attempt).collect()
}

/// How an operation fails.
fn faults_of(op: Op) -> Vec<Fault> {
    let (error, full, after) = (Fault::Errno(5), Fault::Errno(28), Fault::ErrorAfter(Other));
    match op {
        Op::Create | Op::Preallocate => vec![error, full, after],
        Op::Append => {
            let short = |bytes| Fault::ShortWrite { bytes, kind: Other };
            vec![error, full, after, Fault::Poison, short(1), short(50), short(3000)]
        }
        Op::Sync | Op::Finish | Op::SyncDir | Op::Remove => vec![error, after],
        _ => Vec::new(),
    }
}

#[test]
fn whatever_fails_the_log_can_be_read_and_says_what_was_said() {
    let mut runs = 0;
    for op in Op::ALL {
        for fault in faults_of(*op) {
            for for_good in [false, true] {
                for n in 1.. {
                    let when = if for_good { When::From(n) } else { When::Nth(n) };
                    let mut session = Session::new(&FaultRule::new(*op, fault).when(when));
                    session.work();
                    if session.faults.faults() == 0 {
                        break;
                    }
                    runs += 1;
                }
            }
        }
    }
    println!("{runs} runs with a fault");
    assert!(runs > 300, "{runs}");
}

/// A record that ends in zeros is whole as soon as the rest is there, for the reserved tail is zeros: of one that a full
/// disk cut short there, either a new segment says that it does not count, or nobody promises anything.
#[test]
fn a_commit_refused_for_want_of_space_does_not_come_back() {
    for bytes in [60, 100, 500] {
        for is_full_for_good in [false, true] {
            let disk = Arc::new(MemFs::new());
            disk.write_file(&dir().join("LOCK"), b"").unwrap();
            let faults = Arc::new(FaultFs::new(disk.clone()));
            let env = Env::simulated(faults.clone(), 1);
            let mut log = Log::new(&env, dir(), DB, OPTIONS, LogStart { next: 1, ..LogStart::default() });
            log.append(RecordKind::Batch, 1, 1, &payload(1, 1, 10)).unwrap();
            log.active().unwrap().sync().unwrap();
            let mut batch = BatchBuilder::new();
            batch.put(KeyspaceId::DEFAULT, b"k", &[0; 900]).unwrap();
            let fault = Fault::ShortWrite { bytes, kind: std::io::ErrorKind::StorageFull };
            faults.add(FaultRule::new(Op::Append, fault).when(When::Nth(1)));
            if is_full_for_good {
                faults.add(FaultRule::new(Op::Create, Fault::Errno(28)));
            }
            let error = log.append(RecordKind::Batch, 2, 1, batch.bytes()).unwrap_err();
            let expected = if is_full_for_good { ErrorKind::OutcomeUnknown } else { ErrorKind::NoSpace };
            assert_eq!(error.kind(), expected, "cut after {bytes} bytes: {error}");
            let env = Env::simulated(Arc::new(disk.crash_clone(1, CrashMode::ProcessKill)), 1);
            let found = replay(&env, dir(), DB, 1, None).unwrap();
            assert!(found.last_seq == 1 || is_full_for_good, "cut after {bytes} bytes");
        }
    }
}
