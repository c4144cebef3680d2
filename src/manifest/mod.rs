//! The manifest: which tables, keyspaces and logs make up the database.
//!
//! `meta`, `settings` and `version` are plain data with their rules; `edit` is a change of it and its form on disk
//! (`fields`); `text` writes all of it as lines for people and tests. `copy` is the form of a manifest file, `pair`
//! decides between the two copies, and `log` is the only part that touches files.
//!
//! Must not know tables beyond [`TableMeta`]: a version can be written in a test as a few lines of text.

mod copy;
mod edit;
mod log;
mod meta;
mod pair;
mod settings;
mod text;
mod version;

#[cfg(test)]
mod parse;
#[cfg(test)]
mod tests;

pub(crate) use edit::{Edit, EditOp};
pub(crate) use log::{Manifest, is_manifest_file};
pub(crate) use meta::{Moment, Run, TableMeta, Tree};
pub(crate) use settings::KeyspaceSettings;
pub(crate) use version::Version;
