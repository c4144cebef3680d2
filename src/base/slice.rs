//! `Slice`: reference-counted bytes, the form in which values come out of the store.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

/// Immutable bytes that are cheap to clone. Dereferences to `[u8]`.
///
/// A slice may share its memory with a larger buffer (a cached block, a write batch); cloning it never copies.
///
/// ```
/// let slice = esker::Slice::from("hello");
/// assert_eq!(&slice[..], b"hello");
/// assert_eq!(slice, slice.clone());
/// ```
#[derive(Clone)]
pub struct Slice {
    owner: Arc<[u8]>,
    start: u32,
    len: u32,
}

impl Slice {
    /// Copies the bytes into a buffer of their own.
    ///
    /// Buffers longer than `u32::MAX` are cut: no key, value or block of a store is that long.
    pub fn copy_from(bytes: &[u8]) -> Slice {
        Slice::whole(Arc::from(bytes))
    }

    /// The whole of a shared buffer.
    pub(crate) fn whole(owner: Arc<[u8]>) -> Slice {
        let len = u32::try_from(owner.len()).unwrap_or(u32::MAX);
        Slice { owner, start: 0, len }
    }

    /// Part of a shared buffer; `None` when the range is not inside it.
    pub(crate) fn part(owner: &Arc<[u8]>, start: usize, len: usize) -> Option<Slice> {
        let end = start.checked_add(len)?;
        if end > owner.len() {
            return None;
        }
        Some(Slice {
            owner: Arc::clone(owner),
            start: u32::try_from(start).ok()?,
            len: u32::try_from(len).ok()?,
        })
    }

    /// The bytes.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        let start = self.start as usize;
        self.owner.get(start..start.wrapping_add(self.len as usize)).unwrap_or_default()
    }
}

impl Deref for Slice {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl From<&[u8]> for Slice {
    fn from(bytes: &[u8]) -> Slice {
        Slice::copy_from(bytes)
    }
}

impl From<&str> for Slice {
    fn from(text: &str) -> Slice {
        Slice::copy_from(text.as_bytes())
    }
}

impl From<Vec<u8>> for Slice {
    fn from(bytes: Vec<u8>) -> Slice {
        Slice::whole(Arc::from(bytes))
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

impl PartialEq for Slice {
    fn eq(&self, other: &Slice) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Slice {}

impl PartialOrd for Slice {
    fn partial_cmp(&self, other: &Slice) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Slice {
    fn cmp(&self, other: &Slice) -> std::cmp::Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for Slice {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl PartialEq<[u8]> for Slice {
    fn eq(&self, other: &[u8]) -> bool {
        self.as_bytes() == other
    }
}

impl PartialEq<&[u8]> for Slice {
    fn eq(&self, other: &&[u8]) -> bool {
        self.as_bytes() == *other
    }
}

impl PartialEq<&str> for Slice {
    fn eq(&self, other: &&str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl PartialEq<Vec<u8>> for Slice {
    fn eq(&self, other: &Vec<u8>) -> bool {
        self.as_bytes() == other.as_slice()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stay_inside_their_owner() {
        let owner: Arc<[u8]> = Arc::from(&b"0123456789"[..]);
        assert_eq!(Slice::part(&owner, 2, 3).unwrap(), "234");
        assert_eq!(Slice::part(&owner, 10, 0).unwrap(), "");
        assert!(Slice::part(&owner, 8, 3).is_none());
        assert!(Slice::part(&owner, usize::MAX, 2).is_none());
        assert_eq!(Slice::part(&owner, 2, 5).unwrap().as_bytes().as_ptr(), owner[2..].as_ptr());
    }
}
