//! Registered readers: which sequence numbers somebody still reads at, and what of the past is kept for those to come.
//!
//! A reader registers under the lock that flush and compaction take to sample the registry, and takes its sequence
//! number inside it. So either the sample contains the reader, or the reader's number is at or above the *floor* that
//! was sampled with it: the drop rules keep every version above the floor and what a reader at the floor sees. Without
//! retention the floor is what is visible at that moment, with it the state at the start of the window.
//!
//! **Readers that are given up.** Readers that are too old can be given up, all that started before a moment at once:
//! one number, the *mark*. It rises under the lock before a sample leaves them out. A reader checks the mark after it
//! has read data and before it answers. Had that data lacked a version, the view that it came from would be installed
//! after the mark rose, and loading the view makes the risen mark visible.

use super::history::History;
use super::options::SnapshotAgePolicy;
use super::pins::{Pin, PinKind};
use super::pipeline::Pipeline;
use super::readers::{Reader, Readers};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::sync::{Mutex, Rank};
use crate::base::types::SeqNo;
use crate::env::Clock;
use crate::manifest::Moment;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What is kept for readers, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keeping {
    /// Age at which a reader is too old, and what becomes of it then.
    pub(crate) max_age: Option<(Duration, SnapshotAgePolicy)>,
    /// How long old versions are kept without a reader.
    pub(crate) retention: Option<Duration>,
}

/// The registered readers of a database.
pub(crate) struct Registry {
    clock: Arc<dyn Clock>,
    keeping: Keeping,
    /// Sequence number visible at the open.
    opened_at: SeqNo,
    /// Readers that started before this are given up; nanoseconds of the clock.
    mark: AtomicU64,
    /// When to look for readers that are too old, in nanoseconds of the clock; 0: there is none to look for.
    due: AtomicU64,
    held: Mutex<Held>,
}

/// What the lock guards.
struct Held {
    readers: Readers,
    /// At every sequence number from here on, all is there that a reader sees.
    floor: SeqNo,
    /// Empty without retention.
    history: History,
}

/// What a flush or a compaction has to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sample {
    /// The sequence numbers that are read at, ascending and each once.
    pub(crate) snapshots: Vec<SeqNo>,
    /// Versions above it all stay, and what a reader at it sees.
    pub(crate) floor: SeqNo,
}

impl Sample {
    /// What a reader at or below this sees is one state: versions hidden there are hidden from everybody.
    pub(crate) fn oldest(&self) -> SeqNo {
        self.snapshots.first().map_or(self.floor, |first| self.floor.min(*first))
    }
}

impl Registry {
    /// Nobody reads. `floor` and `moments` are what the last session left behind, `visible` is the last commit.
    pub(crate) fn new(
        clock: Arc<dyn Clock>,
        keeping: Keeping,
        visible: SeqNo,
        floor: Option<SeqNo>,
        moments: &[Moment],
    ) -> Registry {
        let mut history = History::new(keeping.retention.unwrap_or_default(), moments);
        if keeping.retention.is_some() {
            history.note(clock.unix_micros(), visible);
        }
        let held = Held { readers: Readers::new(), floor: floor.unwrap_or(visible).min(visible), history };
        Registry {
            clock,
            keeping,
            opened_at: visible,
            mark: AtomicU64::new(0),
            due: AtomicU64::new(0),
            held: Mutex::new(Rank::Snapshots, held),
        }
    }

    /// Sequence number visible at the open.
    pub(crate) fn opened_at(&self) -> SeqNo {
        self.opened_at
    }

    /// Registers a reader of what is visible now, whose age counts from `started`.
    pub(crate) fn register(
        self: &Arc<Self>,
        pipeline: &Pipeline,
        kind: PinKind,
        label: Option<Arc<str>>,
        started: Duration,
    ) -> Registration {
        let mut held = self.held.lock();
        let seq = pipeline.visible();
        self.add(&mut held, Reader::new(seq, kind, label, nanos(started)))
    }

