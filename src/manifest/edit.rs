//! Edits: what changes from one version to the next, and their form on disk.
//!
//! An edit is a sequence of operations, each a tagged field (see `base::fields`) whose content is again tagged fields.
//! A snapshot is an edit too: the one that leads from the empty version to the present one.

use super::meta::{Moment, TableMeta};
use super::settings::KeyspaceSettings;
use crate::base::fields::{
    DecodeError, FieldMap, Fields, malformed, number, put_field, put_nested, put_number,
};
use crate::base::key::{InternalKey, KeyRef};
use crate::base::types::{FileNo, KEY_BYTES_MAX, KeyspaceId, SegmentNo, SeqNo, UnknownKind};

/// One change. The watermarks (`Flushed`, `LogNumber`, `ReserveFiles`, `NextEpoch`, `NextKeyspace`, `LastSeq`, `Floor`)
/// only rise: a lower value than the present one says nothing new and changes nothing, so edits made at the same time
/// may be written in either order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EditOp {
    /// A keyspace with a number never used before and a name that no living keyspace has.
    CreateKeyspace { id: KeyspaceId, name: String, settings: KeyspaceSettings },
    /// Removes a keyspace with all its tables. Not the default one.
    DropKeyspace { id: KeyspaceId },
    /// Replaces the settings of a keyspace.
    SetSettings { id: KeyspaceId, settings: KeyspaceSettings },
    /// Adds a table to the run with this epoch, which begins with it if there is none.
    AddTable { keyspace: KeyspaceId, level: u8, epoch: u64, table: TableMeta },
    /// Removes a table from a run; a run without tables is gone.
    RemoveTable { keyspace: KeyspaceId, level: u8, epoch: u64, number: FileNo },
    /// Everything of this keyspace up to this sequence number is in tables.
    Flushed { keyspace: KeyspaceId, seq: SeqNo },
    /// Log segments below this number are not needed.
    LogNumber(SegmentNo),
    /// File numbers below this one may be used.
    ReserveFiles(FileNo),
    /// Epochs below this one may have been used.
    NextEpoch(u64),
    /// Keyspace numbers below this one may have been used.
    NextKeyspace(u32),
    /// Sequence numbers up to this one may have been used.
    LastSeq(SeqNo),
    /// The database was closed with everything in tables; the next segment to be created has this number.
    Clean { next_log: SegmentNo },
    /// At every sequence number from this one on, the tables have all that a reader there sees.
    Floor(SeqNo),
    /// A sequence number that was visible at a time, for finding states of the past. It takes the place of the last one
    /// (unless that is the only one) when both lie in one span of this many microseconds; one that does not go on from
    /// the last changes nothing.
    Moment { moment: Moment, span_micros: u64 },
}

/// Changes that become durable together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Edit(pub(crate) Vec<EditOp>);

/// Tags of operations. On disk: never change.
mod tag {
    pub(super) const CREATE_KEYSPACE: u64 = 1;
    pub(super) const DROP_KEYSPACE: u64 = 2;
    pub(super) const SET_SETTINGS: u64 = 3;
    pub(super) const ADD_TABLE: u64 = 4;
    pub(super) const REMOVE_TABLE: u64 = 5;
    pub(super) const FLUSHED: u64 = 6;
    pub(super) const LOG_NUMBER: u64 = 7;
    pub(super) const RESERVE_FILES: u64 = 8;
    pub(super) const NEXT_EPOCH: u64 = 9;
    pub(super) const NEXT_KEYSPACE: u64 = 10;
    pub(super) const LAST_SEQ: u64 = 11;
    pub(super) const CLEAN: u64 = 12;
    pub(super) const FLOOR: u64 = 13;
    pub(super) const MOMENT: u64 = 14;
}

impl Edit {
    /// Appends the form on disk.
    pub(crate) fn encode_into(&self, out: &mut Vec<u8>) {
        self.0.iter().for_each(|op| op.encode_into(out));
    }

    /// Reads the form on disk.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Edit, DecodeError> {
        let mut ops = Vec::new();
        let mut fields = Fields::new(bytes);
        while let Some((tag, content)) = fields.next()? {
            ops.push(EditOp::decode(tag, content)?);
        }
        Ok(Edit(ops))
    }
}

