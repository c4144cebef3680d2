//! A world without an operating system: time that moves only when told to, and no threads.
//!
//! With these, [`MemFs`] and a seed, a run of the engine is a pure function of its inputs and can be repeated exactly.

use crate::base::types::micros;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Clock, Env, Fs, JoinHandle, MemFs, Spawner};

/// What a fresh [`SimClock`] gives as calendar time: 2020-01-01 00:00:00 UTC, in microseconds.
const UNIX_START_MICROS: u64 = 1_577_836_800_000_000;

/// A clock that stands still until somebody sleeps on it or advances it.
#[derive(Debug, Default)]
pub struct SimClock {
    now_nanos: AtomicU64,
}

impl SimClock {
    /// A clock at time zero.
    pub fn new() -> SimClock {
        SimClock::default()
    }

    /// Moves time forward.
    pub fn advance(&self, duration: Duration) {
        let step_nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let moved = |now_nanos: u64| Some(now_nanos.saturating_add(step_nanos));
        // The closure never declines, so the update cannot fail.
        let _ = self.now_nanos.fetch_update(Ordering::Relaxed, Ordering::Relaxed, moved);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.now_nanos.load(Ordering::Relaxed))
    }

    fn sleep(&self, duration: Duration) {
        self.advance(duration);
    }

    fn unix_micros(&self) -> u64 {
        let passed_micros = micros(self.now());
        UNIX_START_MICROS.saturating_add(passed_micros)
    }
}

/// A world without threads: queued work runs on the thread of whoever waits for it.
#[derive(Debug, Default, Clone, Copy)]
pub struct SimSpawner;

impl Spawner for SimSpawner {
    fn spawn(&self, _: String, _: Box<dyn FnOnce() + Send>) -> io::Result<Option<Box<dyn JoinHandle>>> {
        Ok(None)
    }
}

impl Env {
    /// A simulated world on a fresh in-memory disk, and that disk.
    pub fn memory(seed: u64) -> (Env, Arc<MemFs>) {
        let disk = Arc::new(MemFs::new());
        (Env::simulated(disk.clone(), seed), disk)
    }

    /// A simulated world on this file system: a clock at zero, no threads, randomness from the seed.
    pub fn simulated(fs: Arc<dyn Fs>, seed: u64) -> Env {
        Env { fs, clock: Arc::new(SimClock::new()), spawner: Arc::new(SimSpawner), seed: Some(seed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn time_moves_only_by_sleeping_and_advancing() {
        let clock = SimClock::new();
        assert_eq!((clock.now(), clock.now()), (Duration::ZERO, Duration::ZERO));
        clock.sleep(Duration::from_millis(5));
        clock.advance(Duration::from_millis(2));
        assert_eq!(clock.now(), Duration::from_millis(7));
        assert_eq!(clock.unix_micros(), UNIX_START_MICROS + 7_000);
        clock.advance(Duration::MAX);
        clock.advance(Duration::MAX);
        assert_eq!(clock.now(), Duration::from_nanos(u64::MAX));
    }

    #[test]
    fn a_simulated_world_has_no_threads_and_shares_its_disk() {
        let (env, disk) = Env::memory(7);
        assert_eq!(env.seed, Some(7));
        assert!(env.spawner.spawn("worker".into(), Box::new(|| {})).unwrap().is_none());
        disk.write_file(Path::new("/db/file"), b"x").unwrap();
        assert!(env.fs.exists(Path::new("/db/file")).unwrap());
    }
}
