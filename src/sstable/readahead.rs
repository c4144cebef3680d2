//! Reading ahead: one large read serves many blocks, in either direction.

use super::bytes::Extent;
use super::source::Source;
use crate::base::error::Result;
use std::sync::Arc;

/// A window of the file in memory. It doubles while reads go on where it ends.
#[derive(Debug)]
pub(super) struct ReadAhead {
    window: Vec<u8>,
    start: u64,
    uncached: bool,
    bytes: u64,
    bytes_min: u64,
    bytes_max: u64,
}

impl ReadAhead {
    /// For compaction and verification: reads of 256 KiB to 1 MiB that leave the page cache alone.
    pub(super) fn bypass() -> ReadAhead {
        ReadAhead::new(true, 256 << 10, 1 << 20)
    }

    /// For scans that turn out to be sequential: reads of 16 to 256 KiB.
    pub(super) fn scan() -> ReadAhead {
        ReadAhead::new(false, 16 << 10, 256 << 10)
    }

    fn new(uncached: bool, bytes_min: u64, bytes_max: u64) -> ReadAhead {
        ReadAhead { window: Vec::new(), start: 0, uncached, bytes: bytes_min, bytes_min, bytes_max }
    }

    /// The block at this place; reads ahead up to `limit` when it is not in the window.
    pub(super) fn block(&mut self, source: &Source, place: Extent, limit: u64) -> Result<Arc<[u8]>> {
        let len = source.frame_len(place)?;
        if !self.holds(place) {
            self.fill(source, place, limit)?;
        }
        let start = usize::try_from(place.start.saturating_sub(self.start)).unwrap_or(usize::MAX);
        let frame = self.window.get(start..start.saturating_add(len)).unwrap_or_default();
        source.open_frame(place, frame)
    }

    fn end(&self) -> u64 {
        self.start.saturating_add(self.window.len() as u64)
    }

    fn holds(&self, place: Extent) -> bool {
        self.start <= place.start && place.end <= self.end()
    }

    fn fill(&mut self, source: &Source, place: Extent, limit: u64) -> Result<()> {
        let empty = self.window.is_empty();
        let forward = place.start <= self.end() && self.end() < place.end;
        let backward = place.start < self.start && self.start <= place.end;
        self.bytes = if !empty && (forward || backward) {
            self.bytes.saturating_mul(2).min(self.bytes_max)
        } else {
            self.bytes_min
        };
        let bytes = self.bytes.max(place.len());
        let (start, end) = if backward && !empty {
            (place.end.saturating_sub(bytes), place.end)
        } else {
            (place.start, place.start.saturating_add(bytes).min(limit.max(place.end)))
        };
        let len = source.frame_len(Extent { start, end })?;
        self.window.clear();
        self.window.resize(len, 0);
        self.start = start;
        let result = source.read_file(start, &mut self.window, self.uncached);
        if result.is_err() {
            self.window.clear();
        }
        result
    }
}
