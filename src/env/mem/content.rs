//! Bytes of one in-memory file: a sparse array of shared pages, copied when written. A missing page reads as zeros,
//! so reserving space costs nothing, and copying a file costs one reference count per page.

use std::ops::Range;
use std::sync::Arc;

/// Unit of sharing, and the page of a simulated mapping.
pub(super) const PAGE_BYTES: usize = 4096;

type Page = [u8; PAGE_BYTES];

/// The bytes. The length of the file is kept by its owner: nothing but zeros stands beyond it.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    pages: Vec<Option<Arc<Page>>>,
}

/// Page number, offset within the page, and bytes up to its end (at most `len`).
fn locate(offset: u64, len: usize) -> (usize, usize, usize) {
    const PAGE: u64 = PAGE_BYTES as u64;
    let page = usize::try_from(offset / PAGE).unwrap_or(usize::MAX);
    let start = (offset % PAGE) as usize;
    (page, start, len.min(PAGE_BYTES.saturating_sub(start)))
}

impl Content {
    /// Copies bytes out; zeros where nothing was written.
    pub(super) fn read(&self, mut offset: u64, mut buf: &mut [u8]) {
        while !buf.is_empty() {
            let (page, start, take) = locate(offset, buf.len());
            let (head, rest) = std::mem::take(&mut buf).split_at_mut(take);
            let page = self.pages.get(page).and_then(Option::as_deref);
            match page.and_then(|bytes| bytes.get(start..start.saturating_add(take))) {
                Some(bytes) => head.copy_from_slice(bytes),
                None => head.fill(0),
            }
            buf = rest;
            offset = offset.saturating_add(take as u64);
        }
    }

    /// Puts bytes at this offset.
    pub(super) fn write(&mut self, mut offset: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (page, start, take) = locate(offset, bytes.len());
            let (head, rest) = bytes.split_at(take);
            if self.pages.len() <= page {
                self.pages.resize(page.saturating_add(1), None);
            }
            if let Some(slot) = self.pages.get_mut(page) {
                let page = Arc::make_mut(slot.get_or_insert_with(|| Arc::new([0; PAGE_BYTES])));
                if let Some(target) = page.get_mut(start..start.saturating_add(take)) {
                    target.copy_from_slice(head);
                }
            }
            bytes = rest;
            offset = offset.saturating_add(take as u64);
        }
    }

    /// Puts zeros over a range; whole pages are given back.
    pub(super) fn zero(&mut self, range: Range<u64>) {
        let mut offset = range.start;
        while offset < range.end {
            let left = usize::try_from(range.end.saturating_sub(offset)).unwrap_or(usize::MAX);
            let (page, start, take) = locate(offset, left);
            match self.pages.get_mut(page) {
                None => return,
                Some(slot) if take == PAGE_BYTES => *slot = None,
                Some(None) => {}
                Some(Some(page)) => {
                    if let Some(target) = Arc::make_mut(page).get_mut(start..start.saturating_add(take)) {
                        target.fill(0);
                    }
                }
            }
            offset = offset.saturating_add(take as u64);
        }
    }

    /// Zeros everything from this length on.
    pub(super) fn truncate(&mut self, len: u64) {
        self.zero(len..u64::MAX);
        let pages = len.div_ceil(PAGE_BYTES as u64);
        self.pages.truncate(usize::try_from(pages).unwrap_or(usize::MAX));
    }
}
