//! A file system that fails on purpose: a wrapper around any other that counts operations and applies fault rules.
//!
//! Knows nothing of durability. A sync it lets fail never reaches the file system below, so what was to be synced
//! stays pending there; for a sync that fails in the way of a real device see `MemFs::fail_sync_at`.

mod files;
mod rule;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use self::rule::{Fault, FaultRule, Op, OpSet, When};

use self::files::{FaultAppend, FaultRead};
use self::rule::ActiveRule;
use super::{AppendFile, AppendOptions, Clock, DirEntry, FileLock, Fs, ReadFile, SimClock};
use crate::base::random::SplitMix64;
use crate::base::sync::{Mutex, Rank};

/// A wrapper around a file system that counts its operations and lets some of them fail.
///
/// Rules are tried in the order in which they were added. The first that fires decides; latencies add up. The same
/// calls and the same rules give the same faults.
///
/// To visit every place where an operation can fail, run a workload with [`fail_nth`](FaultFs::fail_nth) for
/// n = 1, 2, … until [`faults`](FaultFs::faults) stays 0.
///
/// ```
/// use esker::env::{AppendOptions, FaultFs, Fs, MemFs, Op};
/// use std::path::Path;
/// use std::sync::Arc;
///
/// let fs = FaultFs::new(Arc::new(MemFs::new()));
/// fs.fail_nth(Op::Sync, 2);
/// let file = fs.create(Path::new("/a"), AppendOptions::default())?;
/// assert!(file.sync().is_ok());
/// assert!(file.sync().is_err());
/// assert!(file.sync().is_ok());
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct FaultFs {
    inner: Arc<dyn Fs>,
    plan: Arc<Plan>,
}

impl fmt::Debug for FaultFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultFs").field("state", &*self.plan.state.lock()).finish_non_exhaustive()
    }
}

impl FaultFs {
    /// Wraps a file system. Latencies pass on a clock of its own, that is, at once.
    pub fn new(inner: Arc<dyn Fs>) -> FaultFs {
        FaultFs::with_clock(inner, Arc::new(SimClock::new()))
    }

    /// Wraps a file system; latencies are slept on this clock.
    pub fn with_clock(inner: Arc<dyn Fs>, clock: Arc<dyn Clock>) -> FaultFs {
        let state = Mutex::new(Rank::Device, State::default());
        FaultFs { inner, plan: Arc::new(Plan { clock, state }) }
    }

    /// Adds a rule.
    pub fn add(&self, rule: FaultRule) {
        self.plan.state.lock().rules.push(ActiveRule::new(rule));
    }

    /// Lets the `n`th of these operations from now (1 is the next one) fail, once, with an error of kind `Other`.
    pub fn fail_nth(&self, ops: impl Into<OpSet>, n: u64) {
        self.add(FaultRule::new(ops, Fault::Error(io::ErrorKind::Other)).when(When::Nth(n)));
    }

    /// Lets the `n`th of these operations from now and all later ones fail, until healed.
    pub fn fail_from(&self, ops: impl Into<OpSet>, n: u64) {
        self.add(FaultRule::new(ops, Fault::Error(io::ErrorKind::Other)).when(When::From(n)));
    }

    /// Takes all rules away. Counts stay, and so does the poison of mapped windows.
    pub fn heal(&self) {
        self.plan.state.lock().rules.clear();
    }

    /// Operations so far, failed ones included.
    pub fn operations(&self) -> u64 {
        self.count(OpSet::ALL)
    }

    /// How many of these operations there were so far, failed ones included.
    pub fn count(&self, ops: impl Into<OpSet>) -> u64 {
        let ops = ops.into();
        let state = self.plan.state.lock();
        let counted = Op::ALL.iter().zip(&state.counts).filter(|(op, _)| ops.contains(**op));
        counted.map(|(_, count)| *count).fold(0, u64::saturating_add)
    }

    /// Faults so far, latencies included.
    pub fn faults(&self) -> u64 {
        self.plan.state.lock().faults
    }
}

/// Rules and counts, shared with the open files.
struct Plan {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    rules: Vec<ActiveRule>,
    counts: Vec<u64>,
    faults: u64,
    random: SplitMix64,
}

impl Default for State {
    fn default() -> State {
        State { rules: Vec::new(), counts: vec![0; Op::ALL.len()], faults: 0, random: SplitMix64::new(0) }
    }
}

