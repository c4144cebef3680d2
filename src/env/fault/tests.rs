//! Rules, counts, and what each fault does to each kind of operation.

use super::*;
use crate::env::{CrashMode, MemFs};

fn path(text: &str) -> &Path {
    Path::new(text)
}

fn faulty() -> (FaultFs, Arc<MemFs>) {
    let disk = Arc::new(MemFs::new());
    (FaultFs::new(disk.clone()), disk)
}

fn create(fs: &FaultFs, name: &str) -> Arc<dyn AppendFile> {
    fs.create(path(name), AppendOptions::default()).unwrap()
}

/// Every operation once, in the order of `Op::ALL`, where it can be. Errors end it.
fn tour(fs: &FaultFs) -> io::Result<()> {
    let file = fs.create(path("/a"), AppendOptions { preallocate: 100, ..AppendOptions::default() })?;
    file.append(b"hello")?;
    file.sync()?;
    file.finish()?;
    let reader = fs.open(path("/a"))?;
    reader.len()?;
    let mut buf = [0; 5];
    reader.read_exact_at(0, &mut buf)?;
    reader.map(5)?.copy_out(0, &mut buf)?;
    fs.create_dir_all(path("/dir"))?;
    fs.exists(path("/a"))?;
    fs.list(path("/"))?;
    fs.rename(path("/a"), path("/b"))?;
    fs.sync_dir(path("/"))?;
    fs.sync_file(path("/b"))?;
    fs.free_space(path("/"))?;
    fs.lock(path("/lock"))?;
    fs.remove(path("/b"))
}

#[test]
fn every_operation_is_counted_and_can_fail_once_or_until_healed() {
    let (fs, _) = faulty();
    tour(&fs).unwrap();
    assert_eq!(fs.operations(), Op::ALL.len() as u64);
    for op in Op::ALL {
        assert_eq!(fs.count(*op), 1, "{op:?}");
    }
    assert_eq!(fs.count(OpSet::syncs()), 3);
    assert_eq!(fs.faults(), 0);

    let mut n = 1;
    loop {
        let (fs, disk) = faulty();
        fs.fail_nth(OpSet::ALL, n);
        let result = tour(&fs);
        assert_eq!(disk.open_handles(), [], "{n}");
        if fs.faults() == 0 {
            break result.unwrap();
        }
        assert_eq!((result.unwrap_err().kind(), fs.faults()), (io::ErrorKind::Other, 1));
        n += 1;
    }
    assert_eq!(n, Op::ALL.len() as u64 + 1, "each of them failed once");

    for op in Op::ALL {
        let (fs, disk) = faulty();
        fs.fail_from(*op, 1);
        tour(&fs).unwrap_err();
        disk.list_files().iter().for_each(|file| disk.remove(file).unwrap());
        tour(&fs).unwrap_err();
        disk.list_files().iter().for_each(|file| disk.remove(file).unwrap());
        fs.heal();
        tour(&fs).unwrap();
        assert_eq!(fs.faults(), 2, "{op:?}");
    }
}

#[test]
fn rules_choose_by_path_and_turn() {
    let (fs, _) = faulty();
    let log = create(&fs, "/000001.wal");
    let table = create(&fs, "/000002.sst");
    let full = Fault::Error(io::ErrorKind::StorageFull);
    fs.add(FaultRule::new([Op::Append, Op::Sync], full).path("*.wal").when(When::From(2)));
    let check = |expect: [bool; 3]| {
        let results = [log.append(b"x"), table.append(b"x"), log.sync()];
        let kinds = results.map(|result| result.map_err(|error| error.kind()));
        assert_eq!(kinds, expect.map(|ok| if ok { Ok(()) } else { Err(io::ErrorKind::StorageFull) }));
    };
    check([true, true, false]);
    check([false, true, false]);
    fs.heal();
    check([true, true, true]);

    fs.add(FaultRule::new(Op::Rename, Fault::Errno(5)).path("/new"));
    let error = fs.rename(path("/000002.sst"), path("/new")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(5));
    fs.rename(path("/000002.sst"), path("/other")).unwrap();
}

