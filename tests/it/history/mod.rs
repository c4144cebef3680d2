//! Random histories: what clients read and wrote, checked against what their isolation levels promise.

mod anomaly;
mod chains;
mod check;
mod cycles;
mod ending;
mod graph;
mod known;
mod model;
mod notation;
mod reads;
