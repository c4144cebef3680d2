//! Placeholder of scenarios here.
