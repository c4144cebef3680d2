//! Options of one keyspace: what shapes its files, as the caller sets it, as it is stored, and as the parts that work
//! on it take it.

use super::{CompactionStyle, Compression, FilterKind, MIB, report};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::types::KeyspaceId;
use crate::compaction::{Shape, Style};
use crate::engine::keyspace::is_reserved;
use crate::manifest::{EditOp, KeyspaceSettings};
use crate::sstable::TableOptions;

/// Settings of one keyspace, stored in the database when the keyspace is created. An existing keyspace keeps what it
/// was created with, whatever is asked for later.
///
/// Build with [`KeyspaceOptions::new`] and chain what you want changed; the fields are for reading, such as those of
/// [`Keyspace::options`](crate::Keyspace::options).
///
/// ```
/// # fn main() -> esker::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = esker::Db::open(dir.path())?;
/// let logs = db.keyspace_with("logs", &esker::KeyspaceOptions::new().bloom_bits(0).block_bytes(16 << 10))?;
/// assert_eq!(logs.options().bloom_bits, 0);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyspaceOptions {
    /// See [`compression`](KeyspaceOptions::compression()).
    pub compression: Compression,
    /// See [`filter`](KeyspaceOptions::filter()).
    pub filter: FilterKind,
    /// See [`bloom_bits`](KeyspaceOptions::bloom_bits()).
    pub bloom_bits: u32,
    /// See [`block_bytes`](KeyspaceOptions::block_bytes()).
    pub block_bytes: u32,
    /// See [`restart_interval`](KeyspaceOptions::restart_interval()).
    pub restart_interval: u32,
    /// See [`compaction_style`](KeyspaceOptions::compaction_style()).
    pub compaction_style: CompactionStyle,
    /// See [`size_ratio`](KeyspaceOptions::size_ratio()).
    pub size_ratio: u32,
    /// See [`l0_runs`](KeyspaceOptions::l0_runs()).
    pub l0_runs: u32,
    /// See [`level_base_bytes`](KeyspaceOptions::level_base_bytes()).
    pub level_base_bytes: u64,
    /// See [`target_table_bytes`](KeyspaceOptions::target_table_bytes()).
    pub target_table_bytes: u64,
    /// See [`fifo_bytes_max`](KeyspaceOptions::fifo_bytes_max()).
    pub fifo_bytes_max: u64,
    /// See [`write_buffer_bytes`](KeyspaceOptions::write_buffer_bytes()). 0: not chosen, every open takes that of the
    /// database, [`ResolvedOptions::write_buffer_bytes`](crate::ResolvedOptions::write_buffer_bytes).
    pub write_buffer_bytes: u64,
}

impl Default for KeyspaceOptions {
    fn default() -> Self {
        KeyspaceOptions {
            compression: Compression::default(),
            filter: FilterKind::default(),
            bloom_bits: 10,
            block_bytes: 4096,
            restart_interval: 16,
            compaction_style: CompactionStyle::default(),
            size_ratio: 8,
            l0_runs: 4,
            level_base_bytes: 256 * MIB,
            target_table_bytes: 64 * MIB,
            fifo_bytes_max: 0,
            write_buffer_bytes: 0,
        }
    }
}

impl KeyspaceOptions {
    /// The defaults.
    pub fn new() -> KeyspaceOptions {
        KeyspaceOptions::default()
    }

    /// Compression of data blocks. Default: LZ4.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Kind of filter. Default: blocked.
    pub fn filter(mut self, filter: FilterKind) -> Self {
        self.filter = filter;
        self
    }

    /// Bits of filter per key, 0 (no filter) to 64. Default 10, about 1 % false answers.
    pub fn bloom_bits(mut self, bits: u32) -> Self {
        self.bloom_bits = bits;
        self
    }

