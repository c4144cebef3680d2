//! The log against a file system whose every byte, order of calls and failure the tests decide.

mod batch;
mod crash;
mod damage;
mod disk;
mod failure;
mod length;
mod log;
mod pieces;
mod replay;

use super::*;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::types::{DbId, KeyspaceId, SegmentNo, SeqNo};
use crate::env::Env;
use crate::record::RecordKind;
use disk::Disk;
use rayon::ThreadPool;
use std::path::Path;
use std::sync::Arc;

const DB: DbId = 0xe5;
const OPTIONS: LogOptions = LogOptions { segment_bytes: 4096, mapped: false };

fn dir() -> &'static Path {
    Path::new("db")
}

fn seed() -> u64 {
    let seed = match std::env::var("ESKER_SEED") {
        Ok(text) => text.parse().unwrap(),
        Err(_) => 20_260_102,
    };
    println!("ESKER_SEED={seed}");
    seed
}

/// The batch that a test logs with this sequence number and number of operations, about this long.
fn payload(first_seq: SeqNo, count: u32, bytes: usize) -> Vec<u8> {
    let mut batch = BatchBuilder::new();
    for index in 0..u64::from(count) {
        let value = vec![(first_seq + index) as u8; bytes / count as usize];
        batch.put(KeyspaceId::DEFAULT, &(first_seq + index).to_be_bytes(), &value).unwrap();
    }
    batch.bytes().to_vec()
}

/// A log under test and its disk.
struct Bench {
    disk: Disk,
    log: Log,
}

impl Bench {
    fn new() -> Bench {
        Bench::with(Disk::new(), OPTIONS, LogStart { next: 1, ..LogStart::default() })
    }

    fn with(disk: Disk, options: LogOptions, start: LogStart) -> Bench {
        let log = Log::new(&disk.env(), dir(), DB, options, start);
        Bench { disk, log }
    }

    /// Logs one batch.
    fn append(&mut self, first_seq: SeqNo, count: u32, bytes: usize) -> Result<SegmentNo> {
        self.log.append(RecordKind::Batch, first_seq, count, &payload(first_seq, count, bytes))
    }

    /// Logs one batch of one operation and about 100 bytes for each of these numbers.
    fn append_all(&mut self, seqs: impl IntoIterator<Item = SeqNo>) {
        for seq in seqs {
            self.append(seq, 1, 100).unwrap();
        }
    }

    fn sync(&self) -> SeqNo {
        self.log.active().unwrap().sync().unwrap()
    }

    fn prepare_next(&mut self) -> SegmentNo {
        let number = self.log.wants_prepared().unwrap();
        let prepared = prepare(&self.disk.env(), dir(), DB, number, &OPTIONS).unwrap();
        self.log.offer_prepared(prepared);
        number
    }

    fn replay(&self) -> Result<Replay> {
        replay_all(&self.disk)
    }
}

/// A replay that keeps every batch.
type Replay = super::Replay<Kept>;

/// The batches of a segment.
#[derive(Debug, Default, PartialEq, Eq)]
struct Kept {
    batches: Vec<KeptBatch>,
    is_ended: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct KeptBatch {
    first_seq: SeqNo,
    count: u32,
    payload: Vec<u8>,
    /// Where the payload is in the segment, if it shares its bytes.
    shared_at: Option<usize>,
}

impl Visit for Kept {
    fn batch(&mut self, _: &Path, batch: ReplayedBatch<'_>) -> Result<()> {
        let (payload, shared_at) = match batch.payload {
            Payload::Shared(payload, at) => (payload.to_vec(), Some(at)),
            Payload::Own(payload) => (payload, None),
        };
        let ReplayedBatch { first_seq, count, .. } = batch;
        self.batches.push(KeptBatch { first_seq, count, payload, shared_at });
        Ok(())
    }

    fn end(&mut self, bytes: Arc<[u8]>) {
        for batch in &self.batches {
            let Some(at) = batch.shared_at else { continue };
            assert_eq!(bytes[at..at + batch.payload.len()], batch.payload);
        }
        self.is_ended = true;
    }
}

fn replay(env: &Env, dir: &Path, db: DbId, first: SegmentNo, pool: Option<&ThreadPool>) -> Result<Replay> {
    super::replay(env, dir, db, first, pool, Kept::default)
}

fn replay_all(disk: &Disk) -> Result<Replay> {
    replay(&disk.env(), dir(), DB, 1, None)
}

/// First sequence numbers of the batches, in order, after checking that each holds what was logged.
fn seqs(replay: &Replay) -> Vec<SeqNo> {
    let mut seqs = Vec::new();
    for segment in &replay.segments {
        assert!(segment.batches.is_ended);
        for batch in &segment.batches.batches {
            let mut count = 0;
            for (index, op) in ops(&batch.payload).unwrap().enumerate() {
                let seq = batch.first_seq + index as u64;
                let op = op.unwrap();
                assert_eq!(op.key, seq.to_be_bytes());
                assert!(op.value.iter().all(|byte| *byte == seq as u8));
                count += 1;
            }
            assert_eq!(batch.count, count);
            seqs.push(batch.first_seq);
        }
    }
    assert!(seqs.is_sorted());
    seqs
}

/// The file and kind of an error, for comparisons.
fn damaged_file(error: &Error) -> String {
    assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
    error.corruption().unwrap().file.file_name().unwrap().to_str().unwrap().to_string()
}
