//! The registry: what is sampled, who is given up, which states of the past can be read.

use super::*;
use crate::env::SimClock;

struct Rig {
    clock: Arc<SimClock>,
    registry: Arc<Registry>,
    pipeline: Pipeline,
}

const FAIL: Option<(Duration, SnapshotAgePolicy)> = Some((Duration::from_secs(10), SnapshotAgePolicy::Fail));
const WARN: Option<(Duration, SnapshotAgePolicy)> = Some((Duration::from_secs(10), SnapshotAgePolicy::Warn));

impl Rig {
    fn new(max_age: Option<(Duration, SnapshotAgePolicy)>, retention: Option<u64>, visible: SeqNo) -> Rig {
        let clock = Arc::new(SimClock::new());
        let keeping = Keeping { max_age, retention: retention.map(Duration::from_secs) };
        let registry = Arc::new(Registry::new(clock.clone(), keeping, visible, None, &[]));
        Rig { clock, registry, pipeline: Pipeline::new(visible) }
    }

    /// A commit with this sequence number becomes visible.
    fn commit(&mut self, seq: SeqNo) {
        self.pipeline = Pipeline::new(seq);
        self.registry.committed(seq);
    }

    fn read(&self) -> Registration {
        self.registry.register(&self.pipeline, PinKind::Snapshot, None, self.registry.clock.now())
    }

    fn read_at(&self, seq: SeqNo) -> Result<Registration> {
        self.registry.register_at(&self.pipeline, seq)
    }

    fn sample(&self) -> (Vec<SeqNo>, SeqNo) {
        let sample = self.registry.sample(&self.pipeline);
        (sample.snapshots, sample.floor)
    }

    fn wait(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

#[test]
fn a_sample_has_each_reader_once_and_what_is_visible() {
    let mut rig = Rig::new(None, None, 5);
    assert_eq!(rig.sample(), (vec![], 5));
    let (first, second) = (rig.read(), rig.read());
    rig.commit(9);
    let third = rig.read();
    assert_eq!(rig.sample(), (vec![5, 9], 9));
    drop(first);
    assert_eq!(rig.sample(), (vec![5, 9], 9));
    let copy = second.clone();
    drop(second);
    assert_eq!(rig.sample(), (vec![5, 9], 9));
    drop((copy, third));
    assert_eq!(rig.sample(), (vec![], 9));
}

#[test]
fn a_pin_shows_its_kind_label_and_age_and_so_do_its_forks() {
    let rig = Rig::new(None, None, 5);
    let label = Some(Arc::from("export"));
    let snapshot = rig.registry.register(&rig.pipeline, PinKind::Snapshot, label, rig.registry.clock.now());
    rig.wait(3);
    let fork = snapshot.fork(PinKind::Iterator);
    let other = rig.registry.register(&rig.pipeline, PinKind::Transaction, None, rig.registry.clock.now());
    let shown: Vec<_> = rig.registry.pins().iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "snapshot \"export\" at 5, 3s old, about 0 bytes",
            "iterator \"export\" at 5, 3s old, about 0 bytes",
            "transaction at 5, 0ns old, about 0 bytes",
        ]
    );
    drop((snapshot, fork, other));
    assert!(rig.registry.pins().is_empty());
}

#[test]
fn a_reader_that_is_too_old_fails_and_pins_nothing_from_the_moment_somebody_looks() {
    for look in 0..3 {
        let rig = Rig::new(FAIL, None, 5);
        let old = rig.read();
        rig.wait(1);
        let fork = old.fork(PinKind::Iterator);
        let young = rig.read();
        rig.wait(9);
        match look {
            0 => assert_eq!(rig.sample(), (vec![5], 5)),
            1 => assert_eq!(rig.registry.look().len(), 2),
            _ => assert_eq!(old.check().unwrap_err().kind(), ErrorKind::SnapshotTooOld),
        }
        for given_up in [&old, &fork] {
            assert_eq!(given_up.check_mark().unwrap_err().kind(), ErrorKind::SnapshotTooOld);
            assert_eq!(given_up.check().unwrap_err().kind(), ErrorKind::SnapshotTooOld);
        }
        young.check().unwrap();
        assert_eq!(rig.registry.pins().len(), 1);
        assert_eq!(rig.registry.summary(), (1, Some(5)));
        drop(young);
        assert_eq!(rig.sample(), (vec![], 5));
    }
}

#[test]
fn a_warning_is_given_once_and_changes_nothing() {
    let rig = Rig::new(WARN, None, 5);
    assert_eq!(rig.registry.due(), None);
    let reader = rig.read();
    assert!(rig.registry.plan_look());
    assert!(!rig.registry.plan_look());
    rig.wait(4);
    let second = rig.read();
    assert_eq!(rig.registry.due(), Some(Duration::from_secs(10)));
    rig.wait(6);
    assert_eq!(rig.registry.look().len(), 1);
    assert_eq!(rig.registry.due(), Some(Duration::from_secs(14)));
    assert_eq!(rig.registry.look().len(), 0);
    rig.wait(100);
    assert_eq!(rig.registry.look().len(), 1);
    assert_eq!(rig.registry.due(), None);
    reader.check().unwrap();
    second.check().unwrap();
    assert_eq!(rig.sample(), (vec![5], 5));
}

