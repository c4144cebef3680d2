//! Building a data block: see the parent for the layout.

use super::super::bytes::{common_prefix_len, prefix_of, put_uint, width_of};
use super::{RESTART_BYTES, TAIL_BYTES};
use crate::base::coding::put_varint;
use crate::base::key::KeyRef;

/// Buffers above this size, in bytes, are given back after the block that needed them.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// A restart: where its entry begins, and where its user key lies, within the keys.
#[derive(Debug, Clone, Copy)]
struct Restart {
    offset: u32,
    key_start: u32,
    key_end: u32,
}

/// Collects entries of one block after the other, reusing its buffers.
///
/// The caller keeps the order, knows how many bytes a key shares with the one before it, and ends a block before it
/// outgrows `u32`.
#[derive(Debug)]
pub(crate) struct BlockBuilder {
    interval: u16,
    until_restart: u16,
    values: Vec<u8>,
    keys: Vec<u8>,
    ends: Vec<u32>,
    trailers: Vec<u64>,
    restarts: Vec<Restart>,
}

impl BlockBuilder {
    /// A builder with a restart every `interval` entries.
    pub(crate) fn new(interval: usize) -> BlockBuilder {
        BlockBuilder {
            interval: u16::try_from(interval.max(1)).unwrap_or(u16::MAX),
            until_restart: 0,
            values: Vec::new(),
            keys: Vec::new(),
            ends: Vec::new(),
            trailers: Vec::new(),
            restarts: Vec::new(),
        }
    }

    /// Whether the block has no entry yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.trailers.is_empty()
    }

    /// About how long the block would be now.
    #[inline]
    pub(crate) fn estimated_bytes(&self) -> usize {
        let columns = self.trailers.len().saturating_mul(6);
        let restarts = self.restarts.len().saturating_mul(RESTART_BYTES);
        let parts = self.values.len().saturating_add(self.keys.len());
        parts.saturating_add(columns).saturating_add(restarts).saturating_add(TAIL_BYTES)
    }

    /// Adds an entry whose user key has exactly its first `shared` bytes in common with the one before it.
    #[inline]
    pub(crate) fn add(&mut self, shared: usize, key: KeyRef<'_>, value: &[u8]) {
        let restart = self.until_restart == 0;
        let shared = if restart { 0 } else { shared };
        let offset = len_u32(&self.keys);
        let suffix = key.user.get(shared..).unwrap_or_default();
        put_varint(&mut self.keys, shared as u64);
        put_varint(&mut self.keys, suffix.len() as u64);
        if restart {
            self.until_restart = self.interval;
            let key_start = len_u32(&self.keys);
            let key_end = key_start.saturating_add(len_u32(suffix));
            self.restarts.push(Restart { offset, key_start, key_end });
        }
        self.until_restart = self.until_restart.saturating_sub(1);
        self.keys.extend_from_slice(suffix);
        if value.len() > KEPT_BYTES_MAX {
            // Room for the parts that follow, so that they do not move a huge value.
            let others = self.keys.len().saturating_add(KEPT_BYTES_MAX);
            self.values.reserve_exact(value.len().saturating_add(others));
        }
        self.values.extend_from_slice(value);
        self.ends.push(len_u32(&self.values));
        self.trailers.push(key.trailer.0);
    }

    /// Puts the block together and answers its bytes; `last` is the user key added last. [`reset`](Self::reset)
    /// must follow.
    pub(crate) fn finish(&mut self, last: &[u8]) -> &mut Vec<u8> {
        let values_len = len_u32(&self.values);
        let common =
            self.restarts.first().map_or(0, |first| common_prefix_len(self.restart_key(*first), last));
        let base = self.trailers.iter().copied().min().unwrap_or_default();
        let top = self.trailers.iter().copied().max().unwrap_or_default();
        let trailer_width = width_of(top.saturating_sub(base));
        let end_width = width_of(u64::from(values_len));
        let prefixes: Vec<u64> = self
            .restarts
            .iter()
            .map(|restart| prefix_of(self.restart_key(*restart).get(common..).unwrap_or_default()))
            .collect();

        let out = &mut self.values;
        out.extend_from_slice(&self.keys);
        for end in &self.ends {
            put_uint(out, u64::from(*end), end_width);
        }
        for trailer in &self.trailers {
            put_uint(out, trailer.saturating_sub(base), trailer_width);
        }
        for prefix in &prefixes {
            out.extend_from_slice(&prefix.to_be_bytes());
        }
        for restart in &self.restarts {
            out.extend_from_slice(&restart.offset.to_le_bytes());
        }
        out.extend_from_slice(&len_u32(&self.trailers).to_le_bytes());
        out.extend_from_slice(&values_len.to_le_bytes());
        out.extend_from_slice(&len_u32(&self.keys).to_le_bytes());
        out.extend_from_slice(&base.to_le_bytes());
        out.extend_from_slice(&self.interval.to_le_bytes());
        out.extend_from_slice(&u16::try_from(common).unwrap_or(u16::MAX).to_le_bytes());
        put_uint(out, end_width as u64, 1);
        put_uint(out, trailer_width as u64, 1);
        out.extend_from_slice(&[0, 0]);
        out
    }

    /// Forgets the block that was finished, to begin the next.
    pub(crate) fn reset(&mut self) {
        self.until_restart = 0;
        for buffer in [&mut self.values, &mut self.keys] {
            buffer.clear();
            if buffer.capacity() > KEPT_BYTES_MAX {
                *buffer = Vec::new();
            }
        }
        self.ends.clear();
        self.trailers.clear();
        self.restarts.clear();
    }

    fn restart_key(&self, restart: Restart) -> &[u8] {
        self.keys.get(restart.key_start as usize..restart.key_end as usize).unwrap_or_default()
    }
}

/// Length as `u32`: blocks are ended long before it would not fit.
fn len_u32<T>(items: &[T]) -> u32 {
    u32::try_from(items.len()).unwrap_or(u32::MAX)
}
