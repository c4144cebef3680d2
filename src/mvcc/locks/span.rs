//! What a lock covers, inside the table: bytes shared between the stripe, the owner and the queue.

use crate::base::deadlock::LockSpan;
use std::sync::Arc;

/// A key or a range of keys. The bytes are owned once and shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Span {
    Key(Arc<[u8]>),
    /// Not empty: `start` is before `end`.
    Range {
        start: Arc<[u8]>,
        end: Option<Arc<[u8]>>,
    },
}

/// A borrowed [`Span`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SpanRef<'a> {
    Key(&'a [u8]),
    Range { start: &'a [u8], end: Option<&'a [u8]> },
}

impl Span {
    pub(super) fn as_ref(&self) -> SpanRef<'_> {
        match self {
            Span::Key(key) => SpanRef::Key(key),
            Span::Range { start, end } => SpanRef::Range { start, end: end.as_deref() },
        }
    }
}

impl SpanRef<'_> {
    /// Bytes of its keys.
    pub(super) fn bytes(self) -> usize {
        match self {
            SpanRef::Key(key) => key.len(),
            SpanRef::Range { start, end } => start.len().saturating_add(end.map_or(0, <[u8]>::len)),
        }
    }

    /// Whether a key lies in both.
    pub(super) fn overlaps(self, other: SpanRef<'_>) -> bool {
        match (self, other) {
            (SpanRef::Key(left), SpanRef::Key(right)) => left == right,
            (SpanRef::Key(key), SpanRef::Range { start, end })
            | (SpanRef::Range { start, end }, SpanRef::Key(key)) => {
                start <= key && end.is_none_or(|end| key < end)
            }
            (
                SpanRef::Range { start: left_start, end: left_end },
                SpanRef::Range { start: right_start, end: right_end },
            ) => left_end.is_none_or(|end| right_start < end) && right_end.is_none_or(|end| left_start < end),
        }
    }

    /// Whether every key of the other lies in this.
    pub(super) fn covers(self, other: SpanRef<'_>) -> bool {
        match (self, other) {
            (SpanRef::Key(left), SpanRef::Key(right)) => left == right,
            (SpanRef::Key(_), SpanRef::Range { .. }) => false,
            (SpanRef::Range { .. }, SpanRef::Key(_)) => self.overlaps(other),
            (SpanRef::Range { start, end }, SpanRef::Range { start: inner_start, end: inner_end }) => {
                start <= inner_start
                    && end.is_none_or(|end| inner_end.is_some_and(|inner_end| inner_end <= end))
            }
        }
    }

    /// An owned copy.
    pub(super) fn to_owned(self) -> Span {
        match self {
            SpanRef::Key(key) => Span::Key(key.into()),
            SpanRef::Range { start, end } => Span::Range { start: start.into(), end: end.map(Arc::from) },
        }
    }

    /// A copy for a report.
    pub(super) fn describe(self) -> LockSpan {
        match self {
            SpanRef::Key(key) => LockSpan::Key(key.to_vec()),
            SpanRef::Range { start, end } => {
                LockSpan::Range { start: start.to_vec(), end: end.map(<[u8]>::to_vec) }
            }
        }
    }
}
