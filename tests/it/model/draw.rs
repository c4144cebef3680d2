//! What the model test draws at random: keys that are hard on the code, values of all sizes, ranges of all kinds, and
//! every option.

use super::reference::Bytes;
use crate::support::Random;
use esker::{
    CompactionStyle, Compression, Durability, FilterKind, KeyspaceOptions, Options, ReadMode, WriteOptions,
};
use std::ops::Bound;
use std::time::Duration;

/// Longest key.
pub const KEY_BYTES_MAX: usize = (64 << 10) - 1;

/// The keys of a run: few enough that every one is written many times.
pub fn keys(random: &mut Random) -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = vec![vec![0], vec![0, 0], vec![b'a'], vec![0xfe], vec![0xff], vec![0xff; 2]];
    let numbered = [10, 60, 300][random.below(3) as usize];
    keys.extend((0..numbered).map(|number| format!("key{number:04}").into_bytes()));
    // Each a prefix of the next.
    keys.extend((1..random.below(24) as usize).map(|len| vec![b'p'; len]));
    keys.extend((1..random.below(6) as usize).map(|len| vec![0xff; len * 3]));
    // Much in common, little different.
    let common = vec![b'c'; 20 + random.below(400) as usize];
    keys.extend((0..random.below(20)).map(|number| [common.as_slice(), &number.to_be_bytes()].concat()));
    let few_letters: Vec<_> = (0..random.below(60)).map(|_| letters(random)).collect();
    keys.extend(few_letters);
    if random.chance(20) {
        keys.push(vec![b'L'; KEY_BYTES_MAX]);
        keys.push([vec![b'L'; KEY_BYTES_MAX - 1], vec![b'M']].concat());
        keys.push(vec![0xff; KEY_BYTES_MAX]);
    }
    if random.chance(30) {
        keys.push(vec![b'm'; 3000]);
    }
    keys
}

/// A short key of few letters, the extreme ones among them.
fn letters(random: &mut Random) -> Vec<u8> {
    let len = 1 + random.below(6);
    (0..len).map(|_| *random.pick(&[0u8, 1, b'a', b'b', 0xfe, 0xff])).collect()
}

/// A key to write.
pub fn key(random: &mut Random, keys: &[Vec<u8>]) -> Vec<u8> {
    loop {
        // Some keys are hot. Long ones are rare: they cost as much as hundreds of others.
        let hot = if random.chance(30) { 8 } else { keys.len() as u64 };
        let key = &keys[random.below(hot) as usize];
        if key.len() < 1000 || random.chance(5) {
            return key.clone();
        }
    }
}

/// A key to look for: one that is written, a neighbour of it, or one that cannot even exist.
pub fn target(random: &mut Random, keys: &[Vec<u8>]) -> Vec<u8> {
    let mut key = key(random, keys);
    match random.below(20) {
        0 => key.push(0),
        1 => key.push(0xff),
        2 => {
            key.pop();
        }
        3 => {
            if let Some(last) = key.last_mut() {
                *last = last.wrapping_add(1);
            }
        }
        4 => key = letters(random),
        5 if random.chance(10) => key = vec![b'x'; KEY_BYTES_MAX + 1],
        6 if random.chance(20) => key.clear(),
        _ => {}
    }
    key
}

/// A value unlike any other.
pub fn value(random: &mut Random) -> Bytes {
    let len = match random.below(1000) {
        0..100 => 0,
        100..950 => 1 + random.below(90),
        950..990 => 300 + random.below(700),
        990..998 => 1000 + random.below(9000),
        _ => 20_000 + random.below(50_000),
    };
    random.bytes(len as usize).into()
}

/// Durability of a write in one keyspace. Syncs are dear on a real disk.
pub fn durability(random: &mut Random, syncs_are_cheap: bool) -> WriteOptions {
    let options = WriteOptions::new();
    match random.below(100) {
        0..20 => options.durability(Durability::Memory),
        20..60 => options.durability(Durability::Os),
        60..61 => options.durability(Durability::Disk),
        61..80 if syncs_are_cheap => options.durability(Durability::Disk),
        _ => options,
    }
}

/// Both ends of a range, of every kind, some of them empty or the wrong way round.
pub type Range = (Bound<Vec<u8>>, Bound<Vec<u8>>);

