//! The concurrent model test: writers that each own a stripe of keys and know what is in it, readers that hold
//! snapshots to their promise, and somebody who flushes, compacts and drops keyspaces all the while.
//!
//! Every round of a writer is one batch over two keyspaces that sets all keys of its group to the number of the
//! round, or removes them all. So whoever reads a group consistently, in whatever way, finds one round.

use super::draw;
use crate::support::{Map, Random, contents};
use esker::{
    CompactionStyle, Cursor, Db, Durability, ErrorKind, Iter, Keyspace, Options, Snapshot, WriteOptions,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const WRITERS: usize = 3;
const READERS: usize = 3;
/// Keys of a group in each keyspace.
const GROUP: usize = 12;
/// In every so many rounds the group is removed.
const REMOVED_EVERY: u64 = 9;

/// What a keyspace must hold at the end of a writer.
type State = [Map; 2];

struct Shared {
    db: Db,
    keyspaces: [Keyspace; 2],
    done: AtomicBool,
    seed: u64,
}

fn group_prefix(stripe: usize) -> Vec<u8> {
    format!("group/{stripe}/").into_bytes()
}

fn group_keys(stripe: usize) -> Vec<Vec<u8>> {
    // Of different lengths, so that they lie in several blocks and tables.
    (0..GROUP)
        .map(|number| format!("group/{stripe}/{number:02}{}", "x".repeat(number * 9)).into_bytes())
        .collect()
}

/// Set in every round, also in those that remove the group.
fn round_key(stripe: usize) -> Vec<u8> {
    format!("round/{stripe}").into_bytes()
}

fn round_value(round: u64) -> Vec<u8> {
    let len = if round.is_multiple_of(41) { 3000 } else { 8 + (round * 7 % 120) as usize };
    let mut value = round.to_le_bytes().to_vec();
    value.resize(len, round as u8);
    value
}

fn expected(round: u64) -> Option<Vec<u8>> {
    (!round.is_multiple_of(REMOVED_EVERY)).then(|| round_value(round))
}

/// The round that a value says.
fn round_of(value: Option<&[u8]>) -> u64 {
    value.map_or(0, |value| u64::from_le_bytes(value[..8].try_into().expect("eight bytes")))
}

// Writers.

fn write(shared: &Shared, stripe: usize, rounds: u64) -> State {
    let mut random = Random::new(shared.seed * 31 + stripe as u64);
    let mut state = State::default();
    for round in 1..=rounds {
        write_round(shared, stripe, round, &mut random, &mut state);
        for _ in 0..4 {
            write_own(shared, stripe, &mut random, &mut state);
        }
        if round.is_multiple_of(64) {
            compare_stripe(shared, stripe, &state);
        }
    }
    state
}

fn write_round(shared: &Shared, stripe: usize, round: u64, random: &mut Random, state: &mut State) {
    let mut batch = shared.db.batch();
    for (keyspace, state) in shared.keyspaces.iter().zip(state) {
        let mut writes: BTreeMap<Vec<u8>, Option<Vec<u8>>> =
            group_keys(stripe).into_iter().map(|key| (key, expected(round))).collect();
        writes.insert(round_key(stripe), Some(round_value(round)));
        for (key, value) in writes {
            match &value {
                Some(value) => batch.put(keyspace, &key, value).expect("within limits"),
                None => batch.delete(keyspace, &key).expect("within limits"),
            }
            match value {
                Some(value) => state.insert(key, value),
                None => state.remove(&key),
            };
        }
    }
    let durability = if random.chance(3) { Durability::Disk } else { Durability::Os };
    let receipt = batch.commit_with(WriteOptions::new().durability(durability)).expect("commit");
    assert!(shared.db.latest_seq() >= receipt.seq, "an acknowledged commit is visible");
    if durability == Durability::Disk {
        assert!(shared.db.durable_seq() >= receipt.seq, "an acknowledged Disk commit is durable");
    }
}

/// A write of a key of its own, which the writer then sees.
fn write_own(shared: &Shared, stripe: usize, random: &mut Random, state: &mut State) {
    let nth = random.below(2) as usize;
    let (keyspace, state) = (&shared.keyspaces[nth], &mut state[nth]);
    let key = format!("own/{stripe}/{}", random.below(60)).into_bytes();
    let durability = if random.chance(20) { Durability::Memory } else { Durability::Os };
    let options = WriteOptions::new().durability(durability);
    if random.chance(70) {
        let len = random.below(150) as usize;
        let value = random.bytes(len);
        keyspace.put_with(&key, &value, options).expect("put");
        state.insert(key.clone(), value);
    } else {
        keyspace.delete_with(&key, options).expect("delete");
        state.remove(&key);
    }
    let found = keyspace.get(&key).expect("get").map(|value| value.to_vec());
    assert_eq!(found.as_ref(), state.get(&key), "stripe {stripe}: a writer reads what it wrote");
}

/// Everything of a stripe is as its writer left it.
fn compare_stripe(shared: &Shared, stripe: usize, state: &State) {
    for (keyspace, state) in shared.keyspaces.iter().zip(state) {
        let mut found = Map::new();
        for prefix in [group_prefix(stripe), round_key(stripe), format!("own/{stripe}/").into_bytes()] {
            found.extend(keyspace.prefix(&prefix).map(|item| item.expect("read")).map(owned));
        }
        assert_eq!(&found, state, "stripe {stripe} in {}", keyspace.name());
    }
}

fn owned((key, value): (esker::Slice, esker::Slice)) -> (Vec<u8>, Vec<u8>) {
    (key.to_vec(), value.to_vec())
}

// Readers.

fn read(shared: &Shared, id: usize) {
    let mut random = Random::new(shared.seed * 37 + id as u64);
    let mut seen = [0; WRITERS];
    let mut held: Vec<(Snapshot, [u64; WRITERS])> = Vec::new();
    while !shared.done.load(Ordering::Acquire) {
        let snapshot = shared.db.snapshot();
        let rounds = std::array::from_fn(|stripe| read_group(shared, &snapshot, stripe, &mut random));
        for (seen, round) in seen.iter_mut().zip(rounds) {
            assert!(round >= *seen, "reader {id}: round {round} after round {seen}");
            *seen = round;
        }
        read_without_snapshot(shared, &rounds, &mut random);
        if held.len() < 3 {
            held.push((snapshot, rounds));
        } else if random.chance(5) {
            held.swap_remove(random.below(3) as usize);
        }
        let (old, rounds) = random.pick(&held).clone();
        let stripe = random.below(WRITERS as u64) as usize;
        let again = read_group(shared, &old, stripe, &mut random);
        assert_eq!(again, rounds[stripe], "reader {id}: an old snapshot, stripe {stripe}");
    }
}

/// Reads a group at a snapshot in all ways, which must agree, and answers its round.
fn read_group(shared: &Shared, snapshot: &Snapshot, stripe: usize, random: &mut Random) -> u64 {
    let first = &shared.keyspaces[0];
    let value = snapshot.get_in(first, round_key(stripe)).expect("get");
    let round = round_of(value.as_deref());
    let keys = group_keys(stripe);
    let expect = if round == 0 { None } else { expected(round) };
    for keyspace in &shared.keyspaces {
        let values: Vec<_> = match random.below(5) {
            0 => keys.iter().map(|key| snapshot.get_in(keyspace, key).expect("get")).collect(),
            1 => snapshot.multi_get_in(keyspace, &keys).expect("multi_get"),
            2 => {
                let iter = snapshot.prefix_in(keyspace, group_prefix(stripe));
                return_values(iter, random.chance(50), &keys, expect.is_some())
            }
            3 => {
                let upper = format!("group/{stripe}0").into_bytes();
                let iter = snapshot.range_in(keyspace, group_prefix(stripe)..upper);
                return_values(iter, random.chance(50), &keys, expect.is_some())
            }
            _ => {
                check_cursor(snapshot.cursor_in(keyspace).expect("cursor"), stripe, &keys, expect.as_deref());
                continue;
            }
        };
        for value in values {
            assert_eq!(value.as_deref(), expect.as_deref(), "stripe {stripe}, round {round}");
        }
    }
    round
}

/// The values of an iterator over a group, which has all keys or none.
fn return_values(iter: Iter, backward: bool, keys: &[Vec<u8>], exists: bool) -> Vec<Option<esker::Slice>> {
    let mut items: Vec<_> = if backward {
        iter.rev().map(|item| item.expect("read")).collect()
    } else {
        iter.map(|item| item.expect("read")).collect()
    };
    if backward {
        items.reverse();
    }
    let found: Vec<_> = items.iter().map(|(key, _)| key.to_vec()).collect();
    assert_eq!(found, if exists { keys } else { &[] });
    items.into_iter().map(|(_, value)| Some(value)).collect()
}

/// Walks a group to its end and back.
fn check_cursor(mut cursor: Cursor, stripe: usize, keys: &[Vec<u8>], expect: Option<&[u8]>) {
    let prefix = group_prefix(stripe);
    cursor.seek(&prefix).expect("seek");
    let Some(expect) = expect else {
        assert!(!cursor.valid() || !cursor.key().starts_with(&prefix));
        return;
    };
    for (nth, key) in keys.iter().enumerate() {
        assert_eq!((cursor.key(), cursor.value()), (&key[..], expect));
        if nth + 1 < keys.len() {
            cursor.next().expect("next");
        }
    }
    for key in keys.iter().rev() {
        assert_eq!((cursor.key(), cursor.value()), (&key[..], expect));
        cursor.prev().expect("prev");
    }
    assert!(!cursor.valid() || !cursor.key().starts_with(&prefix));
}

/// `multi_get` and iterators are consistent by themselves, and not behind a snapshot taken before.
fn read_without_snapshot(shared: &Shared, rounds: &[u64; WRITERS], random: &mut Random) {
    let stripe = random.below(WRITERS as u64) as usize;
    let keyspace = random.pick(&shared.keyspaces);
    let mut keys = group_keys(stripe);
    keys.push(round_key(stripe));
    let values = keyspace.multi_get(&keys).expect("multi_get");
    let round = round_of(values.last().expect("asked for").as_deref());
    assert!(round >= rounds[stripe], "round {round} after round {}", rounds[stripe]);
    let expect = if round == 0 { None } else { expected(round) };
    for value in &values[..GROUP] {
        assert_eq!(value.as_deref(), expect.as_deref(), "stripe {stripe}, round {round}");
    }
    let found: Vec<_> = keyspace.prefix(group_prefix(stripe)).map(|item| item.expect("read").1).collect();
    let round = round_of(found.first().map(|value| &value[..]));
    assert!(found.is_empty() || (round >= rounds[stripe] && found.len() == GROUP), "stripe {stripe}");
    assert!(found.iter().all(|value| *value == *round_value(round)), "stripe {stripe}, round {round}");
}

// Everything else.

fn maintain(shared: &Shared) {
    let mut random = Random::new(shared.seed * 41);
    while !shared.done.load(Ordering::Acquire) {
        let keyspace = random.pick(&shared.keyspaces).clone();
        match random.below(12) {
            0..3 => shared.db.flush().expect("flush"),
            3 => keyspace.compact().expect("compact"),
            4 => keyspace.compact_range("group/1/".."own/1/3").expect("compact a range"),
            5 => keyspace.compact_range("own/2/"..).expect("compact a range"),
            6 => shared.db.sync().expect("sync"),
            7 => {
                shared.db.verify().expect("verify");
            }
            8 => assert!(shared.db.stats().to_string().contains("keyspace \"second\"")),
            _ => use_and_drop(shared, &mut random),
        }
    }
}

/// A keyspace comes, is written, read and compacted by others as well, and goes under their hands.
fn use_and_drop(shared: &Shared, random: &mut Random) {
    let (options, _) = draw::keyspace_options(random);
    let name = "passing";
    let keyspace = shared.db.keyspace_with(name, &options).expect("create a keyspace");
    let put = |number: u32| keyspace.put_with(number.to_be_bytes(), [9; 50], os());
    for number in 0..50 {
        put(number).expect("put");
    }
    thread::scope(|scope| {
        let busy = scope.spawn(|| {
            for number in 0.. {
                let outcome = match number % 5 {
                    0 => keyspace.compact(),
                    1 => keyspace.iter().try_for_each(|item| item.map(|_| ())),
                    2 => keyspace.multi_get(&[b"x"]).map(|_| ()),
                    _ => put(number),
                };
                match outcome {
                    Ok(()) => {}
                    Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Closed) => return,
                    Err(error) => panic!("a keyspace that is being dropped: {error}"),
                }
            }
        });
        thread::yield_now();
        shared.db.drop_keyspace(name).expect("drop");
        busy.join().expect("no panic");
    });
}

