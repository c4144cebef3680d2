//! The memory that a memtable says it takes, against what the allocator gave out.
//!
//! The allocator's figures are those of the process, so that the measurement runs in a process of its own: this
//! test binary, asked for the one ignored test below.
#![expect(unsafe_code, reason = "asks the C library how much memory is allocated")]
#![cfg(all(target_os = "linux", target_env = "gnu"))]

use super::*;

fn allocated_bytes() -> usize {
    // SAFETY: `mallinfo2` takes no arguments and only reads the allocator's counters, under its locks.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}

/// Fails unless the memtable's own account of what was added is within 5 % of the allocator's.
fn check(key_len: usize, value_len: usize, entries: u64, batch: usize) {
    let before = allocated_bytes();
    let list = ActiveMemtable::new(0);
    let fixed = list.bytes();
    let mut seq = 0;
    for _ in 0..entries / batch as u64 {
        let bytes: Vec<u8> = (0..batch)
            .flat_map(|_| {
                seq += 1;
                let hash = key_hash(&u64::to_be_bytes(seq)).to_be_bytes();
                hash.into_iter().cycle().take(key_len).chain(std::iter::repeat_n(b'v', value_len))
            })
            .collect();
        let owner: Arc<[u8]> = Arc::from(bytes);
        list.charge_owner(owner.len());
        for (index, seq) in (0..batch).zip(seq + 1 - batch as u64..) {
            let key_start = index * (key_len + value_len);
            let place = Place { key_start, key_len, value_start: key_start + key_len, value_len };
            list.insert(&owner, place, Trailer::new(seq, EntryKind::Put)).unwrap();
        }
    }
    let real = allocated_bytes() - before;
    let counted = list.bytes() - fixed;
    println!("key {key_len} value {value_len} batch {batch}: counted {counted}, allocated {real}");
    assert!(counted.abs_diff(real) * 20 < real, "counted {counted}, allocated {real}");
}

#[test]
#[ignore = "measures the whole process: run by `bytes_match_the_allocator`"]
fn measured_in_a_process_of_its_own() {
    check(16, 100, 20_000, 1);
    check(16, 0, 20_000, 1);
    check(16, 100, 20_000, 100);
    check(40, 8, 20_000, 10);
    check(8, 4096, 2_000, 1);
}

#[test]
fn bytes_match_the_allocator() {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "memtable::tests::accounting::measured_in_a_process_of_its_own"])
        .args(["--ignored", "--nocapture", "--test-threads=1"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    println!("{text}");
}

#[test]
fn a_run_counts_its_arrays_and_the_buffers_charged_to_it() {
    let owner: Arc<[u8]> = (0..4000u32).flat_map(u32::to_be_bytes).collect();
    let run = |count: u64| {
        let mut list = RunList::default();
        let buffer = list.add_buffer(&owner);
        for seq in 0..count {
            let start = seq as usize * 4;
            let place = Place { key_start: start, key_len: 4, value_start: 0, value_len: 0 };
            let key = &owner[start..start + 4];
            list.push(buffer, key, place, Trailer::new(seq, EntryKind::Delete)).unwrap();
        }
        Memtable::from_lists(vec![list], None)
    };
    let (small, large) = (run(1000), run(2000));
    let added = large.bytes() - small.bytes();
    let arrays = 1000 * (32 + 8);
    assert!((arrays..arrays + 2000).contains(&added), "{added}");
    large.charge_owner(1 << 20);
    assert!(large.bytes() - small.bytes() - added >= 1 << 20);
}

#[test]
fn a_memtable_takes_nothing_before_its_first_entry_and_then_a_filter_of_bounded_size() {
    let owner: Arc<[u8]> = Arc::from(*b"key");
    for capacity_bytes in [1 << 26, 1 << 40, usize::MAX] {
        let list = ActiveMemtable::new(capacity_bytes);
        assert!(list.bytes() < 1024, "{} bytes", list.bytes());
        assert_eq!(list.get(b"key", key_hash(b"key"), 1), None);
        let place = Place { key_start: 0, key_len: 3, value_start: 3, value_len: 0 };
        list.insert(&owner, place, Trailer::new(1, EntryKind::Put)).unwrap();
        assert!(list.bytes() < 32 << 20, "{} bytes", list.bytes());
        assert!(list.get(b"key", key_hash(b"key"), 1).is_some());
    }
}
