//! Tagged fields: `(tag varint, length varint, bytes)*`, the form of everything on disk that may grow:
//! manifest records, records of the system keyspace.
//!
//! A reader that meets a tag it does not know may skip the field if the tag is even and at least
//! [`FIRST_FREE_TAG`]; any other unknown tag means that a later version wrote something that must not be missed,
//! and it is refused. (The idea of critical and ancillary parts is PNG's.) A skipped field is not in what
//! is written next: whoever adds an even tag must be able to live without it.

use super::coding::{Reader, put_bytes, put_varint, varint_len};

/// Tags below are this version's, or refused. Never change.
pub(crate) const FIRST_FREE_TAG: u64 = 16;

/// Why bytes could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DecodeError {
    /// No version writes such bytes.
    Malformed(String),
    /// A later version wrote them and relies on their being understood.
    Unsupported(String),
}

/// Shorthand for a malformed input.
pub(crate) fn malformed(what: impl Into<String>) -> DecodeError {
    DecodeError::Malformed(what.into())
}

/// Appends a field that holds a number.
pub(crate) fn put_number(out: &mut Vec<u8>, tag: u64, value: u64) {
    put_varint(out, tag);
    put_varint(out, varint_len(value) as u64);
    put_varint(out, value);
}

/// Appends a field that holds bytes.
pub(crate) fn put_field(out: &mut Vec<u8>, tag: u64, bytes: &[u8]) {
    put_varint(out, tag);
    put_bytes(out, bytes);
}

/// Appends a field whose content is written by `fill`.
pub(crate) fn put_nested(out: &mut Vec<u8>, tag: u64, fill: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::with_capacity(64);
    fill(&mut inner);
    put_field(out, tag, &inner);
}

/// Walks fields in the order in which they stand.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    reader: Reader<'a>,
}

impl<'a> Fields<'a> {
    /// Starts at the first field.
    pub(crate) fn new(bytes: &'a [u8]) -> Fields<'a> {
        Fields { reader: Reader::new(bytes) }
    }

    /// The next field with a tag below [`FIRST_FREE_TAG`], which the caller knows or refuses.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, &'a [u8])>, DecodeError> {
        while !self.reader.is_empty() {
            let tag = self.reader.varint().ok_or_else(|| malformed("a broken tag"))?;
            let bytes = self.reader.bytes().ok_or_else(|| malformed(format!("field {tag} cut short")))?;
            if tag == 0 {
                return Err(malformed("field 0"));
            }
            if tag < FIRST_FREE_TAG {
                return Ok(Some((tag, bytes)));
            }
            if tag % 2 == 1 {
                return Err(DecodeError::Unsupported(format!("field {tag}")));
            }
        }
        Ok(None)
    }
}

/// The fields of one thing by tag: each at most once, in ascending order.
#[derive(Debug)]
pub(crate) struct FieldMap<'a> {
    name: &'static str,
    fields: [Option<&'a [u8]>; FIRST_FREE_TAG as usize],
}

impl<'a> FieldMap<'a> {
    /// Reads all fields of a thing called `name`, whose tags are 1 to `last`.
    pub(crate) fn decode(
        name: &'static str,
        last: u64,
        bytes: &'a [u8],
    ) -> Result<FieldMap<'a>, DecodeError> {
        let mut fields = [None; FIRST_FREE_TAG as usize];
        let mut walk = Fields::new(bytes);
        let mut before = 0;
        while let Some((tag, value)) = walk.next()? {
            if tag <= before {
                return Err(malformed(format!("{name}: field {tag} after field {before}")));
            }
            if tag > last {
                return Err(DecodeError::Unsupported(format!("{name}: field {tag}")));
            }
            before = tag;
            if let Some(slot) = usize::try_from(tag).ok().and_then(|index| fields.get_mut(index)) {
                *slot = Some(value);
            }
        }
        Ok(FieldMap { name, fields })
    }

    /// Content of a field, if it is there.
    pub(crate) fn get(&self, tag: u64) -> Option<&'a [u8]> {
        usize::try_from(tag).ok().and_then(|index| self.fields.get(index).copied().flatten())
    }

    /// Content of a field that must be there.
    pub(crate) fn bytes(&self, tag: u64) -> Result<&'a [u8], DecodeError> {
        self.get(tag).ok_or_else(|| malformed(format!("{}: no field {tag}", self.name)))
    }

    /// Number in a field that must be there.
    pub(crate) fn number<N: TryFrom<u64>>(&self, tag: u64) -> Result<N, DecodeError> {
        let value = number(self.bytes(tag)?);
        value
            .and_then(|value| N::try_from(value).ok())
            .ok_or_else(|| malformed(format!("{}: field {tag} is not its number", self.name)))
    }
}

/// The number that fills the bytes, and nothing after it.
pub(crate) fn number(bytes: &[u8]) -> Option<u64> {
    let mut reader = Reader::new(bytes);
    let value = reader.varint()?;
    reader.is_empty().then_some(value)
}
