//! Reading the log back: which segments form the chain, and what is in them.
//!
//! The chain is walked from its end: the last segment with a valid link names its predecessor, and so on, down to
//! the first segment that is still needed. A link names a segment's valid length and last sequence number, so
//! only the last segment can have a torn tail, and a segment that is missing, short or damaged is found. Segments
//! that no link names were prepared and never used, or their link was never completed; they must be without
//! batches. Such leftovers can lie between segments of the chain: a removed file can come back after a crash.
//!
//! Changes nothing on disk. Reading and checking runs on all threads of the pool that is given, a segment on each.

use super::link::Predecessor;
use super::log::LogStart;
use super::scan::{Content, ReplayedBatch, ReplayedSegment, SegmentFile, Visit};
use super::segment::{parse_segment_name, segment_path};
use crate::base::error::{Error, Result};
use crate::base::types::{DbId, SegmentNo, SeqNo};
use crate::env::Env;
use rayon::ThreadPool;
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use std::path::Path;
use std::sync::Arc;

/// What the log holds.
#[derive(Debug)]
pub(crate) struct Replay<V> {
    /// The chain, oldest first.
    pub(crate) segments: Vec<ReplayedSegment<V>>,
    /// Last sequence number that the log knows; 0 if none.
    pub(crate) last_seq: SeqNo,
    /// How to go on.
    pub(crate) start: LogStart,
    /// Bytes at the end of the log that were dropped as a torn tail.
    pub(crate) dropped_bytes: u64,
    /// Segments without content, to be removed.
    pub(crate) unused: Vec<SegmentNo>,
    /// Segments before the first one needed, to be removed.
    pub(crate) obsolete: Vec<SegmentNo>,
}

/// Reads the segments from `first_needed` on.
///
/// Damage, as opposed to a torn tail, is `Corruption`. The payloads of batches are not looked into, but shown to a
/// visitor, a new one for each segment.
pub(crate) fn replay<V: Visit>(
    env: &Env,
    dir: &Path,
    db: DbId,
    first_needed: SegmentNo,
    pool: Option<&ThreadPool>,
    visitor: impl Fn() -> V + Sync,
) -> Result<Replay<V>> {
    let (obsolete, needed): (Vec<_>, Vec<_>) =
        list_segments(env, dir)?.into_iter().partition(|number| *number < first_needed);
    let largest = needed.last().or(obsolete.last());
    let next = largest.map_or(0, |number| number.saturating_add(1)).max(first_needed);

    let files = needed.iter().map(|number| SegmentFile::open(env, dir, db, *number));
    let files = files.collect::<Result<Vec<_>>>()?;
    let contents = for_each(pool, &files, SegmentFile::glance)?;
    let found: Vec<Found<'_>> =
        files.iter().zip(contents).map(|(file, content)| Found { file, content }).collect();
    let plan = plan(&found, dir, first_needed)?;
    for_each(pool, &plan.leftovers, |leftover| check_leftover(leftover))?;
    let segments = for_each(pool, &plan.chain, |(file, end)| file.scan(*end, visitor()))?;

    let last = segments.last();
    Ok(Replay {
        last_seq: last.map_or(0, |last| last.last_seq),
        dropped_bytes: last.map_or(0, |last| last.dropped_bytes).saturating_add(plan.dropped_bytes),
        start: LogStart {
            next,
            predecessor: last.map(|last| Predecessor {
                number: last.number,
                valid_len: last.valid_len,
                last_seq: last.last_seq,
            }),
            live: segments.iter().map(|segment| (segment.number, segment.valid_len)).collect(),
        },
        unused: plan.leftovers.iter().map(|leftover| leftover.file.number).collect(),
        obsolete,
        segments,
    })
}

/// Makes the segments from `first_needed` on durable as they are, and has their next read come from the device.
/// Must precede [`replay`] after an unclean stop: what it shows must not vanish with the next power cut.
pub(crate) fn sync_segments(env: &Env, dir: &Path, first_needed: SegmentNo) -> Result<()> {
    for number in list_segments(env, dir)?.into_iter().filter(|number| *number >= first_needed) {
        let path = segment_path(dir, number);
        env.fs.sync_file(&path).map_err(|error| Error::io("sync", &path, error))?;
        env.fs.drop_cache(&path);
    }
    Ok(())
}

