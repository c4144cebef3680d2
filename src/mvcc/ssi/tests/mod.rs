//! Tests of serializable snapshot isolation.
