//! Single calls: flush, compaction, verification, statistics.

use crate::output;
use crate::runner::Worker;
use crate::stats::Op;
use anyhow::Result;

/// Writes the memtables to tables.
pub fn flush(worker: &mut Worker<'_>) -> Result<()> {
    worker.store.flush()?;
    worker.stats.finish(Op::Other, 1);
    Ok(())
}

/// Compacts the whole key range.
pub fn compact(worker: &mut Worker<'_>) -> Result<()> {
    worker.store.compact()?;
    worker.stats.finish(Op::Other, 1);
    Ok(())
}

/// Waits until flush and compaction have nothing left to do.
pub fn wait(worker: &mut Worker<'_>) -> Result<()> {
    worker.store.wait_for_background()?;
    worker.stats.finish(Op::Other, 1);
    Ok(())
}

/// Reads and checks every block of every table.
pub fn verify(worker: &mut Worker<'_>) -> Result<()> {
    worker.stats.totals.note = worker.store.verify()?;
    worker.stats.finish(Op::Other, 1);
    Ok(())
}

/// Prints the engine's statistics.
pub fn print_stats(worker: &mut Worker<'_>) -> Result<()> {
    output::print(&format!("{}\n", worker.store.stats().text.trim_end()))
}