    /// Uncompressed bytes of a data block, 256 to 1 MiB. Default 4096. Larger blocks compress better and cost more
    /// per point read.
    pub fn block_bytes(mut self, bytes: u32) -> Self {
        self.block_bytes = bytes;
        self
    }

    /// Entries between keys stored whole, 1 to 1024. Default 16.
    pub fn restart_interval(mut self, entries: u32) -> Self {
        self.restart_interval = entries;
        self
    }

    /// Compaction style. Default: lazy leveling.
    pub fn compaction_style(mut self, style: CompactionStyle) -> Self {
        self.compaction_style = style;
        self
    }

    /// How many times larger a level is than the one above, 2 to 100. Default 8.
    pub fn size_ratio(mut self, ratio: u32) -> Self {
        self.size_ratio = ratio;
        self
    }

    /// Runs in level 0 that start a compaction, 1 to 64. Default 4.
    pub fn l0_runs(mut self, runs: u32) -> Self {
        self.l0_runs = runs;
        self
    }

    /// Bytes that the first level below level 0 holds before it counts as full. Default 256 MiB.
    pub fn level_base_bytes(mut self, bytes: u64) -> Self {
        self.level_base_bytes = bytes;
        self
    }

    /// Bytes at which compaction starts a new output table. Default 64 MiB.
    pub fn target_table_bytes(mut self, bytes: u64) -> Self {
        self.target_table_bytes = bytes;
        self
    }

    /// With [`CompactionStyle::Fifo`]: bytes above which the oldest tables are dropped; 0 for never. Default 0.
    pub fn fifo_bytes_max(mut self, bytes: u64) -> Self {
        self.fifo_bytes_max = bytes;
        self
    }

    /// Bytes of memory in which writes gather before they are flushed into a table. Default, or 0: that of the
    /// database at each open, from the memory budget and at most 64 MiB; any other value is kept for good.
    pub fn write_buffer_bytes(mut self, bytes: u64) -> Self {
        self.write_buffer_bytes = bytes;
        self
    }

    pub(super) fn problems(&self, problems: &mut Vec<String>) {
        let mut range = |name: &str, value: u64, low: u64, high: u64| {
            if value < low || value > high {
                problems.push(format!("{name} must be {low} to {high}, is {value}"));
            }
        };
        range("bloom_bits", u64::from(self.bloom_bits), 0, 64);
        range("block_bytes", u64::from(self.block_bytes), 256, MIB);
        range("restart_interval", u64::from(self.restart_interval), 1, 1024);
        range("size_ratio", u64::from(self.size_ratio), 2, 100);
        range("l0_runs", u64::from(self.l0_runs), 1, 64);
        range("level_base_bytes", self.level_base_bytes, 1024, 1 << 50);
        range("target_table_bytes", self.target_table_bytes, 1024, 1 << 40);
        if self.write_buffer_bytes != 0 {
            range("write_buffer_bytes", self.write_buffer_bytes, 1024, 1 << 40);
        }
    }

    pub(crate) fn to_settings(&self) -> KeyspaceSettings {
        KeyspaceSettings {
            compaction: match self.compaction_style {
                CompactionStyle::LazyLeveling => 0,
                CompactionStyle::Leveled => 1,
                CompactionStyle::Tiered => 2,
                CompactionStyle::Fifo => 3,
            },
            compression: match self.compression {
                Compression::None => 0,
                Compression::Lz4 => 1,
            },
            filter: match self.filter {
                FilterKind::None => 0,
                FilterKind::Standard => 1,
                FilterKind::Blocked => 2,
            },
            bits_per_key: self.bloom_bits,
            block_bytes: self.block_bytes,
            restart_interval: self.restart_interval,
            write_buffer_bytes: self.write_buffer_bytes,
            target_table_bytes: self.target_table_bytes,
            size_ratio: self.size_ratio,
            l0_runs: self.l0_runs,
            fifo_bytes_max: self.fifo_bytes_max,
            level_base_bytes: self.level_base_bytes,
        }
    }

