//! stub
use super::txn::TxnId;
use crate::base::types::{KeyspaceId, SeqNo};
pub(crate) struct Ssi;
pub(crate) struct Tracker;
pub(crate) enum Kind {
    Tracked,
    DeclaredReadOnly,
}
pub(crate) struct Danger;
impl std::fmt::Display for Danger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("danger")
    }
}
impl Ssi {
    pub(crate) fn new(_: usize) -> Ssi {
        Ssi
    }
    pub(crate) fn enable(&self, assigned: impl FnOnce() -> SeqNo) -> SeqNo {
        assigned()
    }
    pub(crate) fn begin<R>(&self, _: TxnId, _: Kind, take: impl FnOnce() -> (R, SeqNo)) -> (R, Tracker) {
        (take().0, Tracker)
    }
    pub(crate) fn is_recording(&self) -> bool {
        false
    }
    pub(crate) fn commit_read_only(&self, _: &Tracker) -> Result<(), Danger> {
        Ok(())
    }
    pub(crate) fn check_and_record<'a>(
        &self,
        _: Option<&Tracker>,
        _: impl Iterator<Item = (KeyspaceId, &'a [u8])>,
        _: SeqNo,
    ) -> Result<(), Danger> {
        Ok(())
    }
}
impl Tracker {
    pub(crate) fn read_key(&self, _: KeyspaceId, _: &[u8]) {}
    pub(crate) fn read_range(&self, _: KeyspaceId, _: &[u8], _: Option<&[u8]>) {}
}
