//! Failing disks, full disks, failed syncs, listeners that panic: what each does to writes, to reads, and to what is
//! there after the next open.

mod log;
mod nth;
mod open;
mod panic;
mod space;
mod sync;
mod world;
