//! Placeholder of sets here.
