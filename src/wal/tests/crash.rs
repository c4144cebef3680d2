//! Random work on a disk that forgets, with power cuts inside any call, also inside recovery: what a sync claimed is
//! there, what is there is a prefix, and what an open has shown stays.

use super::*;
use crate::env::{CrashMode, Env, MemFs};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use std::sync::Arc;

/// A commit: its first sequence number and the segment it is in.
type Commit = (SeqNo, SegmentNo);

/// What must be true of the log, and what stands in for the manifest.
struct Model {
    /// Commits in order, without those whose segments are no longer needed.
    logged: Vec<Commit>,
    /// How many of them a sync has claimed or an open has shown.
    durable: usize,
    /// How many of them were answered with success.
    answered: usize,
    last_seq: SeqNo,
    first_needed: SegmentNo,
}

/// A log on a disk that can lose its power.
struct World {
    disk: Arc<MemFs>,
    env: Env,
    log: Log,
    model: Model,
    random: StdRng,
}

impl World {
    fn new(seed: u64) -> World {
        let (env, disk) = Env::memory(seed);
        disk.write_file(&dir().join("LOCK"), b"").unwrap();
        let log = Log::new(&env, dir(), DB, OPTIONS, LogStart { next: 1, ..LogStart::default() });
        let model = Model { logged: vec![], durable: 0, answered: 0, last_seq: 0, first_needed: 1 };
        World { disk, env, log, model, random: StdRng::seed_from_u64(seed) }
    }

    /// One thing that an engine does. An error is looked at by the caller.
    fn step(&mut self) -> Result<()> {
        match self.random.random_range(0..24) {
            0 => self.log.seal(),
            1 => self.prepare()?,
            2 => drop(self.log.write_proof()?),
            3 => self.append_on_a_full_disk(),
            4..8 => self.sync()?,
            8 => self.flush(),
            _ => self.append()?,
        }
        Ok(())
    }

    fn prepare(&mut self) -> Result<()> {
        if let Some(number) = self.log.wants_prepared() {
            let prepared = prepare(&self.env, dir(), DB, number, &OPTIONS)?;
            if self.random.random_range(0..4) == 0 {
                self.log.seal();
                self.append()?;
            }
            self.log.offer_prepared(prepared);
        }
        Ok(())
    }

    fn append(&mut self) -> Result<()> {
        let first_seq = self.model.last_seq + self.random.random_range(1..4);
        let count = self.random.random_range(1..5);
        let huge = self.random.random_range(0..30) == 0;
        let bytes = if huge { 70_000 } else { self.random.random_range(0..900) };
        let result = self.log.append(RecordKind::Batch, first_seq, count, &payload(first_seq, count, bytes));
        let segment = *result.as_ref().unwrap_or(&SegmentNo::MAX);
        self.model.logged.push((first_seq, segment));
        result?;
        self.model.answered = self.model.logged.len();
        self.model.last_seq = first_seq + u64::from(count) - 1;
        Ok(())
    }

    /// A commit that is refused and must never be seen, whatever part of it was written.
    fn append_on_a_full_disk(&mut self) {
        let first_seq = self.model.last_seq + 1;
        let bytes = self.random.random_range(3000..9000);
        let spare = self.random.random_range(0..bytes as u64);
        self.disk.set_capacity(Some(self.disk.used_bytes() + spare));
        let result = self.log.append(RecordKind::Batch, first_seq, 1, &payload(first_seq, 1, bytes));
        if let Ok(segment) = result {
            self.model.logged.push((first_seq, segment));
            self.model.answered = self.model.logged.len();
            self.model.last_seq = first_seq;
        }
        self.disk.set_capacity(None);
    }

    fn sync(&mut self) -> Result<()> {
        if let Some(segment) = self.log.active() {
            let claimed = segment.sync()?;
            self.model.durable = self.model.logged.partition_point(|(seq, _)| *seq <= claimed);
        }
        Ok(())
    }