/// Numbers of the segments in a directory, ascending.
fn list_segments(env: &Env, dir: &Path) -> Result<Vec<SegmentNo>> {
    let entries = env.fs.list(dir).map_err(|error| Error::io("list", dir, error))?;
    let files = entries.iter().filter(|entry| !entry.is_dir);
    let mut numbers: Vec<SegmentNo> = files.filter_map(|entry| parse_segment_name(&entry.name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// A segment and what a glance showed.
struct Found<'a> {
    file: &'a SegmentFile,
    content: Content,
}

/// What to do with each segment.
struct Plan<'a> {
    /// To be read, oldest first, each with what its successor says of it.
    chain: Vec<(&'a SegmentFile, Option<Predecessor>)>,
    /// Named by no link.
    leftovers: Vec<&'a Found<'a>>,
    /// Bytes without a valid record after the chain.
    dropped_bytes: u64,
}

fn plan<'a>(found: &'a [Found<'a>], dir: &Path, first_needed: SegmentNo) -> Result<Plan<'a>> {
    let mut plan = Plan { chain: Vec::new(), leftovers: Vec::new(), dropped_bytes: 0 };
    // Of the segment looked for: its number and what its successor says of it. At first any will do.
    let mut wanted: Option<Predecessor> = None;
    let mut is_complete = false;
    for segment in found.iter().rev() {
        let is_wanted = wanted.is_none_or(|wanted| wanted.number == segment.file.number);
        match segment.content {
            Content::Linked(link) if is_wanted && !is_complete => {
                plan.chain.push((segment.file, wanted));
                wanted = link.filter(|link| link.number >= first_needed);
                is_complete = wanted.is_none();
                check_direction(segment.file, wanted)?;
            }
            Content::Nothing { .. } if wanted.is_some() && is_wanted => break,
            Content::Nothing { dropped_bytes } if plan.chain.is_empty() => {
                plan.dropped_bytes = plan.dropped_bytes.saturating_add(dropped_bytes);
                plan.leftovers.push(segment);
            }
            _ => plan.leftovers.push(segment),
        }
    }
    if let Some(wanted) = wanted {
        let expected = format!("a segment of {} bytes, which the next one names", wanted.valid_len);
        return Err(Error::corrupt(&segment_path(dir, wanted.number), None, expected, "no valid record"));
    }
    plan.chain.reverse();
    plan.leftovers.reverse();
    Ok(plan)
}

/// A link points backwards.
fn check_direction(file: &SegmentFile, link: Option<Predecessor>) -> Result<()> {
    match link {
        Some(link) if link.number >= file.number => {
            let expected = format!("a link to a segment before {}", file.number);
            Err(Error::corrupt(&file.path, None, expected, format!("one to {}", link.number)))
        }
        _ => Ok(()),
    }
}

/// A segment that no link names has no batches: otherwise there is a hole in the log.
fn check_leftover(leftover: &Found<'_>) -> Result<()> {
    if let Content::Linked(_) = leftover.content {
        leftover.file.scan(None, NoBatches)?;
    }
    Ok(())
}

/// Takes any batch for damage.
struct NoBatches;

impl Visit for NoBatches {
    fn batch(&mut self, path: &Path, batch: ReplayedBatch<'_>) -> Result<()> {
        let expected = "no commits, because no later segment names this one";
        Err(Error::corrupt(path, batch.offset, expected, "commits"))
    }

    fn end(&mut self, _: Arc<[u8]>) {}
}

/// Applies `f` to each item, in parallel if there is a pool, and answers the first error in order.
fn for_each<T: Sync, R: Send>(
    pool: Option<&ThreadPool>,
    items: &[T],
    f: impl Fn(&T) -> Result<R> + Sync + Send,
) -> Result<Vec<R>> {
    let results: Vec<Result<R>> = match pool {
        Some(pool) if items.len() > 1 => pool.install(|| items.par_iter().map(f).collect()),
        _ => items.iter().map(f).collect(),
    };
    results.into_iter().collect()
}