impl EditOp {
    fn encode_into(&self, out: &mut Vec<u8>) {
        match self {
            EditOp::CreateKeyspace { id, name, settings } => put_nested(out, tag::CREATE_KEYSPACE, |body| {
                put_number(body, 1, u64::from(id.0));
                put_field(body, 2, name.as_bytes());
                put_nested(body, 3, |inner| encode_settings(settings, inner));
            }),
            EditOp::DropKeyspace { id } => put_number(out, tag::DROP_KEYSPACE, u64::from(id.0)),
            EditOp::SetSettings { id, settings } => put_nested(out, tag::SET_SETTINGS, |body| {
                put_number(body, 1, u64::from(id.0));
                put_nested(body, 2, |inner| encode_settings(settings, inner));
            }),
            EditOp::AddTable { keyspace, level, epoch, table } => put_nested(out, tag::ADD_TABLE, |body| {
                encode_place(*keyspace, *level, *epoch, body);
                put_nested(body, 4, |inner| encode_table(table, inner));
            }),
            EditOp::RemoveTable { keyspace, level, epoch, number } => {
                put_nested(out, tag::REMOVE_TABLE, |body| {
                    encode_place(*keyspace, *level, *epoch, body);
                    put_number(body, 4, *number);
                });
            }
            EditOp::Flushed { keyspace, seq } => put_nested(out, tag::FLUSHED, |body| {
                put_number(body, 1, u64::from(keyspace.0));
                put_number(body, 2, *seq);
            }),
            EditOp::LogNumber(value) => put_number(out, tag::LOG_NUMBER, *value),
            EditOp::ReserveFiles(value) => put_number(out, tag::RESERVE_FILES, *value),
            EditOp::NextEpoch(value) => put_number(out, tag::NEXT_EPOCH, *value),
            EditOp::NextKeyspace(value) => put_number(out, tag::NEXT_KEYSPACE, u64::from(*value)),
            EditOp::LastSeq(value) => put_number(out, tag::LAST_SEQ, *value),
            EditOp::Clean { next_log } => put_number(out, tag::CLEAN, *next_log),
            EditOp::Floor(value) => put_number(out, tag::FLOOR, *value),
            EditOp::Moment { moment, span_micros } => put_nested(out, tag::MOMENT, |body| {
                put_number(body, 1, moment.at_micros);
                put_number(body, 2, moment.seq);
                put_number(body, 3, *span_micros);
            }),
        }
    }

    fn decode(tag: u64, content: &[u8]) -> Result<EditOp, DecodeError> {
        Ok(match tag {
            tag::CREATE_KEYSPACE => decode_create(content)?,
            tag::DROP_KEYSPACE => EditOp::DropKeyspace { id: KeyspaceId(only("drop keyspace", content)?) },
            tag::SET_SETTINGS => {
                let body = FieldMap::decode("settings of a keyspace", 2, content)?;
                EditOp::SetSettings {
                    id: KeyspaceId(body.number(1)?),
                    settings: decode_settings(body.bytes(2)?)?,
                }
            }
            tag::ADD_TABLE => {
                let body = FieldMap::decode("add table", 4, content)?;
                EditOp::AddTable {
                    keyspace: KeyspaceId(body.number(1)?),
                    level: body.number(2)?,
                    epoch: body.number(3)?,
                    table: decode_table(body.bytes(4)?)?,
                }
            }
            tag::REMOVE_TABLE => {
                let body = FieldMap::decode("remove table", 4, content)?;
                EditOp::RemoveTable {
                    keyspace: KeyspaceId(body.number(1)?),
                    level: body.number(2)?,
                    epoch: body.number(3)?,
                    number: body.number(4)?,
                }
            }
            tag::FLUSHED => {
                let body = FieldMap::decode("flushed", 2, content)?;
                EditOp::Flushed { keyspace: KeyspaceId(body.number(1)?), seq: body.number(2)? }
            }
            tag::LOG_NUMBER => EditOp::LogNumber(only("log number", content)?),
            tag::RESERVE_FILES => EditOp::ReserveFiles(only("reserve files", content)?),
            tag::NEXT_EPOCH => EditOp::NextEpoch(only("next epoch", content)?),
            tag::NEXT_KEYSPACE => EditOp::NextKeyspace(only("next keyspace", content)?),
            tag::LAST_SEQ => EditOp::LastSeq(only("last sequence", content)?),
            tag::CLEAN => EditOp::Clean { next_log: only("clean", content)? },
            tag::FLOOR => EditOp::Floor(only("floor", content)?),
            tag::MOMENT => {
                let body = FieldMap::decode("moment", 3, content)?;
                let moment = Moment { at_micros: body.number(1)?, seq: body.number(2)? };
                EditOp::Moment { moment, span_micros: body.number(3)? }
            }
            other => return Err(DecodeError::Unsupported(format!("edit operation {other}"))),
        })
    }
}

