//! Settings of a keyspace as the manifest keeps them: numbers with tags, without meaning here.
//!
//! What a number means, and whether this version can serve it, is for the layer that owns the option to say.

/// Persisted settings of a keyspace. A field that is 0 was not set, or was written by a version that had no such
/// field; its owner says what that stands for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct KeyspaceSettings {
    /// Compaction style: 0 lazy leveling, 1 leveled, 2 tiered, 3 FIFO.
    pub(crate) compaction: u8,
    /// Compression of data blocks, as the byte in tables.
    pub(crate) compression: u8,
    /// Kind of filter, as the byte in tables.
    pub(crate) filter: u8,
    /// Filter bits for each key.
    pub(crate) bits_per_key: u32,
    /// Size of a data block.
    pub(crate) block_bytes: u32,
    /// Entries between restart points of a block.
    pub(crate) restart_interval: u32,
    /// Size at which a memtable is flushed.
    pub(crate) write_buffer_bytes: u64,
    /// Size at which an output table is cut.
    pub(crate) target_table_bytes: u64,
    /// Growth from one level to the next.
    pub(crate) size_ratio: u32,
    /// Runs in level 0 that start a compaction.
    pub(crate) l0_runs: u32,
    /// Size beyond which FIFO drops the oldest run; 0 for no bound.
    pub(crate) fifo_bytes_max: u64,
    /// Size of the first level below level 0.
    pub(crate) level_base_bytes: u64,
}

impl KeyspaceSettings {
    /// Fields as (tag, name, value). Tags are on disk: never change them.
    pub(crate) fn fields(&self) -> [(u64, &'static str, u64); 12] {
        [
            (1, "compaction", u64::from(self.compaction)),
            (2, "compression", u64::from(self.compression)),
            (3, "filter", u64::from(self.filter)),
            (4, "bits_per_key", u64::from(self.bits_per_key)),
            (5, "block_bytes", u64::from(self.block_bytes)),
            (6, "restart_interval", u64::from(self.restart_interval)),
            (7, "write_buffer_bytes", self.write_buffer_bytes),
            (8, "target_table_bytes", self.target_table_bytes),
            (9, "size_ratio", u64::from(self.size_ratio)),
            (10, "l0_runs", u64::from(self.l0_runs)),
            (11, "fifo_bytes_max", self.fifo_bytes_max),
            (12, "level_base_bytes", self.level_base_bytes),
        ]
    }

    /// Sets the field with this tag; `None` when there is no such field or the value does not fit it.
    pub(crate) fn set(&mut self, tag: u64, value: u64) -> Option<()> {
        match tag {
            1 => self.compaction = u8::try_from(value).ok()?,
            2 => self.compression = u8::try_from(value).ok()?,
            3 => self.filter = u8::try_from(value).ok()?,
            4 => self.bits_per_key = u32::try_from(value).ok()?,
            5 => self.block_bytes = u32::try_from(value).ok()?,
            6 => self.restart_interval = u32::try_from(value).ok()?,
            7 => self.write_buffer_bytes = value,
            8 => self.target_table_bytes = value,
            9 => self.size_ratio = u32::try_from(value).ok()?,
            10 => self.l0_runs = u32::try_from(value).ok()?,
            11 => self.fifo_bytes_max = value,
            12 => self.level_base_bytes = value,
            _ => return None,
        }
        Some(())
    }
}
