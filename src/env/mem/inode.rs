//! One in-memory file: what the running system sees of it, and which of that would survive a power cut.
//!
//! Files are written from front to back over zeros, so the durable state needs no second copy: it is the visible one
//! with zeros in place of the bytes that no sync has covered, and the length of the last sync.

use std::io;
use std::ops::Range;

use super::CrashMode;
use super::content::{Content, PAGE_BYTES};
use crate::base::random::SplitMix64;

/// What a device writes or loses as a whole.
const SECTOR_BYTES: u64 = 512;

/// Longest file, in bytes; a guard against nonsense lengths.
pub(super) const LEN_MAX: u64 = 1 << 40;

/// A file, apart from its names.
#[derive(Debug, Clone, Default)]
pub(super) struct Inode {
    content: Content,
    /// Visible length, reserved tail included.
    len: u64,
    /// Length as of the last successful sync.
    durable_len: u64,
    /// Greatest length since then.
    highest_len: u64,
    /// Bytes written since the last sync, successful or not.
    dirty: Range<u64>,
    /// Bytes that a failed sync took for written: visible, not durable, and skipped by every later sync.
    forgotten: Vec<Range<u64>>,
    /// Names the running system sees.
    pub(super) links: u32,
    /// Open handles.
    pub(super) opens: u32,
    /// Whether somebody holds the lock on it.
    pub(super) locked: bool,
}

impl Inode {
    /// A new file of one name with a reserved length.
    pub(super) fn reserved(len: u64) -> Inode {
        Inode { links: 1, len, highest_len: len, ..Inode::default() }
    }

    /// A file of one name with these bytes, all of them durable.
    pub(super) fn durable(bytes: &[u8]) -> Inode {
        let mut inode = Inode::reserved(0);
        inode.content.write(0, bytes);
        inode.set_len_durably(bytes.len() as u64);
        inode
    }

    /// Visible length in bytes.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Whether anybody can still reach the file in the running system.
    pub(super) fn is_in_use(&self) -> bool {
        self.links > 0 || self.opens > 0
    }

    /// Whether a power cut now would leave bytes and length as they are visible.
    pub(super) fn is_durable(&self) -> bool {
        self.dirty.is_empty() && self.forgotten.is_empty() && self.len == self.durable_len
    }