#[test]
fn probability_is_decided_by_its_seed() {
    let run = |seed| {
        let (fs, _) = faulty();
        let when = When::Probability { seed, probability: 0.3 };
        fs.add(FaultRule::new(Op::Exists, Fault::Error(io::ErrorKind::Other)).when(when));
        (0..1000).map(|_| fs.exists(path("/")).is_err()).collect::<Vec<_>>()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
    let hits = run(1).into_iter().filter(|hit| *hit).count();
    assert!((200..400).contains(&hits), "{hits}");
}

#[test]
fn the_first_rule_that_fires_decides_and_latencies_add_up() {
    let disk = Arc::new(MemFs::new());
    let clock = Arc::new(SimClock::new());
    let fs = FaultFs::with_clock(disk, clock.clone());
    let latency = Fault::Latency(Duration::from_millis(3));
    fs.add(FaultRule::new(OpSet::reads(), latency));
    fs.add(FaultRule::new(Op::Exists, Fault::Error(io::ErrorKind::TimedOut)));
    fs.add(FaultRule::new(Op::Exists, Fault::Error(io::ErrorKind::NotFound)));
    fs.add(FaultRule::new(Op::Exists, latency));
    assert_eq!(fs.exists(path("/")).unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert_eq!(clock.now(), Duration::from_millis(6));
    fs.list(path("/")).unwrap();
    assert_eq!(clock.now(), Duration::from_millis(9));
    assert_eq!(fs.faults(), 4);
}

#[test]
fn appends_can_be_short_flipped_lost_or_poisoned() {
    let check = |fault: Fault, ok: bool, expect: &dyn Fn(&[u8]) -> bool, poisoned: bool| {
        let (fs, disk) = faulty();
        let file = create(&fs, "/a");
        fs.add(FaultRule::new(Op::Append, fault).when(When::Nth(2)));
        file.append(b"first,").unwrap();
        assert_eq!(file.append(b"hello").is_ok(), ok, "{fault:?}");
        let bytes = disk.read_file(path("/a")).unwrap();
        assert!(expect(bytes.strip_prefix(b"first,").unwrap()), "{fault:?}: {bytes:?}");
        assert_eq!(file.is_poisoned(), poisoned, "{fault:?}");
        assert_eq!(disk.crash_clone(1, CrashMode::SyncedOnly).list_files().len(), 0);
    };
    let other = io::ErrorKind::Other;
    let one_bit_off = |bytes: &[u8]| {
        let bits: u32 = bytes.iter().zip(b"hello").map(|(a, b)| (a ^ b).count_ones()).sum();
        bytes.len() == 5 && bits == 1
    };
    check(Fault::ShortWrite { bytes: 2, kind: other }, false, &|bytes| bytes == b"he", false);
    check(Fault::ShortWrite { bytes: 9, kind: other }, false, &|bytes| bytes == b"hello", false);
    check(Fault::Error(other), false, &|bytes| bytes.is_empty(), false);
    check(Fault::ErrorAfter(other), false, &|bytes| bytes == b"hello", false);
    check(Fault::BitFlip, true, &one_bit_off, false);
    check(Fault::Skip, true, &|bytes| bytes == [0; 5], false);
    check(Fault::Poison, true, &|bytes| bytes == [0; 5], true);
}

#[test]
fn reads_can_be_flipped_or_empty() {
    let (fs, disk) = faulty();
    disk.write_file(path("/a"), b"hello").unwrap();
    let reader = fs.open(path("/a")).unwrap();
    let map = reader.map(5).unwrap();
    type Read<'a> = &'a dyn Fn(&mut [u8]) -> io::Result<()>;
    let reads: [Read<'_>; 3] =
        [&|buf| reader.read_exact_at(0, buf), &|buf| reader.read_exact_at_uncached(0, buf), &|buf| {
            map.copy_out(0, buf)
        }];
    for read in reads {
        let mut buf = [0; 5];
        fs.add(FaultRule::new([Op::Read, Op::MapRead], Fault::BitFlip).when(When::Nth(1)));
        read(&mut buf).unwrap();
        let bits: u32 = buf.iter().zip(b"hello").map(|(a, b)| (a ^ b).count_ones()).sum();
        assert_eq!(bits, 1);
        read(&mut buf).unwrap();
        assert_eq!(&buf, b"hello", "only once");
        fs.add(FaultRule::new([Op::Read, Op::MapRead], Fault::Skip));
        read(&mut buf).unwrap();
        assert_eq!(buf, [0; 5]);
        fs.heal();
    }
}

#[test]
fn a_lying_device_reports_success_and_does_nothing() {
    let (fs, disk) = faulty();
    let file = create(&fs, "/a");
    file.append(b"hello").unwrap();
    fs.add(FaultRule::new(OpSet::syncs(), Fault::Skip));
    fs.add(FaultRule::new([Op::Rename, Op::Remove], Fault::Skip));
    file.sync().unwrap();
    fs.sync_file(path("/a")).unwrap();
    fs.sync_dir(path("/")).unwrap();
    fs.rename(path("/a"), path("/b")).unwrap();
    fs.remove(path("/a")).unwrap();
    assert_eq!(disk.list_files(), [path("/a")]);
    assert!(!disk.is_durable(path("/a")).unwrap());
    assert_eq!(disk.crash_clone(1, CrashMode::SyncedOnly).list_files().len(), 0);
}

#[test]
fn an_error_can_hide_a_success() {
    let (fs, disk) = faulty();
    let file = create(&fs, "/a");
    fs.add(FaultRule::new(OpSet::ALL, Fault::ErrorAfter(io::ErrorKind::Other)));
    file.append(b"x").unwrap_err();
    file.sync().unwrap_err();
    fs.sync_dir(path("/")).unwrap_err();
    assert!(disk.is_durable(path("/a")).unwrap());
    fs.rename(path("/a"), path("/b")).unwrap_err();
    assert_eq!(disk.list_files(), [path("/b")]);
}

#[test]
fn a_failed_reservation_leaves_an_empty_file() {
    let (fs, disk) = faulty();
    fs.fail_nth(Op::Preallocate, 1);
    let options = AppendOptions { preallocate: 4096, ..AppendOptions::default() };
    assert!(fs.create(path("/a"), options).is_err());
    assert_eq!(disk.read_file(path("/a")).unwrap(), b"");
    let file = fs.create(path("/b"), options).unwrap();
    assert_eq!((disk.read_file(path("/b")).unwrap(), file.reserved()), (vec![0; 4096], 4096));
    fs.add(FaultRule::new(Op::Preallocate, Fault::Skip));
    let file = fs.create(path("/c"), options).unwrap();
    assert_eq!((disk.read_file(path("/c")).unwrap(), file.reserved()), (vec![], 0));
}
