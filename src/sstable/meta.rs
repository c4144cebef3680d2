//! Metaindex and properties: the parts of a table that are found by name or by tag, so that later versions can add
//! to them.
//!
//! Metaindex block: varint number of entries; each: name (varint length, bytes), u8 rule, u64 start, u64 end of the
//! block's frame. Rule 0: a reader that does not know the block may ignore it. Any other: it must refuse the file.
//!
//! Properties block: fields of varint tag, varint length, bytes. Odd tags must be known, even ones may be ignored.
//! All integers in fields are varints.

use super::bytes::{Extent, Malformed};
use super::frame::FrameError;
use super::{TableOptions, TableSummary};
use crate::base::coding::{Reader, put_bytes, put_varint};
use crate::base::key::{InternalKey, KeyRef};
use crate::base::types::SeqNo;

/// Names of blocks. Never change.
pub(super) const FILTER_NAME: &str = "esker.filter";
pub(super) const PROPERTIES_NAME: &str = "esker.properties";

/// Rule of a block that may be ignored. Never change.
const MAY_IGNORE: u8 = 0;

/// Blocks of a table by name.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Metaindex {
    pub(super) filter: Option<Extent>,
    pub(super) properties: Option<Extent>,
}

impl Metaindex {
    /// The block's bytes. Both blocks that are known may be ignored by readers that do not know them.
    pub(super) fn encode(&self) -> Vec<u8> {
        let named = [(FILTER_NAME, self.filter), (PROPERTIES_NAME, self.properties)];
        let present: Vec<(&str, Extent)> =
            named.iter().filter_map(|(name, place)| place.map(|place| (*name, place))).collect();
        let mut out = Vec::new();
        put_varint(&mut out, present.len() as u64);
        for (name, place) in present {
            put_bytes(&mut out, name.as_bytes());
            out.push(MAY_IGNORE);
            out.extend_from_slice(&place.start.to_le_bytes());
            out.extend_from_slice(&place.end.to_le_bytes());
        }
        out
    }

    /// Reads the block; places must end by `limit`.
    pub(super) fn decode(bytes: &[u8], limit: u64) -> Result<Metaindex, FrameError> {
        let mut reader = Reader::new(bytes);
        let cut = Malformed("a metaindex that ends early");
        let mut metaindex = Metaindex::default();
        for _ in 0..reader.varint().ok_or(cut)? {
            let name = reader.bytes().ok_or(cut)?;
            let rule = reader.u8().ok_or(cut)?;
            let place = Extent { start: reader.u64().ok_or(cut)?, end: reader.u64().ok_or(cut)? };
            if place.start >= place.end || place.end > limit {
                return Err(Malformed("a named block that is empty or outside the file").into());
            }
            if name == FILTER_NAME.as_bytes() {
                metaindex.filter = Some(place);
            } else if name == PROPERTIES_NAME.as_bytes() {
                metaindex.properties = Some(place);
            } else if rule != MAY_IGNORE {
                return Err(FrameError::Unsupported(format!("block \"{}\"", name.escape_ascii())));
            }
        }
        if reader.is_empty() { Ok(metaindex) } else { Err(Malformed("bytes after the metaindex").into()) }
    }
}

/// What a table says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Properties {
    /// Number of entries.
    pub(crate) entries: u64,
    /// Entries that are deletes.
    pub(crate) deletes: u64,
    /// Bytes of user keys, trailers and values.
    pub(crate) raw_bytes: u64,
    /// Smallest sequence number.
    pub(crate) seq_min: SeqNo,
    /// Largest sequence number.
    pub(crate) seq_max: SeqNo,
    /// First key.
    pub(crate) smallest: InternalKey,
    /// Last key.
    pub(crate) largest: InternalKey,
    /// Number of data blocks.
    pub(crate) data_blocks: u64,
    /// Where the data blocks end in the file.
    pub(crate) data_bytes: u64,
    /// Program and version that wrote the table.
    pub(crate) created_by: String,
    /// Byte of the compression asked for.
    pub(crate) compression: u8,
    /// Byte of the filter kind asked for.
    pub(crate) filter: u8,
    /// Filter bits per key asked for.
    pub(crate) bits_per_key: u32,
    /// User keys in the filter.
    pub(crate) filter_keys: u64,
    /// Block size aimed at, in bytes.
    pub(crate) block_bytes: u64,
}

/// Tags. Never change, never reuse.
mod tag {
    pub(super) const ENTRIES: u64 = 1;
    pub(super) const DELETES: u64 = 3;
    pub(super) const RAW_BYTES: u64 = 5;
    pub(super) const SEQ_MIN: u64 = 7;
    pub(super) const SEQ_MAX: u64 = 9;
    pub(super) const SMALLEST: u64 = 11;
    pub(super) const LARGEST: u64 = 13;
    pub(super) const DATA_BLOCKS: u64 = 15;
    pub(super) const DATA_BYTES: u64 = 17;
    pub(super) const CREATED_BY: u64 = 2;
    pub(super) const COMPRESSION: u64 = 4;
    pub(super) const FILTER: u64 = 6;
    pub(super) const BITS_PER_KEY: u64 = 8;
    pub(super) const FILTER_KEYS: u64 = 10;
    pub(super) const BLOCK_BYTES: u64 = 12;
}

