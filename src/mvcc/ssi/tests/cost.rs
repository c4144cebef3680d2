//! Placeholder of cost here.
