//! The system's clocks.

use crate::base::types::micros;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::env::Clock;

/// Time as the operating system tells it. Its zero is the moment it was made.
#[derive(Debug, Clone, Copy)]
pub struct OsClock {
    origin: Instant,
}

impl OsClock {
    /// A clock that starts now.
    pub fn new() -> OsClock {
        OsClock { origin: Instant::now() }
    }
}

impl Default for OsClock {
    fn default() -> OsClock {
        OsClock::new()
    }
}

impl Clock for OsClock {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }

    fn unix_micros(&self) -> u64 {
        // A clock set before 1970 counts as 1970.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        micros(since)
    }
}