#[test]
fn without_retention_only_the_latest_and_what_is_read_can_be_read() {
    let mut rig = Rig::new(None, None, 5);
    let reader = rig.read();
    rig.commit(9);
    let kind = |seq| rig.read_at(seq).map(drop).map_err(|error| error.kind());
    assert_eq!(kind(9), Ok(()));
    assert_eq!(kind(5), Ok(()));
    assert_eq!(kind(6), Err(ErrorKind::SnapshotTooOld));
    assert_eq!(kind(4), Err(ErrorKind::SnapshotTooOld));
    assert_eq!(kind(10), Err(ErrorKind::InvalidArgument));
    drop(reader);
    assert_eq!(rig.read_at(5).map(drop).map_err(|error| error.kind()), Err(ErrorKind::SnapshotTooOld));
}

#[test]
fn the_window_holds_the_floor_down_and_passes() {
    let mut rig = Rig::new(None, Some(100), 5);
    rig.wait(50);
    rig.commit(9);
    rig.wait(50);
    assert_eq!(rig.sample(), (vec![], 5));
    rig.wait(49);
    assert_eq!(rig.sample(), (vec![], 5));
    assert!(rig.read_at(5).is_ok());
    let error = rig.read_at(4).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SnapshotTooOld);
    let message = error.to_string();
    assert!(message.contains("sequence number 5, of time 1577836800.000000"), "{message}");
    let early = rig.read_at(6).unwrap();
    rig.wait(1);
    assert_eq!(rig.sample(), (vec![6], 9));
    assert_eq!(rig.read_at(5).unwrap_err().kind(), ErrorKind::SnapshotTooOld);
    // Somebody reads there still.
    assert!(rig.read_at(6).is_ok());
    drop(early);
    assert_eq!(rig.read_at(6).unwrap_err().kind(), ErrorKind::SnapshotTooOld);
}

#[test]
fn a_floor_of_the_last_session_is_kept_and_one_that_is_not_known_is_the_last_commit() {
    let clock = Arc::new(SimClock::new());
    let start = clock.unix_micros();
    let keeping = Keeping { max_age: None, retention: Some(Duration::from_secs(100)) };
    let moments = [(0, 3), (10, 6), (20, 9)];
    let moments = moments.map(|(ago, seq)| Moment { at_micros: start - 30_000_000 + ago * 1_000_000, seq });
    let pipeline = Pipeline::new(12);
    for (floor, oldest) in [(Some(4), 4), (Some(0), 3), (Some(9), 9), (Some(50), 12), (None, 12)] {
        let registry = Arc::new(Registry::new(clock.clone(), keeping, 12, floor, &moments));
        for seq in 0..=12 {
            let read = registry.register_at(&pipeline, seq);
            assert_eq!(read.is_ok(), seq >= oldest, "floor {floor:?}, sequence number {seq}");
        }
        let by_time = |ago: u64| registry.register_at_time(&pipeline, start - ago * 1_000_000);
        for (ago, seq) in [(0, 12), (10, 9), (19, 6), (20, 6), (21, 3), (30, 3)] {
            let found = by_time(ago).map(|reader| reader.seq()).map_err(|error| error.kind());
            let expect = if seq >= oldest { Ok(seq) } else { Err(ErrorKind::SnapshotTooOld) };
            assert_eq!(found, expect, "floor {floor:?}, {ago} s ago");
        }
        assert_eq!(by_time(31).unwrap_err().kind(), ErrorKind::SnapshotTooOld);
    }
}

/// What registering costs: `cargo test --release registering_costs -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn registering_costs() {
    let clock = Arc::new(crate::env::OsClock::default());
    let keeping = Keeping { max_age: None, retention: None };
    let registry = Arc::new(Registry::new(clock, keeping, 5, None, &[]));
    let pipeline = Pipeline::new(5);
    for others in [0, 1, 10, 1000] {
        let held: Vec<_> = (0..others)
            .map(|_| registry.register(&pipeline, PinKind::Snapshot, None, registry.clock.now()))
            .collect();
        let rounds = 2_000_000;
        let start = std::time::Instant::now();
        for _ in 0..rounds {
            drop(std::hint::black_box(registry.register(
                &pipeline,
                PinKind::Iterator,
                None,
                registry.clock.now(),
            )));
        }
        let nanos = start.elapsed().as_nanos() / rounds;
        println!("{others} others: {nanos} ns to register and unregister");
        drop(held);
    }
}
