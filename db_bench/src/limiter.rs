//! Paces a thread to a rate by sleeping when it is ahead.

use std::thread;
use std::time::{Duration, Instant};

/// Sleeps shorter than this are saved up: they would overshoot.
const SLEEP_MIN: Duration = Duration::from_millis(1);

/// A rate for one thread, counted from the first use.
#[derive(Debug, Clone)]
pub struct Limiter {
    per_second: f64,
    used: f64,
    start: Option<Instant>,
}

impl Limiter {
    /// One thread's share of a rate; a rate of 0 is no limit.
    pub fn shared(per_second: u64, threads: usize) -> Limiter {
        Limiter { per_second: per_second as f64 / threads.max(1) as f64, used: 0.0, start: None }
    }

    /// Takes an amount, waits until it is due, and says how long that was, so that it can be left out of latencies.
    #[inline]
    pub fn take(&mut self, amount: u64) -> Duration {
        if self.per_second > 0.0 { self.pace(amount) } else { Duration::ZERO }
    }

    fn pace(&mut self, amount: u64) -> Duration {
        let start = *self.start.get_or_insert_with(Instant::now);
        let before = start.elapsed();
        match self.ahead(amount, before).filter(|ahead| *ahead >= SLEEP_MIN) {
            Some(ahead) => {
                thread::sleep(ahead);
                start.elapsed().saturating_sub(before)
            }
            None => Duration::ZERO,
        }
    }

    /// How far ahead of the rate the thread is after taking this amount.
    fn ahead(&mut self, amount: u64, elapsed: Duration) -> Option<Duration> {
        self.used += amount as f64;
        Duration::from_secs_f64(self.used / self.per_second).checked_sub(elapsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_is_due_at_the_rate() {
        let mut limiter = Limiter::shared(2000, 2);
        assert_eq!(limiter.ahead(500, Duration::ZERO), Some(Duration::from_millis(500)));
        assert_eq!(limiter.ahead(500, Duration::from_millis(400)), Some(Duration::from_millis(600)));
        assert_eq!(limiter.ahead(500, Duration::from_secs(2)), None);
    }

    #[test]
    fn a_rate_of_zero_is_no_limit() {
        assert_eq!(Limiter::shared(0, 4).take(u64::MAX), Duration::ZERO);
    }
}