impl Properties {
    /// Properties of a finished table.
    pub(super) fn new(
        summary: &TableSummary,
        options: &TableOptions,
        (data_blocks, data_bytes, filter_keys): (u64, u64, u64),
        created_by: &str,
    ) -> Properties {
        Properties {
            entries: summary.entries,
            deletes: summary.deletes,
            raw_bytes: summary.raw_bytes,
            seq_min: summary.seq_min,
            seq_max: summary.seq_max,
            smallest: summary.smallest.clone(),
            largest: summary.largest.clone(),
            data_blocks,
            data_bytes,
            created_by: created_by.to_owned(),
            compression: options.compression as u8,
            filter: options.filter as u8,
            bits_per_key: options.bits_per_key,
            filter_keys,
            block_bytes: options.block_bytes as u64,
        }
    }

    /// The block's bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let numbers = [
            (tag::ENTRIES, self.entries),
            (tag::DELETES, self.deletes),
            (tag::RAW_BYTES, self.raw_bytes),
            (tag::SEQ_MIN, self.seq_min),
            (tag::SEQ_MAX, self.seq_max),
            (tag::DATA_BLOCKS, self.data_blocks),
            (tag::DATA_BYTES, self.data_bytes),
            (tag::COMPRESSION, u64::from(self.compression)),
            (tag::FILTER, u64::from(self.filter)),
            (tag::BITS_PER_KEY, u64::from(self.bits_per_key)),
            (tag::FILTER_KEYS, self.filter_keys),
            (tag::BLOCK_BYTES, self.block_bytes),
        ];
        for (tag, value) in numbers {
            let mut field = Vec::new();
            put_varint(&mut field, value);
            put_field(&mut out, tag, &field);
        }
        for (tag, key) in [(tag::SMALLEST, &self.smallest), (tag::LARGEST, &self.largest)] {
            let mut field = Vec::new();
            key.as_ref().encode_into(&mut field);
            put_field(&mut out, tag, &field);
        }
        put_field(&mut out, tag::CREATED_BY, self.created_by.as_bytes());
        out
    }

    /// Reads the block.
    pub(super) fn decode(bytes: &[u8]) -> Result<Properties, FrameError> {
        let fields = Fields::read(bytes)?;
        let byte = |tag| u8::try_from(fields.number(tag).unwrap_or(0)).unwrap_or(u8::MAX);
        let missing = Malformed("properties without a field that all tables have");
        let required = |tag| fields.number(tag).ok_or(missing);
        Ok(Properties {
            entries: required(tag::ENTRIES)?,
            deletes: required(tag::DELETES)?,
            raw_bytes: required(tag::RAW_BYTES)?,
            seq_min: required(tag::SEQ_MIN)?,
            seq_max: required(tag::SEQ_MAX)?,
            smallest: fields.key(tag::SMALLEST).ok_or(missing)?,
            largest: fields.key(tag::LARGEST).ok_or(missing)?,
            data_blocks: required(tag::DATA_BLOCKS)?,
            data_bytes: required(tag::DATA_BYTES)?,
            created_by: String::from_utf8_lossy(fields.bytes(tag::CREATED_BY).unwrap_or_default())
                .into_owned(),
            compression: byte(tag::COMPRESSION),
            filter: byte(tag::FILTER),
            bits_per_key: u32::try_from(fields.number(tag::BITS_PER_KEY).unwrap_or(0)).unwrap_or(u32::MAX),
            filter_keys: fields.number(tag::FILTER_KEYS).unwrap_or(0),
            block_bytes: fields.number(tag::BLOCK_BYTES).unwrap_or(0),
        })
    }
}

fn put_field(out: &mut Vec<u8>, tag: u64, bytes: &[u8]) {
    put_varint(out, tag);
    put_bytes(out, bytes);
}

/// Largest tag that this version knows, plus one.
const TAGS: usize = 18;

/// Fields by tag.
struct Fields<'a> {
    by_tag: [Option<&'a [u8]>; TAGS],
}

impl<'a> Fields<'a> {
    fn read(bytes: &'a [u8]) -> Result<Fields<'a>, FrameError> {
        let cut = Malformed("properties that end early");
        let mut reader = Reader::new(bytes);
        let mut by_tag = [None; TAGS];
        while !reader.is_empty() {
            let tag = reader.varint().ok_or(cut)?;
            let field = reader.bytes().ok_or(cut)?;
            let known = usize::try_from(tag).ok().and_then(|tag| by_tag.get_mut(tag));
            match known {
                Some(slot) => *slot = Some(field),
                None if tag % 2 == 1 => return Err(FrameError::Unsupported(format!("table property {tag}"))),
                None => {}
            }
        }
        Ok(Fields { by_tag })
    }

    fn bytes(&self, tag: u64) -> Option<&'a [u8]> {
        self.by_tag.get(usize::try_from(tag).ok()?).copied().flatten()
    }

    fn number(&self, tag: u64) -> Option<u64> {
        Reader::new(self.bytes(tag)?).varint()
    }

    fn key(&self, tag: u64) -> Option<InternalKey> {
        KeyRef::decode(self.bytes(tag)?).map(KeyRef::to_owned)
    }
}