fn os() -> WriteOptions {
    WriteOptions::new().durability(Durability::Os)
}

fn open(path: &Path, seed: u64) -> Shared {
    let mut random = Random::new(seed);
    let style =
        *random.pick(&[CompactionStyle::LazyLeveling, CompactionStyle::Leveled, CompactionStyle::Tiered]);
    let (keyspace, _) = draw::keyspace_options(&mut random);
    let keyspace = keyspace.compaction_style(style).fifo_bytes_max(0);
    let options: Options = draw::options(&mut random, keyspace.clone());
    let options = options.durability(Durability::Os).background_threads(2);
    let db = options.open(path).expect("open");
    let second = db.keyspace_with("second", &keyspace).expect("create a keyspace");
    Shared { keyspaces: [db.default_keyspace(), second], db, done: AtomicBool::new(false), seed }
}

/// All of it, once. Each writer does this many rounds.
pub fn run(seed: u64, rounds: u64) {
    let dir = tempfile::tempdir().expect("a directory for the test");
    let shared = open(dir.path(), seed);
    let states: Vec<State> = thread::scope(|scope| {
        let shared = &shared;
        let writers: Vec<_> =
            (0..WRITERS).map(|stripe| scope.spawn(move || write(shared, stripe, rounds))).collect();
        for id in 0..READERS {
            scope.spawn(move || read(shared, id));
        }
        scope.spawn(move || maintain(shared));
        // Readers end when the writers have, whatever became of them.
        let states: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        shared.done.store(true, Ordering::Release);
        states.into_iter().map(|state| state.expect("a writer panicked")).collect()
    });
    check_end(&shared, &states);
    let Shared { db, seed, .. } = shared;
    db.close().expect("close");
    let shared = open(dir.path(), seed);
    check_end(&shared, &states);
    shared.db.close().expect("close");
}

fn check_end(shared: &Shared, states: &[State]) {
    for (stripe, state) in states.iter().enumerate() {
        compare_stripe(shared, stripe, state);
    }
    for (nth, keyspace) in shared.keyspaces.iter().enumerate() {
        let expect: Map = states.iter().flat_map(|state| state[nth].clone()).collect();
        assert_eq!(contents(keyspace).expect("read"), expect, "{}", keyspace.name());
    }
    shared.db.wait_for_background().expect("background work");
    shared.db.verify().expect("verify");
}