impl State {
    /// Counts an operation and answers how long it is held up and what befalls it.
    fn meet(&mut self, op: Op, paths: &[&Path]) -> (Duration, Option<Fault>) {
        if let Some(count) = self.counts.get_mut(op as usize) {
            *count = count.saturating_add(1);
        }
        let mut delay = Duration::ZERO;
        let mut decided = None;
        for rule in &mut self.rules {
            // Every rule counts what matches it, also where an earlier rule has decided.
            match rule.check(op, paths) {
                Some(Fault::Latency(more)) => delay = delay.saturating_add(more),
                Some(fault) if decided.is_none() => decided = Some(fault),
                _ => continue,
            }
            self.faults = self.faults.saturating_add(1);
        }
        (delay, decided)
    }
}

fn injected(kind: io::ErrorKind) -> io::Error {
    io::Error::new(kind, "injected fault")
}

impl Plan {
    /// Counts an operation, waits out its latency, and answers what else befalls it.
    fn meet(&self, op: Op, paths: &[&Path]) -> Option<Fault> {
        let (delay, fault) = self.state.lock().meet(op, paths);
        if !delay.is_zero() {
            self.clock.sleep(delay);
        }
        fault
    }

    /// An operation that gives something and so cannot be pretended.
    fn run<T>(&self, op: Op, path: &Path, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        befall(self.meet(op, &[path]), act)
    }

    /// An operation that gives nothing, so that a lying device can pretend it.
    fn run_or_skip(&self, op: Op, paths: &[&Path], act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        match self.meet(op, paths) {
            Some(Fault::Skip) => Ok(()),
            fault => befall(fault, act),
        }
    }

    /// Inverts one bit, the same one in the same run.
    fn flip_bit(&self, bytes: &mut [u8]) {
        let mut state = self.state.lock();
        let bit = state.random.below((bytes.len() as u64).saturating_mul(8));
        if let Some(byte) = bytes.get_mut(usize::try_from(bit / 8).unwrap_or(usize::MAX)) {
            *byte ^= 1u8.wrapping_shl((bit % 8) as u32);
        }
    }
}

fn befall<T>(fault: Option<Fault>, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    match fault {
        Some(Fault::Error(kind)) => Err(injected(kind)),
        Some(Fault::Errno(number)) => Err(io::Error::from_raw_os_error(number)),
        Some(Fault::ErrorAfter(kind)) => act().and(Err(injected(kind))),
        Some(Fault::ShortWrite { .. } | Fault::BitFlip | Fault::Skip | Fault::Poison | Fault::Latency(_))
        | None => act(),
    }
}

impl Fs for FaultFs {
    fn create(&self, path: &Path, options: AppendOptions) -> io::Result<Arc<dyn AppendFile>> {
        let create = |options| -> io::Result<Arc<dyn AppendFile>> {
            let inner = self.plan.run(Op::Create, path, || self.inner.create(path, options))?;
            Ok(Arc::new(FaultAppend::new(inner, self.plan.clone(), path)))
        };
        if options.preallocate == 0 {
            return create(options);
        }
        let fault = self.plan.meet(Op::Preallocate, &[path]);
        // Where reserving fails, the file is there already and stays behind, empty; skipped, it is as on a file system
        // that cannot reserve.
        let reserve = !matches!(fault, Some(Fault::Error(_) | Fault::Errno(_) | Fault::Skip));
        let preallocate = if reserve { options.preallocate } else { 0 };
        let file = create(AppendOptions { preallocate, ..options })?;
        befall(fault, || Ok(file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadFile>> {
        let inner = self.plan.run(Op::Open, path, || self.inner.open(path))?;
        Ok(Arc::new(FaultRead::new(inner, self.plan.clone(), path)))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<PathBuf> {
        self.plan.run(Op::CreateDir, path, || self.inner.create_dir_all(path))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.plan.run(Op::Exists, path, || self.inner.exists(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.plan.run(Op::List, dir, || self.inner.list(dir))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.plan.run_or_skip(Op::Rename, &[from, to], || self.inner.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.plan.run_or_skip(Op::Remove, &[path], || self.inner.remove(path))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.plan.run_or_skip(Op::SyncDir, &[dir], || self.inner.sync_dir(dir))
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        self.plan.run_or_skip(Op::SyncFile, &[path], || self.inner.sync_file(path))
    }

    fn drop_cache(&self, path: &Path) {
        self.inner.drop_cache(path);
    }

    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        self.plan.run(Op::FreeSpace, dir, || self.inner.free_space(dir))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        self.plan.run(Op::Lock, path, || self.inner.lock(path))
    }
}
