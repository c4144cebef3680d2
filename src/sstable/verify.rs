//! Verification of a whole table: every block, and everything that reads rely on without looking.

use super::block;
use super::bytes::{Extent, Malformed};
use super::index::{Index, Separator};
use super::readahead::ReadAhead;
use super::table::Table;
use crate::base::checksum::key_hash;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::key::{InternalKey, KeyRef, Trailer};
use crate::base::types::{EntryKind, SEQ_MAX, SeqNo, UnknownKind};

/// What was met so far.
struct Totals {
    entries: u64,
    deletes: u64,
    raw_bytes: u64,
    seq_min: SeqNo,
    seq_max: SeqNo,
    blocks: u64,
    /// Where the next block must begin.
    next: u64,
    smallest: Option<InternalKey>,
    last: Option<InternalKey>,
    /// Separator of the block before: all that follows must be beyond it.
    bound: Option<(Vec<u8>, Option<Trailer>)>,
}

/// Why a block is not what it should be.
enum Fault {
    Malformed(Malformed),
    Reserved(&'static str),
}

impl From<Malformed> for Fault {
    fn from(malformed: Malformed) -> Fault {
        Fault::Malformed(malformed)
    }
}

impl Table {
    /// Reads every block past the caches and checks checksums, order, separators, the filter and the properties.
    /// Answers the number of entries.
    pub(crate) fn verify(&self) -> Result<u64> {
        let mut totals = Totals {
            entries: 0,
            deletes: 0,
            raw_bytes: 0,
            seq_min: SEQ_MAX,
            seq_max: 0,
            blocks: 0,
            next: 0,
            smallest: None,
            last: None,
            bound: None,
        };
        let mut ahead = ReadAhead::bypass();
        let top = self.top();
        let named = top.check(self.index_start).map_err(|error| self.index_error(error))?;
        if self.two_level() {
            self.verify_partitions(top, named, &mut totals, &mut ahead)?;
        } else {
            self.verify_blocks(top, self.index_start, &mut totals, &mut ahead)?;
        }
        self.verify_properties(&totals)?;
        Ok(totals.entries)
    }

    fn verify_partitions(
        &self,
        top: Index<'_>,
        named: Extent,
        totals: &mut Totals,
        ahead: &mut ReadAhead,
    ) -> Result<()> {
        let index_error = |error| self.index_error(error);
        for part in 0..top.entries() {
            let place = top.place(part, self.index_start).map_err(index_error)?;
            let (bytes, shape) = self.partition(place, self.source.load_uncached(place)?)?;
            let partition = shape.of(&bytes);
            let at = |error| self.source.malformed(place.start, error);
            partition.check(named.start).map_err(at)?;
            let last = partition.entries().saturating_sub(1);
            if partition.separator(last).map_err(at)? != top.separator(part).map_err(index_error)? {
                return Err(at(Malformed("a partition that does not end with its separator")));
            }
            self.verify_blocks(partition, place.start, totals, ahead)?;
        }
        Ok(())
    }

    fn verify_blocks(
        &self,
        index: Index<'_>,
        at: u64,
        totals: &mut Totals,
        ahead: &mut ReadAhead,
    ) -> Result<()> {
        let index_error = |error| self.source.malformed(at, error);
        for entry in 0..index.entries() {
            let place = index.place(entry, self.index_start).map_err(index_error)?;
            let (user, trailer) = index.separator(entry).map_err(index_error)?;
            if place.start != totals.next {
                return Err(index_error(Malformed("data blocks that do not adjoin")));
            }
            let bytes = ahead.block(&self.source, place, self.properties().data_bytes)?;
            self.verify_block(&bytes, place, Separator { user: &user, trailer }, totals)?;
            totals.bound = Some((user, trailer));
            totals.next = place.end;
            totals.blocks = totals.blocks.saturating_add(1);
        }
        Ok(())
    }

    fn verify_block(
        &self,
        bytes: &[u8],
        place: Extent,
        separator: Separator<'_>,
        totals: &mut Totals,
    ) -> Result<()> {
        let before = totals.last.take();
        let visited = block::check(bytes, before.as_ref(), |key, _| self.visit(key, separator, totals));
        let (sums, last) = visited.map_err(|fault| self.fault(place, fault))?;
        totals.entries = totals.entries.saturating_add(sums.entries);
        totals.raw_bytes = totals.raw_bytes.saturating_add(sums.raw_bytes);
        totals.last = Some(last);
        Ok(())
    }

    fn visit(&self, key: KeyRef<'_>, separator: Separator<'_>, totals: &mut Totals) -> Result<(), Fault> {
        match key.trailer.kind() {
            Ok(EntryKind::Put) => {}
            Ok(EntryKind::Delete) => totals.deletes = totals.deletes.saturating_add(1),
            Err(UnknownKind::Reserved(name)) => return Err(Fault::Reserved(name)),
            Err(UnknownKind::Invalid(_)) => return Err(Malformed("an entry of no known kind").into()),
        }
        if separator.excludes(key) {
            return Err(Malformed("an entry above its block's separator").into());
        }
        let bound = totals.bound.as_ref().map(|(user, trailer)| Separator { user, trailer: *trailer });
        if bound.is_some_and(|bound| !bound.excludes(key)) {
            return Err(Malformed("an entry at or below the separator of the block before").into());
        }
        if !self.may_contain(key_hash(key.user)) {
            return Err(Malformed("a key that the filter does not know").into());
        }
        totals.seq_min = totals.seq_min.min(key.trailer.seq());
        totals.seq_max = totals.seq_max.max(key.trailer.seq());
        if totals.smallest.is_none() {
            totals.smallest = Some(key.to_owned());
        }
        Ok(())
    }

    fn fault(&self, place: Extent, fault: Fault) -> Error {
        match fault {
            Fault::Malformed(malformed) => self.source.malformed(place.start, malformed),
            Fault::Reserved(name) => {
                let path = self.source.path().display();
                let message = format!("{path}: an entry of kind \"{name}\" was written by a later version");
                Error::new(ErrorKind::VersionUnsupported, message)
            }
        }
    }

    fn verify_properties(&self, totals: &Totals) -> Result<()> {
        let said = self.properties();
        let counts = [
            ("entries", said.entries, totals.entries),
            ("deletes", said.deletes, totals.deletes),
            ("raw bytes", said.raw_bytes, totals.raw_bytes),
            ("as smallest sequence", said.seq_min, totals.seq_min),
            ("as largest sequence", said.seq_max, totals.seq_max),
            ("data blocks", said.data_blocks, totals.blocks),
            ("bytes of data blocks", said.data_bytes, totals.next),
        ];
        for (what, said, met) in counts {
            if said != met {
                let expected = format!("{said} {what}, as the properties say");
                return Err(Error::corrupt(self.source.path(), None, expected, met.to_string()));
            }
        }
        for (what, said, met) in [
            ("smallest", &said.smallest, totals.smallest.as_ref()),
            ("largest", &said.largest, totals.last.as_ref()),
        ] {
            if Some(said) != met {
                let expected = format!("the {what} key \"{}\"", said.user.escape_ascii());
                let found = met.map(|key| key.user.escape_ascii().to_string()).unwrap_or_default();
                return Err(Error::corrupt(self.source.path(), None, expected, format!("\"{found}\"")));
            }
        }
        Ok(())
    }
}