    /// What a stored record means; an error when a later version wrote it.
    pub(crate) fn from_settings(settings: &KeyspaceSettings) -> Result<KeyspaceOptions> {
        let unknown = |what: &str, byte: u8| {
            Err(Error::new(
                ErrorKind::VersionUnsupported,
                format!("a keyspace uses {what} {byte}, unknown to this version"),
            ))
        };
        Ok(KeyspaceOptions {
            compaction_style: match settings.compaction {
                0 => CompactionStyle::LazyLeveling,
                1 => CompactionStyle::Leveled,
                2 => CompactionStyle::Tiered,
                3 => CompactionStyle::Fifo,
                other => return unknown("compaction style", other),
            },
            compression: match settings.compression {
                0 => Compression::None,
                1 => Compression::Lz4,
                other => return unknown("compression", other),
            },
            filter: match settings.filter {
                0 => FilterKind::None,
                1 => FilterKind::Standard,
                2 => FilterKind::Blocked,
                other => return unknown("filter kind", other),
            },
            bloom_bits: settings.bits_per_key,
            block_bytes: settings.block_bytes,
            restart_interval: settings.restart_interval,
            size_ratio: settings.size_ratio,
            l0_runs: settings.l0_runs,
            level_base_bytes: settings.level_base_bytes,
            target_table_bytes: settings.target_table_bytes,
            fifo_bytes_max: settings.fifo_bytes_max,
            write_buffer_bytes: settings.write_buffer_bytes,
        })
    }

    pub(crate) fn table_options(&self) -> TableOptions {
        TableOptions {
            block_bytes: self.block_bytes as usize,
            restart_interval: self.restart_interval as usize,
            compression: match self.compression {
                Compression::None => crate::sstable::Compression::None,
                Compression::Lz4 => crate::sstable::Compression::Lz4,
            },
            filter: match self.filter {
                _ if self.bloom_bits == 0 => crate::sstable::FilterKind::None,
                FilterKind::None => crate::sstable::FilterKind::None,
                FilterKind::Standard => crate::sstable::FilterKind::Standard,
                FilterKind::Blocked => crate::sstable::FilterKind::Blocked,
            },
            bits_per_key: self.bloom_bits,
            index_block_bytes: 1 << 20,
        }
    }

    pub(crate) fn shape(&self) -> Shape {
        Shape {
            style: match self.compaction_style {
                CompactionStyle::LazyLeveling => Style::LazyLeveling,
                CompactionStyle::Leveled => Style::Leveled,
                CompactionStyle::Tiered => Style::Tiered,
                CompactionStyle::Fifo => Style::Fifo,
            },
            size_ratio: self.size_ratio,
            l0_runs: self.l0_runs,
            level_base_bytes: self.level_base_bytes,
            target_table_bytes: self.target_table_bytes,
            max_compaction_bytes: self.target_table_bytes.saturating_mul(25),
            fifo_bytes_max: self.fifo_bytes_max,
        }
    }

    pub(crate) fn creation(&self, id: KeyspaceId, name: &str) -> EditOp {
        EditOp::CreateKeyspace { id, name: name.to_string(), settings: self.to_settings() }
    }
}

/// Checks the settings of a keyspace and the name that a user gives it.
pub(crate) fn validate_keyspace(name: &str, options: &KeyspaceOptions) -> Result<()> {
    let mut problems = Vec::new();
    if name.is_empty() || name.len() > 255 {
        problems.push(format!("a keyspace name has 1 to 255 bytes, this one has {}", name.len()));
    }
    if is_reserved(name) {
        problems.push(reserved(name));
    }
    options.problems(&mut problems);
    report(problems.into_iter().map(|problem| format!("keyspace {name:?}: {problem}")).collect())
}

/// What is wrong with a reserved name.
pub(crate) fn reserved(name: &str) -> String {
    format!("names of keyspaces that begin with \\0 are reserved: {name:?}")
}