pub fn range(random: &mut Random, keys: &[Vec<u8>]) -> Range {
    if random.chance(15) {
        return (Bound::Unbounded, Bound::Unbounded);
    }
    if random.chance(5) {
        let key = target(random, keys);
        return random
            .pick(&[
                (Bound::Included(key.clone()), Bound::Included(key.clone())),
                (Bound::Included(key.clone()), Bound::Excluded(key.clone())),
                (Bound::Excluded(key.clone()), Bound::Included(key.clone())),
                (Bound::Excluded(key.clone()), Bound::Excluded(key)),
            ])
            .clone();
    }
    (bound(random, keys), bound(random, keys))
}

fn bound(random: &mut Random, keys: &[Vec<u8>]) -> Bound<Vec<u8>> {
    match random.below(5) {
        0 => Bound::Unbounded,
        1 | 2 => Bound::Included(target(random, keys)),
        _ => Bound::Excluded(target(random, keys)),
    }
}

/// A prefix: of a key, and sometimes one that has no end.
pub fn prefix(random: &mut Random, keys: &[Vec<u8>]) -> Vec<u8> {
    let mut prefix = target(random, keys);
    prefix.truncate(random.below(prefix.len().min(40) as u64 + 1) as usize);
    prefix
}

/// The range that a prefix means.
pub fn prefix_range(prefix: &[u8]) -> Range {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return (Bound::Included(prefix.to_vec()), Bound::Excluded(end));
        }
    }
    (Bound::Included(prefix.to_vec()), Bound::Unbounded)
}

pub const STYLES: [CompactionStyle; 4] =
    [CompactionStyle::LazyLeveling, CompactionStyle::Leveled, CompactionStyle::Tiered, CompactionStyle::Fifo];

/// A keyspace's settings, and whether it may lose old data by them (FIFO with a limit).
pub fn keyspace_options(random: &mut Random) -> (KeyspaceOptions, bool) {
    let style = *random.pick(&STYLES);
    let fifo_bytes_max = if random.chance(50) { 0 } else { 4096 + random.below(60 << 10) };
    let options = KeyspaceOptions::new()
        .compaction_style(style)
        .fifo_bytes_max(fifo_bytes_max)
        .compression(*random.pick(&[Compression::None, Compression::Lz4]))
        .filter(*random.pick(&[FilterKind::None, FilterKind::Standard, FilterKind::Blocked]))
        .bloom_bits(*random.pick(&[0, 1, 4, 10, 20]))
        .block_bytes(*random.pick(&[256, 512, 4096, 32 << 10]))
        .restart_interval(*random.pick(&[1, 2, 3, 16, 1024]))
        .size_ratio(*random.pick(&[2, 3, 8]))
        .l0_runs(*random.pick(&[1, 2, 4]))
        .level_base_bytes(*random.pick(&[2 << 10, 16 << 10, 64 << 10]))
        .target_table_bytes(*random.pick(&[1 << 10, 4 << 10, 64 << 10]))
        .write_buffer_bytes(*random.pick(&[2 << 10, 8 << 10, 32 << 10, 128 << 10]));
    (options, style == CompactionStyle::Fifo && fifo_bytes_max > 0)
}

/// Settings of a session.
pub fn options(random: &mut Random, keyspace: KeyspaceOptions) -> Options {
    let options = Options::tiny()
        .default_keyspace(keyspace)
        .memory_budget(*random.pick(&[1 << 20, 2 << 20, 16 << 20]))
        .block_cache_bytes(*random.pick(&[0, 4 << 10, 64 << 10, 8 << 20]))
        .wal_segment_bytes(*random.pick(&[4 << 10, 10_000, 64 << 10]))
        .wal_bytes_max(*random.pick(&[8 << 10, 64 << 10, 512 << 10]))
        .wal_mapped(random.chance(50))
        .read_mode(*random.pick(&[ReadMode::Mmap, ReadMode::Pread]))
        .max_open_files(*random.pick(&[8, 16, 1000]))
        .durability(*random.pick(&[Durability::Disk, Durability::Os, Durability::Memory]));
    if random.chance(20) { options.sync_interval(Duration::from_millis(50)) } else { options }
}
