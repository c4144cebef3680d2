//! A commit of one write, encoded in a buffer that the thread keeps.

use super::core::Core;
use super::options::Durability;
use crate::base::error::{Error, Result};
use crate::base::types::{KeyspaceId, SeqNo};
use crate::wal::BatchBuilder;
use std::cell::RefCell;

/// A thread keeps its buffer for single writes up to this size.
const SINGLE_BYTES_KEPT: usize = 1 << 20;

thread_local! {
    /// Reused by single writes.
    static SINGLE: RefCell<BatchBuilder> = RefCell::new(BatchBuilder::new());
}

impl Core {
    /// Commits one write.
    pub(crate) fn write_one(
        &self,
        keyspace: KeyspaceId,
        durability: Durability,
        check: &dyn Fn(SeqNo) -> Result<()>,
        fill: impl FnOnce(&mut BatchBuilder) -> Result<()>,
    ) -> Result<SeqNo> {
        let batch = SINGLE.with_borrow_mut(|builder| {
            builder.clear();
            fill(builder)?;
            let batch = builder.freeze();
            if batch.bytes.len() > SINGLE_BYTES_KEPT {
                *builder = BatchBuilder::new();
            }
            Ok::<_, Error>(batch)
        })?;
        self.timed_write(|| self.commit(&batch, &[keyspace], durability, check))
    }
}
