//! Placeholder: filled by its own commit.
#![allow(missing_docs)]
pub struct CrashMode;
pub struct MemFs;
