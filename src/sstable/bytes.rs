//! Small pure helpers of the table's formats: places in a file, fixed-width columns, shared prefixes.

/// Why bytes that passed their checksum still are no valid block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

/// A range of bytes of a table file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// Offset of the first byte.
    pub(super) start: u64,
    /// Offset after the last byte.
    pub(super) end: u64,
}

impl Extent {
    /// Length in bytes.
    pub(super) fn len(self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

/// Bytes that hold every value up to `max`; at least 1.
pub(super) fn width_of(max: u64) -> usize {
    let bits = 64u32.saturating_sub(max.leading_zeros()).max(1);
    bits.div_ceil(8) as usize
}

/// Mask of the lowest `width` bytes.
pub(super) fn width_mask(width: usize) -> u64 {
    let unused = 8usize.saturating_sub(width).saturating_mul(8);
    u64::MAX.checked_shr(u32::try_from(unused).unwrap_or(u32::MAX)).unwrap_or(0)
}

/// Appends the lowest `width` bytes of a value.
pub(super) fn put_uint(out: &mut Vec<u8>, value: u64, width: usize) {
    let bytes = value.to_le_bytes();
    out.extend_from_slice(bytes.get(..width).unwrap_or(&bytes));
}

/// The little-endian integer at `position`, of which `mask` keeps the column's width. Needs eight readable bytes
/// from there: every column is followed by at least that many.
#[inline]
pub(super) fn get_uint(bytes: &[u8], position: usize, mask: u64) -> Option<u64> {
    let chunk = bytes.get(position..)?.first_chunk::<8>()?;
    Some(u64::from_le_bytes(*chunk) & mask)
}

/// The first eight bytes as a number that sorts as they do; missing bytes count as zero.
#[inline]
pub(super) fn prefix_of(bytes: &[u8]) -> u64 {
    if let Some(head) = bytes.first_chunk::<8>() {
        return u64::from_be_bytes(*head);
    }
    bytes
        .iter()
        .zip([56u32, 48, 40, 32, 24, 16, 8])
        .fold(0u64, |sum, (byte, shift)| sum | u64::from(*byte).wrapping_shl(shift))
}

/// Length of the longest common prefix.
#[inline]
pub(super) fn common_prefix_len(left: &[u8], right: &[u8]) -> usize {
    let (left_words, left_rest) = left.as_chunks::<8>();
    let (right_words, right_rest) = right.as_chunks::<8>();
    let mut len = 0usize;
    for (a, b) in left_words.iter().zip(right_words) {
        let differing = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if differing != 0 {
            return len.wrapping_add((differing.trailing_zeros() / 8) as usize);
        }
        len = len.wrapping_add(8);
    }
    let left_rest = if left_words.len() > right_words.len() { left.get(len..) } else { Some(left_rest) };
    let right_rest = if right_words.len() > left_words.len() { right.get(len..) } else { Some(right_rest) };
    let rest = left_rest.unwrap_or_default().iter().zip(right_rest.unwrap_or_default());
    len.wrapping_add(rest.take_while(|(a, b)| a == b).count())
}

/// Compares as slices do, with the first eight bytes as one number: keys mostly differ there.
#[inline]
pub(super) fn compare(left: &[u8], right: &[u8]) -> std::cmp::Ordering {
    prefix_of(left).cmp(&prefix_of(right)).then_with(|| left.cmp(right))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_masks_and_columns_agree() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1u64 << shift) - 1, u64::MAX >> shift] {
                let width = width_of(value);
                let mut out = Vec::new();
                put_uint(&mut out, value, width);
                assert_eq!(out.len(), width);
                out.extend_from_slice(&[0xff; 8]);
                assert_eq!(get_uint(&out, 0, width_mask(width)), Some(value));
            }
        }
        assert_eq!((width_of(0), width_of(255), width_of(256), width_of(u64::MAX)), (1, 1, 2, 8));
        assert_eq!(get_uint(&[0; 8], 1, 1), None);
        assert_eq!(get_uint(&[0; 8], 9, 1), None);
    }

    #[test]
    fn prefixes_sort_as_their_bytes() {
        let keys: [&[u8]; 8] = [
            b"",
            b"\0",
            b"a",
            b"a\0",
            b"ab",
            b"abcdefgh",
            b"abcdefgi",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ];
        for (a, left) in keys.iter().enumerate() {
            for (b, right) in keys.iter().enumerate() {
                assert_eq!(compare(left, right), a.cmp(&b));
                if a < b {
                    assert!(prefix_of(left) <= prefix_of(right));
                }
            }
        }
    }

    #[test]
    fn common_prefixes_are_counted_at_every_length() {
        let base: Vec<u8> = (0..40).collect();
        for left in 0..40 {
            for right in 0..40 {
                for differ in 0..40 {
                    let a = base[..left].to_vec();
                    let mut b = base[..right].to_vec();
                    if let Some(byte) = b.get_mut(differ) {
                        *byte ^= 0x80;
                    }
                    let expect = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
                    assert_eq!(common_prefix_len(&a, &b), expect, "{left} {right} {differ}");
                }
            }
        }
    }
}