    fn add(self: &Arc<Self>, held: &mut Held, reader: Reader) -> Registration {
        let (seq, started) = (reader.seq, reader.started);
        let index = held.readers.insert(reader);
        Registration { registry: Arc::clone(self), seq, index, started }
    }

    /// Registers a reader of a state of the past.
    ///
    /// # Errors
    /// `InvalidArgument` above what is visible; `SnapshotTooOld` when versions may be gone.
    pub(crate) fn register_at(self: &Arc<Self>, pipeline: &Pipeline, seq: SeqNo) -> Result<Registration> {
        let mut held = self.held.lock();
        let visible = pipeline.visible();
        if seq > visible {
            let message = format!("sequence number {seq} is above the latest, {visible}");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        if !self.is_readable(&mut held, visible, seq) {
            return Err(self.too_far_back(&held, visible, &format!("sequence number {seq}")));
        }
        Ok(self.add(&mut held, Reader::new(seq, PinKind::Snapshot, None, self.now())))
    }

    /// Registers a reader of the state at a time, in microseconds since the Unix epoch.
    ///
    /// # Errors
    /// `SnapshotTooOld` when versions may be gone.
    pub(crate) fn register_at_time(
        self: &Arc<Self>,
        pipeline: &Pipeline,
        at_micros: u64,
    ) -> Result<Registration> {
        let mut held = self.held.lock();
        let visible = pipeline.visible();
        let seq = if at_micros >= self.clock.unix_micros() {
            Some(visible)
        } else {
            held.history.at(at_micros).map(|moment| moment.seq.min(visible))
        };
        match seq.filter(|seq| self.is_readable(&mut held, visible, *seq)) {
            Some(seq) => Ok(self.add(&mut held, Reader::new(seq, PinKind::Snapshot, None, self.now()))),
            None => Err(self.too_far_back(&held, visible, &format!("time {}", Seconds(at_micros)))),
        }
    }

    /// Whether a new reader at this sequence number sees all it should: it is in the window, or somebody reads there.
    fn is_readable(&self, held: &mut Held, visible: SeqNo, seq: SeqNo) -> bool {
        let mark = self.mark.load(Ordering::Acquire);
        let is_read = held.readers.iter().any(|reader| reader.seq == seq && reader.started >= mark);
        seq == visible || is_read || seq >= self.floor_of(held, visible)
    }

    fn too_far_back(&self, held: &Held, visible: SeqNo, asked: &str) -> Error {
        let message = match self.keeping.retention {
            None => format!("{asked}: without retention only the latest state can be read, {visible}"),
            Some(_) => {
                let oldest = held.floor.max(held.history.floor()).min(visible);
                let since = held
                    .history
                    .first_from(oldest)
                    .map_or_else(String::new, |moment| format!(", of time {}", Seconds(moment.at_micros)));
                format!(
                    "{asked} is before what retention keeps: the oldest readable is sequence number {oldest}{since}"
                )
            }
        };
        Error::new(ErrorKind::SnapshotTooOld, message)
    }

    /// Where the floor would be now. Versions at and above it are there; it never falls.
    fn floor_of(&self, held: &mut Held, visible: SeqNo) -> SeqNo {
        if self.keeping.retention.is_none() {
            return visible;
        }
        held.history.forget(self.clock.unix_micros());
        held.floor.max(held.history.floor()).min(visible)
    }

    /// What has to be kept, for something that is about to drop the rest.
    pub(crate) fn sample(&self, pipeline: &Pipeline) -> Sample {
        let now = self.now();
        let mut held = self.held.lock();
        self.give_up_locked(&held, now);
        let floor = self.floor_of(&mut held, pipeline.visible());
        held.floor = held.floor.max(floor);
        Sample { snapshots: self.snapshots(&held), floor }
    }

    /// What would have to be kept; for choosing what to do.
    pub(crate) fn peek(&self, pipeline: &Pipeline) -> Sample {
        let mut held = self.held.lock();
        let floor = self.floor_of(&mut held, pipeline.visible());
        Sample { snapshots: self.snapshots(&held), floor }
    }

    fn snapshots(&self, held: &Held) -> Vec<SeqNo> {
        let mark = self.mark.load(Ordering::Acquire);
        let kept = held.readers.iter().filter(|reader| reader.started >= mark);
        let mut snapshots: Vec<_> = kept.map(|reader| reader.seq).collect();
        snapshots.dedup();
        snapshots
    }

    /// Number of registered readers and the oldest sequence number among them.
    pub(crate) fn summary(&self) -> (usize, Option<SeqNo>) {
        let (held, mark) = (self.held.lock(), self.mark.load(Ordering::Acquire));
        let mut kept = held.readers.iter().filter(|reader| reader.started >= mark);
        let oldest = kept.next().map(|reader| reader.seq);
        (kept.count().saturating_add(usize::from(oldest.is_some())), oldest)
    }

    /// Registered readers, oldest sequence number first; what they hold back is not filled in.
    pub(crate) fn pins(&self) -> Vec<Pin> {
        let now = self.now();
        let (held, mark) = (self.held.lock(), self.mark.load(Ordering::Acquire));
        let kept = held.readers.iter().filter(|reader| reader.started >= mark);
        let mut pins: Vec<_> = kept.map(|reader| reader.pin(now)).collect();
        pins.sort_by(|a, b| a.seq.cmp(&b.seq).then(b.age.cmp(&a.age)));
        pins
    }

    // Age.

    #[inline]
    fn now(&self) -> u64 {
        nanos(self.clock.now())
    }

    fn gives_up(&self) -> Option<Duration> {
        match self.keeping.max_age {
            Some((age, SnapshotAgePolicy::Fail)) => Some(age),
            _ => None,
        }
    }

    /// Gives up the readers that are too old, if that is the policy.
    fn give_up_locked(&self, _: &Held, now: u64) {
        if let Some(age) = self.gives_up() {
            let last = now.checked_sub(nanos(age));
            let mark = last.map_or(0, |last| last.saturating_add(1));
            self.mark.fetch_max(mark, Ordering::AcqRel);
        }
    }

    /// After a registration: when the next look for old readers is due, if none is planned and one is wanted.
    #[inline]
    pub(crate) fn plan_look(&self) -> bool {
        let Some((age, _)) = self.keeping.max_age else { return false };
        if self.due.load(Ordering::Acquire) != 0 {
            return false;
        }
        let at = self.now().saturating_add(nanos(age)).max(1);
        self.due.compare_exchange(0, at, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// When to look for old readers.
    pub(crate) fn due(&self) -> Option<Duration> {
        match self.due.load(Ordering::Acquire) {
            0 => None,
            at => Some(Duration::from_nanos(at)),
        }
    }

    /// Gives up readers that are too old, if that is the policy; answers those that were not reported before.
    pub(crate) fn look(&self) -> Vec<Pin> {
        let Some((age, _)) = self.keeping.max_age else { return Vec::new() };
        let (now, age) = (self.now(), nanos(age));
        let mut held = self.held.lock();
        self.give_up_locked(&held, now);
        let (mut old, mut next) = (Vec::new(), 0);
        for reader in held.readers.iter_mut().filter(|reader| !reader.reported) {
            let at = reader.started.saturating_add(age).max(1);
            if at <= now {
                reader.reported = true;
                old.push(reader.pin(now));
            } else if next == 0 || at < next {
                next = at;
            }
        }
        // Under the lock: whoever registers later finds it at 0 and plans for itself.
        self.due.store(next, Ordering::Release);
        old.sort_by(|a: &Pin, b| a.seq.cmp(&b.seq).then(b.age.cmp(&a.age)));
        old
    }

    // Time.

    /// After a commit was published.
    #[inline]
    pub(crate) fn committed(&self, seq: SeqNo) {
        if self.keeping.retention.is_some() {
            let at_micros = self.clock.unix_micros();
            self.held.lock().history.note(at_micros, seq);
        }
    }

    /// What was noted after this moment, and the span in which moments take each other's place.
    pub(crate) fn moments_after(&self, last: Option<Moment>) -> (Vec<Moment>, u64) {
        if self.keeping.retention.is_none() {
            return (Vec::new(), 0);
        }
        let held = self.held.lock();
        (held.history.after(last).collect(), held.history.span_micros())
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("keeping", &self.keeping).finish_non_exhaustive()
    }
}

impl Reader {
    fn pin(&self, now: u64) -> Pin {
        Pin {
            kind: self.kind,
            label: self.label.as_deref().map(str::to_string),
            age: Duration::from_nanos(now.saturating_sub(self.started)),
            seq: self.seq,
            bytes: 0,
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Microseconds since the Unix epoch, shown as seconds.
struct Seconds(u64);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// A reader's registration; ends when dropped. While it lasts and is not given up, everything is kept that a reader
/// at its sequence number sees.
#[derive(Debug)]
pub(crate) struct Registration {
    registry: Arc<Registry>,
    seq: SeqNo,
    index: usize,
    started: u64,
}

impl Registration {
    /// What the reader sees: every commit up to here.
    #[inline]
    pub(crate) fn seq(&self) -> SeqNo {
        self.seq
    }

    /// A second reader of the same state, of another kind, as old as this one.
    pub(crate) fn fork(&self, kind: PinKind) -> Registration {
        self.copy(Some(kind))
    }

    fn copy(&self, kind: Option<PinKind>) -> Registration {
        let registry = &self.registry;
        let mut held = registry.held.lock();
        let own = held.readers.get(self.index);
        let label = own.and_then(|own| own.label.clone());
        let kind = kind.or(own.map(|own| own.kind)).unwrap_or(PinKind::Snapshot);
        let reader = Reader::new(self.seq, kind, label, self.started);
        registry.add(&mut held, reader)
    }

    /// Whether what was read since the registration can be answered. To be asked after the data was read and before it
    /// is used. Looks at the clock where readers are given up by age.
    ///
    /// # Errors
    /// `SnapshotTooOld`, and ever after.
    #[inline]
    pub(crate) fn check(&self) -> Result<()> {
        match self.registry.gives_up() {
            None => Ok(()),
            Some(_) => self.check_age(),
        }
    }

    #[cold]
    fn check_age(&self) -> Result<()> {
        self.check_mark()?;
        let now = self.registry.now();
        let age = self.registry.gives_up().map_or(u64::MAX, nanos);
        if now.saturating_sub(self.started) >= age {
            let held = self.registry.held.lock();
            self.registry.give_up_locked(&held, now);
        }
        self.check_mark()
    }

    /// [`check`](Registration::check) without a look at the clock: for every step of a cursor.
    ///
    /// # Errors
    /// `SnapshotTooOld`, and ever after.
    #[inline]
    pub(crate) fn check_mark(&self) -> Result<()> {
        if self.started >= self.registry.mark.load(Ordering::Acquire) { Ok(()) } else { Err(self.given_up()) }
    }

    #[cold]
    fn given_up(&self) -> Error {
        let age = self.registry.gives_up().unwrap_or_default();
        let message =
            format!("the reader at sequence number {} is older than max_snapshot_age, {age:?}", self.seq);
        Error::new(ErrorKind::SnapshotTooOld, message)
    }
}

impl Clone for Registration {
    fn clone(&self) -> Self {
        self.copy(None)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let gone = self.registry.held.lock().readers.remove(self.index);
        // Its label is freed outside of the lock.
        drop(gone);
    }
}

#[cfg(test)]
mod tests;