    /// The commits of older segments are in tables now, and the manifest says so.
    fn flush(&mut self) {
        let Some(active) = self.log.active() else { return };
        self.model.first_needed = self.random.random_range(self.model.first_needed..=active.number());
        let first_needed = self.model.first_needed;
        let gone = self.model.logged.partition_point(|(_, segment)| *segment < first_needed);
        self.model.logged.drain(..gone);
        self.model.durable = self.model.durable.saturating_sub(gone);
        self.model.answered -= gone;
        for path in self.log.forget_before(first_needed) {
            // A disk without power keeps the file; the next open finds it.
            let _ = self.env.fs.remove(&path);
        }
    }

    /// The disk after the power came back, the log not yet opened. The power may soon fail again.
    fn crash(&mut self) -> CrashMode {
        let mode = CrashMode::ALL[self.random.random_range(0..CrashMode::ALL.len())];
        self.disk = Arc::new(self.disk.crash_clone(self.random.next_u64(), mode));
        self.env = Env::simulated(self.disk.clone(), 1);
        if !matches!(mode, CrashMode::ProcessKill) {
            self.model.answered = self.model.durable;
        }
        if self.random.random_range(0..3) == 0 {
            self.disk.freeze_at(self.random.random_range(1..20));
        }
        mode
    }

    /// Opens the log as an engine does, and holds it against the model, which goes on from what was found.
    fn recover(&mut self, mode: CrashMode) -> Result<()> {
        let model = &mut self.model;
        sync_segments(&self.env, dir(), model.first_needed)?;
        let replay = replay(&self.env, dir(), DB, model.first_needed, None).unwrap();
        let found = seqs(&replay);
        let expected: Vec<SeqNo> = model.logged.iter().map(|(seq, _)| *seq).collect();
        assert!(found.len() >= model.answered, "{mode:?}: {found:?} of {expected:?}");
        assert!(found.len() >= model.durable, "{mode:?}: {found:?} of {expected:?}");
        assert_eq!(found[..], expected[..found.len()], "{mode:?}: a prefix");

        model.logged = replay
            .segments
            .iter()
            .flat_map(|segment| segment.batches.batches.iter().map(|batch| (batch.first_seq, segment.number)))
            .collect();
        (model.durable, model.answered) = (found.len(), found.len());
        model.last_seq = model.last_seq.max(replay.last_seq);
        for number in replay.unused.iter().chain(&replay.obsolete) {
            let _ = self.env.fs.remove(&segment_path(dir(), *number));
        }
        self.log = Log::new(&self.env, dir(), DB, OPTIONS, replay.start);
        Ok(())
    }

    /// Works until the power fails.
    fn work(&mut self) {
        self.disk.freeze_at(self.random.random_range(1..120));
        while !self.disk.is_frozen() {
            if let Err(error) = self.step() {
                assert!(self.disk.is_frozen(), "{error}");
            }
        }
    }
}

#[test]
fn power_cuts_in_a_row_take_only_what_was_not_durable() {
    let mut seeds = StdRng::seed_from_u64(seed());
    for _ in 0..60 {
        let mut world = World::new(seeds.next_u64());
        for _ in 0..12 {
            world.work();
            let mut mode = world.crash();
            while world.recover(mode).is_err() {
                assert!(world.disk.is_frozen());
                mode = world.crash();
            }
        }
    }
}

#[test]
fn a_closed_log_is_read_back_whole_from_any_power_cut() {
    let mut seeds = StdRng::seed_from_u64(seed());
    for _ in 0..40 {
        let mut world = World::new(seeds.next_u64());
        for _ in 0..40 {
            world.step().unwrap();
        }
        world.log.close().unwrap();
        world.model.durable = world.model.logged.len();
        let mode = world.crash();
        world.disk.thaw();
        world.recover(mode).unwrap();
        assert_eq!(world.model.durable, world.model.logged.len());
    }
}
