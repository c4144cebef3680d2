//! Placeholder: filled by its own commit.
#![allow(missing_docs)]
pub struct Fault;
pub struct FaultFs;
pub struct FaultRule;
pub struct Op;