    /// Fills the buffer, or `UnexpectedEof`.
    pub(super) fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.content.read(offset, buf);
        Ok(())
    }

    /// As an access through a mapping: the rest of the file's last page reads as zeros, a page beyond it is a fault.
    pub(super) fn read_mapped(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let end = offset.saturating_add(buf.len() as u64);
        if end > self.len.next_multiple_of(PAGE_BYTES as u64) {
            return Err(io::Error::other("the mapped file was truncated"));
        }
        self.content.read(offset, buf);
        Ok(())
    }

    /// Writes bytes where only zeros stood.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = offset.saturating_add(bytes.len() as u64);
        self.content.write(offset, bytes);
        self.dirty = if self.dirty.is_empty() {
            offset..end
        } else {
            self.dirty.start.min(offset)..self.dirty.end.max(end)
        };
        self.reserve(end);
    }

    /// Makes the file at least this long, with zeros.
    fn reserve(&mut self, len: u64) {
        self.len = self.len.max(len);
        self.highest_len = self.highest_len.max(len);
    }

    /// Cuts the file, durable with the next sync.
    pub(super) fn cut(&mut self, len: u64) {
        self.content.truncate(len);
        self.len = self.len.min(len);
        self.dirty = clip(&self.dirty, len);
        for range in &mut self.forgotten {
            *range = clip(range, len);
        }
        self.forgotten.retain(|range| !range.is_empty());
    }

    /// Makes the dirty bytes and the length durable; what an earlier failed sync took for written stays forgotten.
    pub(super) fn sync(&mut self) {
        self.dirty = 0..0;
        self.durable_len = self.len;
        self.highest_len = self.len;
    }

    /// A sync that fails in the way of Linux: the dirty pages are taken for clean although they were not written.
    pub(super) fn sync_in_vain(&mut self) {
        if !self.dirty.is_empty() {
            self.forgotten.push(self.dirty.clone());
        }
        self.dirty = 0..0;
    }

    /// Clean pages are dropped and come back from the device: forgotten bytes show what is really there.
    pub(super) fn drop_cache(&mut self) {
        for range in self.forgotten.drain(..) {
            self.content.zero(range);
        }
    }

    /// Gives the file another length by other means than its writer's; durable at once.
    pub(super) fn set_len_durably(&mut self, len: u64) {
        self.cut(len);
        self.len = len;
        self.durable_len = len;
        self.highest_len = len;
    }

    /// Changes bytes in place by other means than the file's writer.
    pub(super) fn tamper(&mut self, offset: u64, mask: u8) -> io::Result<()> {
        let mut byte = [0u8];
        self.read_exact_at(offset, &mut byte)?;
        self.content.write(offset, &byte.map(|old| old ^ mask));
        Ok(())
    }

    /// The file after a crash, without names and handles.
    pub(super) fn crashed(&self, mode: CrashMode, random: &mut SplitMix64) -> Inode {
        let mut inode = Inode { links: 0, opens: 0, locked: false, ..self.clone() };
        match mode {
            CrashMode::ProcessKill => return inode,
            _ if inode.is_durable() && inode.highest_len == inode.len => {}
            CrashMode::SyncedOnly => inode.crash_to_synced(),
            CrashMode::PerFilePrefix => inode.crash_to_prefix(random),
            CrashMode::Random => inode.crash_by_sector(random, lose),
            CrashMode::Torn => inode.crash_by_sector(random, tear),
        }
        inode.dirty = 0..0;
        inode.forgotten.clear();
        inode
    }

    fn crash_to_synced(&mut self) {
        for range in self.pending() {
            self.content.zero(range);
        }
        self.set_len_durably(self.durable_len);
    }

    /// Keeps the first so many pending bytes; the length is as of the write in which the power failed.
    fn crash_to_prefix(&mut self, random: &mut SplitMix64) {
        let pending = self.pending();
        let total: u64 = pending.iter().map(length).fold(0, u64::saturating_add);
        let kept = match random.below(8) {
            0 => 0,
            1 => total,
            _ => random.below(total.saturating_add(1)),
        };
        let written_end = pending.last().map_or(0, |range| range.end);
        let mut left = kept;
        let mut cut_at = 0;
        for range in pending {
            let taken = length(&range).min(left);
            left = left.saturating_sub(taken);
            let lost = range.start.saturating_add(taken)..range.end;
            if taken > 0 {
                cut_at = lost.start;
            }
            self.content.zero(lost);
        }
        let before_any = kept == 0 && random.below(2) == 0;
        let shrinks = self.len < self.durable_len;
        let len = if before_any || (shrinks && (kept < total || random.below(2) == 0)) {
            self.durable_len
        } else if self.len > written_end {
            // The tail was reserved before anything was written into it.
            self.len
        } else {
            cut_at.max(self.durable_len)
        };
        self.set_len_durably(len);
    }

    /// Every pending sector on its own, and the length independent of the bytes.
    fn crash_by_sector(
        &mut self,
        random: &mut SplitMix64,
        lost: fn(&mut Content, Range<u64>, &mut SplitMix64),
    ) {
        for range in self.pending() {
            let eighths_kept = random.below(9);
            for piece in sectors(range) {
                if random.below(8) >= eighths_kept {
                    lost(&mut self.content, piece, random);
                }
            }
        }
        let low = self.len.min(self.durable_len);
        let high = self.highest_len.max(self.durable_len);
        let len = match random.below(4) {
            0 => self.durable_len,
            1 => low.saturating_add(random.below(high.saturating_sub(low).saturating_add(1))),
            _ => self.len,
        };
        self.set_len_durably(len);
    }

    /// Ranges that are visible but not durable, in the order in which they were written.
    fn pending(&self) -> Vec<Range<u64>> {
        let dirty = (!self.dirty.is_empty()).then(|| self.dirty.clone());
        self.forgotten.iter().cloned().chain(dirty).collect()
    }
}

/// The sector keeps its old bytes, which were zeros.
fn lose(content: &mut Content, piece: Range<u64>, _: &mut SplitMix64) {
    content.zero(piece);
}

/// The sector ends up old, garbled, or half written. Only the bytes that were being written are touched: devices are
/// taken to be "powersafe overwrite", so that bytes synced earlier in the same sector stay.
fn tear(content: &mut Content, piece: Range<u64>, random: &mut SplitMix64) {
    let middle = piece.start.saturating_add(random.below(length(&piece)));
    match random.below(4) {
        0 => content.zero(piece),
        1 => content.zero(piece.start..middle),
        2 => content.zero(middle..piece.end),
        _ => {
            let mut garbage = [0u8; SECTOR_BYTES as usize];
            random.fill(&mut garbage);
            let len = usize::try_from(length(&piece)).unwrap_or(usize::MAX);
            content.write(piece.start, garbage.get(..len).unwrap_or(&garbage));
        }
    }
}

fn length(range: &Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}

fn clip(range: &Range<u64>, end: u64) -> Range<u64> {
    range.start.min(end)..range.end.min(end)
}

/// The parts of a range in each sector it touches.
fn sectors(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let mut start = range.start;
    std::iter::from_fn(move || {
        let sector_end = (start / SECTOR_BYTES).saturating_add(1).saturating_mul(SECTOR_BYTES);
        let piece = start..sector_end.min(range.end);
        start = piece.end;
        (!piece.is_empty()).then_some(piece)
    })
}