/// The number that is all of an operation's content.
fn only<N: TryFrom<u64>>(name: &'static str, content: &[u8]) -> Result<N, DecodeError> {
    number(content)
        .and_then(|value| N::try_from(value).ok())
        .ok_or_else(|| malformed(format!("{name}: not its number")))
}

fn decode_create(content: &[u8]) -> Result<EditOp, DecodeError> {
    let body = FieldMap::decode("create keyspace", 3, content)?;
    let name =
        std::str::from_utf8(body.bytes(2)?).map_err(|_| malformed("a keyspace's name is not UTF-8"))?;
    Ok(EditOp::CreateKeyspace {
        id: KeyspaceId(body.number(1)?),
        name: name.to_owned(),
        settings: decode_settings(body.bytes(3)?)?,
    })
}

fn encode_place(keyspace: KeyspaceId, level: u8, epoch: u64, out: &mut Vec<u8>) {
    put_number(out, 1, u64::from(keyspace.0));
    put_number(out, 2, u64::from(level));
    put_number(out, 3, epoch);
}

/// Fields that are 0 are left out.
fn encode_settings(settings: &KeyspaceSettings, out: &mut Vec<u8>) {
    for (tag, _, value) in settings.fields() {
        if value != 0 {
            put_number(out, tag, value);
        }
    }
}

fn decode_settings(bytes: &[u8]) -> Result<KeyspaceSettings, DecodeError> {
    let mut settings = KeyspaceSettings::default();
    let known = settings.fields();
    let body = FieldMap::decode("settings", known.len() as u64, bytes)?;
    for (tag, name, _) in known {
        let Some(content) = body.get(tag) else { continue };
        number(content)
            .and_then(|value| settings.set(tag, value))
            .ok_or_else(|| malformed(format!("settings: {name} is not its number")))?;
    }
    Ok(settings)
}

fn encode_table(table: &TableMeta, out: &mut Vec<u8>) {
    put_number(out, 1, table.number);
    put_number(out, 2, table.origin);
    put_number(out, 3, table.bytes);
    put_nested(out, 4, |key| table.smallest.as_ref().encode_into(key));
    put_nested(out, 5, |key| table.largest.as_ref().encode_into(key));
    put_number(out, 6, table.entries);
    put_number(out, 7, table.deletes);
    put_number(out, 8, table.raw_bytes);
    put_number(out, 9, table.seq_min);
    put_number(out, 10, table.seq_max);
    if table.older_versions > 0 {
        put_number(out, 11, table.older_versions);
    }
}

fn decode_table(bytes: &[u8]) -> Result<TableMeta, DecodeError> {
    let body = FieldMap::decode("table", 11, bytes)?;
    let older_versions = if body.get(11).is_some() { body.number(11)? } else { 0 };
    Ok(TableMeta {
        number: body.number(1)?,
        origin: body.number(2)?,
        bytes: body.number(3)?,
        smallest: decode_key(body.bytes(4)?)?,
        largest: decode_key(body.bytes(5)?)?,
        entries: body.number(6)?,
        deletes: body.number(7)?,
        raw_bytes: body.number(8)?,
        seq_min: body.number(9)?,
        seq_max: body.number(10)?,
        older_versions,
    })
}

fn decode_key(bytes: &[u8]) -> Result<InternalKey, DecodeError> {
    let key = KeyRef::decode(bytes).ok_or_else(|| malformed("a table bound without trailer"))?;
    if key.user.is_empty() || key.user.len() > KEY_BYTES_MAX {
        return Err(malformed(format!("a table bound of {} bytes", key.user.len())));
    }
    match key.trailer.kind() {
        Ok(_) => Ok(key.to_owned()),
        Err(UnknownKind::Reserved(name)) => Err(DecodeError::Unsupported(format!("entry kind {name}"))),
        Err(UnknownKind::Invalid(byte)) => Err(malformed(format!("a table bound of kind {byte}"))),
    }
}
