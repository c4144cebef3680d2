//! Placeholder of limits here.
