//! Which sequence number was visible when: a few moments of the past, enough to find the state of a given time.
//!
//! The window is cut into spans; of each span the last commit is kept, and the very first moment in any case. So a
//! state found by time contains no commit made after that time and lacks at most those of the span it lies in, and
//! there are never more moments than spans. The first moment is at or before the start of the window: its sequence
//! number is what retention keeps.
//!
//! Must not know who reads, nor what is dropped.

use crate::base::types::{SeqNo, micros};
use crate::manifest::Moment;
use std::collections::VecDeque;
use std::time::Duration;

/// Spans of a window.
const SPANS: u64 = 256;

/// Moments of the window, ascending in time and sequence number.
#[derive(Debug)]
pub(crate) struct History {
    window_micros: u64,
    moments: VecDeque<Moment>,
}

impl History {
    /// The history of a window that goes on from these moments.
    pub(crate) fn new(window: Duration, moments: &[Moment]) -> History {
        let window_micros = micros(window);
        History { window_micros, moments: moments.iter().copied().collect() }
    }

    /// Microseconds of a span.
    pub(crate) fn span_micros(&self) -> u64 {
        (self.window_micros / SPANS).max(1)
    }

    /// Notes that at a time a sequence number was visible. A time before the last one noted (clocks may be set back)
    /// counts as that one.
    pub(crate) fn note(&mut self, at_micros: u64, seq: SeqNo) {
        let Some(last) = self.moments.back().copied() else {
            return self.moments.push_back(Moment { at_micros, seq });
        };
        if seq <= last.seq {
            return;
        }
        let moment = Moment { at_micros: at_micros.max(last.at_micros), seq };
        // The first one is what the window begins with: it stays.
        if self.moments.len() > 1 && last.is_replaced_by(&moment, self.span_micros()) {
            self.moments.pop_back();
        }
        self.moments.push_back(moment);
    }

    /// Forgets what no time in the window needs. The first moment left is at or before its start, if there is one.
    pub(crate) fn forget(&mut self, now_micros: u64) {
        let start = now_micros.saturating_sub(self.window_micros);
        while self.moments.get(1).is_some_and(|second| second.at_micros <= start) {
            self.moments.pop_front();
        }
    }

    /// The sequence number through which older versions may go; none before the first moment.
    pub(crate) fn floor(&self) -> SeqNo {
        self.moments.front().map_or(0, |first| first.seq)
    }

    /// The newest moment at or before a time.
    pub(crate) fn at(&self, at_micros: u64) -> Option<Moment> {
        let after = self.moments.partition_point(|moment| moment.at_micros <= at_micros);
        self.moments.get(after.checked_sub(1)?).copied()
    }

    /// The oldest moment whose sequence number is at or above this one.
    pub(crate) fn first_from(&self, seq: SeqNo) -> Option<Moment> {
        let index = self.moments.partition_point(|moment| moment.seq < seq);
        self.moments.get(index).copied()
    }

    /// What was noted after this moment.
    pub(crate) fn after(&self, last: Option<Moment>) -> impl Iterator<Item = Moment> {
        self.moments.iter().copied().filter(move |moment| last.is_none_or(|last| moment.seq > last.seq))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A window of 256 ms has spans of a millisecond.
    fn history(noted: &[(u64, SeqNo)]) -> History {
        let mut history = History::new(Duration::from_millis(256), &[]);
        noted.iter().for_each(|(at, seq)| history.note(*at, *seq));
        history
    }

    fn check(noted: &[(u64, SeqNo)], expect: &[(u64, SeqNo)]) {
        let found: Vec<_> =
            history(noted).moments.iter().map(|moment| (moment.at_micros, moment.seq)).collect();
        assert_eq!(found, expect, "{noted:?}");
    }

    #[test]
    fn the_first_and_the_last_commit_of_each_span_are_kept() {
        check(&[(0, 0)], &[(0, 0)]);
        check(&[(0, 1), (10, 2), (999, 3), (1000, 4)], &[(0, 1), (999, 3), (1000, 4)]);
        check(&[(0, 1), (0, 2), (0, 3)], &[(0, 1), (0, 3)]);
        check(&[(1000, 4), (5000, 4)], &[(1000, 4)]);
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_turn_the_order() {
        check(&[(5000, 1), (2000, 2)], &[(5000, 1), (5000, 2)]);
        check(&[(5000, 1), (2000, 2), (3000, 3), (6000, 4)], &[(5000, 1), (5000, 3), (6000, 4)]);
    }

    #[test]
    fn a_time_finds_what_was_visible_then() {
        let history = history(&[(1000, 1), (2500, 2), (9000, 7)]);
        let found = |at| history.at(at).map(|moment| moment.seq);
        assert_eq!([0, 999, 1000, 2499, 2500, 8999, 9000, u64::MAX].map(found), {
            [None, None, Some(1), Some(1), Some(2), Some(2), Some(7), Some(7)]
        });
        assert_eq!(history.first_from(2).map(|moment| moment.at_micros), Some(2500));
        assert_eq!(history.first_from(3).map(|moment| moment.at_micros), Some(9000));
        assert_eq!(history.first_from(8), None);
    }

    #[test]
    fn what_the_window_needs_is_never_forgotten_and_the_rest_is() {
        let mut history = history(&[(1000, 1), (2500, 2), (9000, 7)]);
        for (now, floor) in [(0, 1), (258_499, 1), (258_500, 2), (264_999, 2), (265_000, 7), (u64::MAX, 7)] {
            history.forget(now);
            assert_eq!(history.floor(), floor, "at {now}");
        }
    }

    #[test]
    fn memory_is_bounded_by_the_spans() {
        let mut history = History::new(Duration::from_secs(60), &[]);
        for commit in 1..200_000u64 {
            history.note(commit * 1000, commit);
            history.forget(commit * 1000);
            assert!(history.moments.len() <= SPANS as usize + 2);
        }
    }
}
