//! Running a transaction again until it commits.

use super::options::{RetryPolicy, TransactionOptions};
use super::{Transactions, Txn};
use crate::base::error::{Error, Result};
use crate::base::random::SplitMix64;
use std::sync::Arc;
use std::time::Duration;

impl Transactions {
    /// Runs `body` in transactions until one of them commits, an error is not worth another attempt, or the attempts
    /// are used up.
    pub(crate) fn transact<T>(
        self: &Arc<Self>,
        options: &TransactionOptions,
        policy: &RetryPolicy,
        mut attempt: impl FnMut(Box<Txn>) -> Result<T>,
    ) -> Result<T> {
        let mut random = SplitMix64::new(self.core.env.entropy() ^ self.new_id());
        let mut pause = policy.pause_min;
        let mut attempts = 1u32;
        loop {
            let error = match self.begin(options.clone()).and_then(&mut attempt) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if !error.is_retryable() {
                return Err(error);
            }
            if attempts >= policy.attempts {
                let message = format!("gave up after {attempts} attempts");
                return Err(Error::caused(error.kind(), message, error));
            }
            self.core.env.clock.sleep(jittered(pause, &mut random));
            pause = pause.saturating_mul(2).min(policy.pause_max);
            attempts = attempts.saturating_add(1);
        }
    }
}

/// Between half and all of a pause.
fn jittered(pause: Duration, random: &mut SplitMix64) -> Duration {
    let nanos = u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX);
    let half = nanos / 2;
    let more = random.next_u64().checked_rem(half.saturating_add(1)).unwrap_or(0);
    Duration::from_nanos(nanos.saturating_sub(half).saturating_add(more))
}
