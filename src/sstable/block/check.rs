//! Checking a whole data block: everything that reads rely on without looking.

use super::super::bytes::{Malformed, common_prefix_len, prefix_of};
use super::Block;
use crate::base::key::{InternalKey, KeyRef, Trailer};

/// What a block's entries add up to.
#[derive(Debug, Clone, Default)]
pub(crate) struct BlockTotals {
    /// Number of entries.
    pub(crate) entries: u64,
    /// Bytes of user keys, trailers and values.
    pub(crate) raw_bytes: u64,
}

/// Reads every entry, in order, calling `visit` with each; `before` is the last key of the block before.
pub(crate) fn check<E: From<Malformed>>(
    bytes: &[u8],
    before: Option<&InternalKey>,
    mut visit: impl FnMut(KeyRef<'_>, &[u8]) -> Result<(), E>,
) -> Result<(BlockTotals, InternalKey), E> {
    let block = Block::parse(bytes)?;
    let mut totals = BlockTotals::default();
    let mut key: Vec<u8> = before.map(|before| before.user.to_vec()).unwrap_or_default();
    let mut last = before.map(|before| before.trailer);
    let mut position = block.shape.keys;
    let mut common: Option<Vec<u8>> = None;
    for index in 0..block.shape.entries {
        let entry = block.key_entry(position)?;
        let restart = index.checked_rem(block.shape.interval) == Some(0);
        let user = join(&key, entry.shared, entry.suffix, index)?;
        let trailer = block.trailer(index)?;
        if last.is_some_and(|last| KeyRef::new(&key, last) >= KeyRef::new(&user, trailer)) {
            return Err(Malformed("keys that do not ascend").into());
        }
        let shares_most = entry.shared == common_prefix_len(&key, &user);
        let common = common.get_or_insert_with(|| user.get(..block.shape.common).unwrap_or(&user).to_vec());
        if common.len() != block.shape.common || !user.starts_with(common) {
            return Err(Malformed("a common prefix that not all keys have").into());
        }
        if restart {
            check_restart(&block, index, position, entry.shared, &user)?;
        } else if !shares_most {
            return Err(Malformed("a key that shares less than it could").into());
        }
        let value = bytes.get(block.value_range(index)?).unwrap_or_default();
        visit(KeyRef::new(&user, trailer), value)?;
        totals.entries = totals.entries.saturating_add(1);
        let entry_bytes = user.len().saturating_add(value.len()).saturating_add(8) as u64;
        totals.raw_bytes = totals.raw_bytes.saturating_add(entry_bytes);
        position = entry.next;
        key = user;
        last = Some(trailer);
    }
    if position != block.shape.ends
        || block.value_end(block.shape.entries.wrapping_sub(1))? != block.shape.keys
    {
        return Err(Malformed("bytes that belong to no entry").into());
    }
    let trailer = last.unwrap_or(Trailer::LAST);
    Ok((totals, KeyRef::new(&key, trailer).to_owned()))
}

fn join(key: &[u8], shared: usize, suffix: &[u8], index: usize) -> Result<Vec<u8>, Malformed> {
    if index == 0 && shared != 0 {
        return Err(Malformed("a restart that shares bytes"));
    }
    let head = key.get(..shared).ok_or(Malformed("a key that shares more than the key before it has"))?;
    let user = [head, suffix].concat();
    if user.is_empty() { Err(Malformed("an empty key")) } else { Ok(user) }
}

fn check_restart(
    block: &Block<'_>,
    index: usize,
    position: usize,
    shared: usize,
    user: &[u8],
) -> Result<(), Malformed> {
    let restart = index.checked_div(block.shape.interval).unwrap_or_default();
    let slot = block.shape.prefixes.wrapping_add(restart.wrapping_mul(8));
    let stored = block.bytes.get(slot..).and_then(|rest| rest.first_chunk::<8>());
    let prefix = prefix_of(user.get(block.shape.common..).unwrap_or_default());
    if shared != 0 || block.restart(restart)? != position || stored != Some(&prefix.to_be_bytes()) {
        return Err(Malformed("a restart that does not match its entry"));
    }
    Ok(())
}
