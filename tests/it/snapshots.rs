//! Snapshots and what they hold back: when old versions go, who is reported, who is given up, and states of the past.
//!
//! On the simulated disk with a clock that the test moves, except where threads race.

use crate::support::{Map, Random, contents, seed, setting};
use esker::env::{CrashMode, Env, MemFs};
use esker::{
    Cursor, Db, Error, ErrorKind, Event, Keyspace, KeyspaceOptions, Options, PinKind, Snapshot,
    SnapshotAgePolicy,
};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

const MINUTE: Duration = Duration::from_secs(60);

struct World {
    env: Env,
    disk: Arc<MemFs>,
    events: Arc<Mutex<Vec<String>>>,
}

impl World {
    fn new(seed: u64) -> World {
        let disk = Arc::new(MemFs::new());
        World { env: Env::simulated(disk.clone(), seed), disk, events: Arc::default() }
    }

    /// Without threads: everything happens when the test says so.
    fn options(&self) -> Options {
        let events = Arc::clone(&self.events);
        let note = move |event: &Event| {
            if let Event::OldReader { .. } = event {
                events.lock().unwrap().push(event.to_string());
            }
        };
        Options::tiny().background_threads(0).listener(Arc::new(note)).env(self.env.clone())
    }

    fn open(&self, options: Options) -> Db {
        options.open("/db").expect("open")
    }

    fn wait(&self, time: Duration) {
        self.env.clock.sleep(time);
    }

    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_micros(self.env.clock.unix_micros())
    }

    fn crash(&mut self, seed: u64, mode: CrashMode) {
        self.disk = Arc::new(self.disk.crash_clone(seed, mode));
        self.env.fs = self.disk.clone();
    }

    fn events(&self) -> Vec<String> {
        std::mem::take(&mut *self.events.lock().unwrap())
    }
}

fn work(db: &Db) {
    while db.run_background_job() {}
}

/// Entries in the tables of the default keyspace.
fn entries(db: &Db) -> u64 {
    let stats = db.stats();
    stats.keyspaces[0].levels.iter().map(|level| level.entries).sum()
}

fn all_of(snapshot: &Snapshot, keyspace: &Keyspace) -> Result<Map, Error> {
    snapshot.iter_in(keyspace).map(|item| item.map(|(key, value)| (key.to_vec(), value.to_vec()))).collect()
}

// When versions go.

#[test]
fn a_flush_writes_only_what_somebody_reads() {
    let db = World::new(1);
    let db = db.open(db.options());
    for round in 0..5u32 {
        db.put("k", round.to_be_bytes()).unwrap();
    }
    db.flush().unwrap();
    assert_eq!(entries(&db), 1);
    db.put("k", "held").unwrap();
    let held = db.snapshot();
    db.put("k", "between").unwrap();
    db.put("k", "new").unwrap();
    db.flush().unwrap();
    assert_eq!(entries(&db), 3);
    assert_eq!(held.get("k").unwrap().unwrap(), "held");
}

#[test]
fn a_compaction_drops_what_the_last_reader_let_go() {
    for deletes in [false, true] {
        let world = World::new(1);
        let db = world.open(world.options());
        let mut held = Vec::new();
        for round in 0..4u32 {
            for key in 0..20u32 {
                db.put(key.to_be_bytes(), round.to_be_bytes()).unwrap();
            }
            held.push(db.snapshot());
        }
        if deletes {
            for key in 0..20u32 {
                db.delete(key.to_be_bytes()).unwrap();
            }
        }
        db.compact().unwrap();
        assert_eq!(entries(&db), if deletes { 100 } else { 80 });
        // Held at rounds 0 to 3, let go one by one; what is in the last level goes by hand.
        for gone in 1..4 {
            held.remove(0);
            db.compact().unwrap();
            let kept = 20 * (4 - gone) + if deletes { 20 } else { 0 };
            assert_eq!(entries(&db), kept, "{gone} gone, deletes {deletes}");
        }
        held.clear();
        db.compact().unwrap();
        assert_eq!(entries(&db), if deletes { 0 } else { 20 });
    }
}

#[test]
fn what_a_long_snapshot_held_goes_in_the_background_when_it_ends() {
    for deletes in [false, true] {
        let world = World::new(1);
        let db = world.open(world.options());
        for key in 0..200u32 {
            db.put(key.to_be_bytes(), [1; 20]).unwrap();
        }
        let held = db.snapshot();
        for key in 0..200u32 {
            if deletes {
                db.delete(key.to_be_bytes()).unwrap();
            } else {
                db.put(key.to_be_bytes(), [2; 20]).unwrap();
            }
        }
        db.compact().unwrap();
        work(&db);
        assert_eq!(entries(&db), 400);
        assert!(all_of(&held, &db.default_keyspace()).unwrap().values().all(|value| value == &[1; 20]));
        drop(held);
        work(&db);
        assert_eq!(entries(&db), if deletes { 0 } else { 200 });
        let compactions = db.stats().compactions;
        work(&db);
        assert_eq!(db.stats().compactions, compactions, "it comes to rest");
    }
}

// Who is reported.

#[test]
fn pins_are_listed_oldest_first_with_what_they_hold() {
    let world = World::new(1);
    let db = world.open(world.options());
    db.put("a", [0; 100]).unwrap();
    let export = db.snapshot_labeled("export");
    world.wait(MINUTE);
    for key in 0..50u8 {
        db.put([key], [0; 100]).unwrap();
    }
    let cursor = db.cursor().unwrap();
    world.wait(MINUTE);
    let inside = export.iter();
    let shown: Vec<_> = db.pins().into_iter().map(|pin| (pin.kind, pin.label, pin.age, pin.seq)).collect();
    let label = Some("export".to_string());
    assert_eq!(
        shown,
        [
            (PinKind::Snapshot, label.clone(), 2 * MINUTE, 1),
            (PinKind::Iterator, label, 2 * MINUTE, 1),
            (PinKind::Iterator, None, MINUTE, 51),
        ]
    );
    let bytes: Vec<_> = db.pins().iter().map(|pin| pin.bytes).collect();
    assert!((5_000..7_000).contains(&bytes[0]) && bytes[1] == bytes[0] && bytes[2] == 0, "{bytes:?}");
    assert!(db.pins()[0].to_string().starts_with("snapshot \"export\" at 1, 120s old, about "));
    drop((export, inside));
    assert_eq!(db.pins().len(), 1);
    drop(cursor);
    assert_eq!(db.pins(), []);
}

#[test]
fn old_readers_are_told_of_once_by_background_work() {
    let world = World::new(1);
    let db = world.open(world.options().max_snapshot_age(MINUTE));
    db.put("k", "v").unwrap();
    let first = db.snapshot_labeled("first");
    world.wait(MINUTE / 2);
    let second = db.iter();
    work(&db);
    assert!(world.events().is_empty());
    world.wait(MINUTE / 2);
    work(&db);
    let told = world.events();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].starts_with("an old reader holds back space: snapshot \"first\" at 1, 60s old"),
        "{told:?}"
    );
    world.wait(MINUTE);
    work(&db);
    let told = world.events();
    assert!(told.len() == 1 && told[0].contains("iterator at 1, 90s old"), "{told:?}");
    world.wait(MINUTE);
    work(&db);
    assert!(world.events().is_empty());
    assert_eq!(first.get("k").unwrap().unwrap(), "v");
    assert_eq!(second.count(), 1);
}

#[test]
fn background_threads_find_old_readers_by_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let (told, heard) = std::sync::mpsc::channel();
    let listener = move |event: &Event| {
        if let Event::OldReader { pin, given_up } = event {
            let _unheard = told.send((pin.label.clone(), *given_up));
        }
    };
    let db = Options::tiny()
        .max_snapshot_age(Duration::from_millis(20))
        .snapshot_age_policy(SnapshotAgePolicy::Fail)
        .listener(Arc::new(listener))
        .open(dir.path())
        .unwrap();
    for label in ["one", "two"] {
        let snapshot = db.snapshot_labeled(label);
        let heard = heard.recv_timeout(Duration::from_secs(60)).expect("an event");
        assert_eq!(heard, (Some(label.to_string()), true));
        assert_eq!(snapshot.get("k").unwrap_err().kind(), ErrorKind::SnapshotTooOld);
        assert_eq!(db.pins(), []);
    }
}

// Who is given up.

fn too_old<T: std::fmt::Debug>(result: Result<T, Error>) {
    assert_eq!(result.unwrap_err().kind(), ErrorKind::SnapshotTooOld);
}

type Move = fn(&mut Cursor) -> Result<(), Error>;

/// Cursors on the first of three entries, on the last, after a seek forward and backward, nowhere.
fn cursors(db: &Db) -> Vec<Cursor> {
    let moves: [Move; 5] = [
        |cursor| cursor.seek_to_first(),
        |cursor| cursor.seek_to_last(),
        |cursor| cursor.seek("b"),
        |cursor| cursor.seek_for_prev("b"),
        |_| Ok(()),
    ];
    let place = |to: &Move| {
        let mut cursor = db.cursor().unwrap();
        to(&mut cursor).unwrap();
        cursor
    };
    moves.iter().map(place).collect()
}

#[test]
fn every_way_to_read_fails_once_a_reader_is_given_up() {
    // Found by background work, by the sample of a flush, by nobody but the reader itself.
    for found_by in 0..3 {
        let world = World::new(1);
        let fail = world.options().max_snapshot_age(MINUTE).snapshot_age_policy(SnapshotAgePolicy::Fail);
        let db = world.open(fail);
        for key in ["a", "b", "c"] {
            db.put(key, "old").unwrap();
        }
        let snapshot = db.snapshot_labeled("forgotten");
        let (mut iter, mut back, mut inside) = (db.iter(), db.iter(), snapshot.iter());
        iter.next().unwrap().unwrap();
        back.next_back().unwrap().unwrap();
        let held = cursors(&db);
        world.wait(MINUTE - Duration::from_nanos(1));
        assert_eq!(snapshot.get("a").unwrap().unwrap(), "old");
        world.wait(Duration::from_nanos(1));
        for key in ["a", "b", "c"] {
            db.put(key, "new").unwrap();
        }
        match found_by {
            0 => work(&db),
            1 => db.flush().unwrap(),
            _ => too_old(snapshot.get("a")),
        }
        too_old(snapshot.get("a"));
        too_old(snapshot.multi_get(&["a", "b"]));
        too_old(snapshot.cursor());
        too_old(snapshot.iter().next().unwrap());
        too_old(snapshot.clone().get("a"));
        too_old(inside.next().unwrap());
        too_old(iter.next().unwrap());
        assert!(iter.next().is_none());
        too_old(back.next_back().unwrap());
        let steps: [Move; 6] = [
            Cursor::next,
            Cursor::prev,
            Cursor::seek_to_first,
            Cursor::seek_to_last,
            |cursor| cursor.seek("b"),
            |cursor| cursor.seek_for_prev("b"),
        ];
        for step in steps {
            for mut cursor in cursors(&db) {
                step(&mut cursor).unwrap();
            }
        }
        for (nth, mut cursor) in held.into_iter().enumerate() {
            for step in steps.iter().cycle().skip(nth).take(steps.len()) {
                too_old(step(&mut cursor));
                assert!(!cursor.valid() && cursor.value().is_empty());
            }
        }
        assert_eq!(db.pins(), []);
        db.compact().unwrap();
        assert_eq!(entries(&db), 3, "it pins nothing");
        work(&db);
        assert!(world.events().iter().all(|event| event.starts_with("an old reader was given up: ")));
        let fresh = db.snapshot();
        assert_eq!(fresh.get("a").unwrap().unwrap(), "new");
    }
}

/// Readers on several threads, given up after a millisecond, while everything they read is overwritten, flushed and
/// compacted: what they answer is what they should see, or that they are too old.
#[test]
fn a_reader_that_is_given_up_never_answers_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let db = Options::tiny()
        .max_snapshot_age(Duration::from_millis(1))
        .snapshot_age_policy(SnapshotAgePolicy::Fail)
        .durability(esker::Durability::Os)
        .open(dir.path())
        .unwrap();
    let rounds = setting("ESKER_SNAPSHOT_ROUNDS", 150);
    const KEYS: u32 = 40;
    let write = |round: u64| {
        let mut batch = db.batch();
        for key in 0..KEYS {
            batch.put(&db.default_keyspace(), key.to_be_bytes(), round.to_be_bytes()).unwrap();
        }
        batch.commit().unwrap();
    };
    write(0);
    let (stop, refused, answered) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for reader in 0..3u64 {
            let (db, stop, refused, answered) = (&db, &stop, &refused, &answered);
            scope.spawn(move || {
                let mut random = Random::new(reader);
                while !stop.load(Ordering::Relaxed) {
                    let snapshot = db.snapshot();
                    // All keys were written by the same batch, whose operations have the numbers up to this one.
                    let round = (snapshot.seq() / u64::from(KEYS) - 1).to_be_bytes();
                    let outcome = (0..200).try_for_each(|_| {
                        if random.chance(5) {
                            let values: Vec<_> = snapshot.iter().collect::<Result<_, _>>()?;
                            assert_eq!(values.len(), KEYS as usize);
                            assert!(values.iter().all(|(_, value)| value[..] == round));
                        } else {
                            let key = (random.below(u64::from(KEYS)) as u32).to_be_bytes();
                            let value = snapshot.get(key)?;
                            assert_eq!(value.as_deref(), Some(&round[..]));
                        }
                        if random.chance(10) {
                            std::thread::sleep(Duration::from_micros(random.below(300)));
                        }
                        answered.fetch_add(1, Ordering::Relaxed);
                        Ok(())
                    });
                    if let Err(error) = outcome {
                        let error: Error = error;
                        assert_eq!(error.kind(), ErrorKind::SnapshotTooOld, "{error}");
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        for round in 1..=rounds {
            write(round);
            if round % 5 == 0 {
                db.flush().unwrap();
            }
            if round % 25 == 0 {
                db.compact().unwrap();
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(refused.into_inner() > 0 && answered.into_inner() > 0, "neither path was left out");
}

// States of the past.

#[test]
fn the_past_is_readable_inside_the_window_and_refused_before_it() {
    let world = World::new(1);
    let db = world.open(world.options().retention(60 * MINUTE));
    let mut states = vec![(0, None)];
    for value in ["one", "two", "three"] {
        world.wait(10 * MINUTE);
        db.put("k", value).unwrap();
        states.push((db.latest_seq(), Some(value)));
        db.compact().unwrap();
    }
    let check = |db: &Db, oldest: usize| {
        for (nth, (seq, value)) in states.iter().enumerate() {
            match db.snapshot_at(*seq) {
                Ok(snapshot) if nth >= oldest => {
                    assert_eq!(snapshot.get("k").unwrap().map(|value| value.to_vec()), value.map(Vec::from));
                }
                Err(error) if nth < oldest => {
                    assert_eq!(error.kind(), ErrorKind::SnapshotTooOld);
                    let named = format!("the oldest readable is sequence number {}", states[oldest].0);
                    assert!(error.to_string().contains(&named), "{error}");
                }
                other => panic!("state {nth}, oldest {oldest}: {other:?}"),
            }
        }
    };
    assert_eq!(db.snapshot_at(4).unwrap_err().kind(), ErrorKind::InvalidArgument);
    let start = world.now() - 30 * MINUTE;
    let at = |db: &Db, minute: u32| {
        let found = db.snapshot_at_time(start + minute * MINUTE);
        found.and_then(|snapshot| snapshot.get("k")).map(|value| value.map(|value| value.to_vec()))
    };
    assert_eq!(at(&db, 5).unwrap(), None);
    assert_eq!(at(&db, 15).unwrap(), Some(b"one".to_vec()));
    assert_eq!(at(&db, 20).unwrap(), Some(b"two".to_vec()));
    assert_eq!(at(&db, 25).unwrap(), Some(b"two".to_vec()));
    assert_eq!(at(&db, 1000).unwrap(), Some(b"three".to_vec()));
    too_old(db.snapshot_at_time(start - MINUTE));
    check(&db, 0);
    assert_eq!(entries(&db), 3);

    db.close().unwrap();
    let db = world.open(world.options().retention(60 * MINUTE));
    check(&db, 0);
    world.wait(30 * MINUTE);
    db.compact().unwrap();
    check(&db, 0);
    world.wait(10 * MINUTE);
    // The state at the start of the window is "one".
    check(&db, 1);
    too_old(at(&db, 5));
    assert_eq!(at(&db, 15).unwrap(), Some(b"one".to_vec()));
    world.wait(20 * MINUTE);
    check(&db, 3);
    work(&db);
    db.compact().unwrap();
    assert_eq!(entries(&db), 1);
    db.close().unwrap();
    // What is gone is gone, whatever window is asked for.
    let db = world.open(world.options().retention(600 * MINUTE));
    check(&db, 3);
}

#[test]
fn an_open_without_retention_ends_the_window() {
    let world = World::new(1);
    let open = |retention: bool| {
        let options = world.options();
        world.open(if retention { options.retention(60 * MINUTE) } else { options })
    };
    let db = open(true);
    db.put("k", "one").unwrap();
    db.put("k", "two").unwrap();
    db.close().unwrap();
    let db = open(false);
    too_old(db.snapshot_at(1));
    assert_eq!(db.snapshot_at(2).unwrap().get("k").unwrap().unwrap(), "two");
    db.put("k", "three").unwrap();
    let held = db.snapshot();
    db.put("k", "four").unwrap();
    assert_eq!(db.snapshot_at(held.seq()).unwrap().get("k").unwrap().unwrap(), "three");
    drop(held);
    db.compact().unwrap();
    db.close().unwrap();
    let db = open(true);
    for seq in 0..4 {
        too_old(db.snapshot_at(seq));
    }
    assert_eq!(db.snapshot_at(4).unwrap().get("k").unwrap().unwrap(), "four");
}

#[test]
fn keyspaces_of_later_are_empty_and_dropped_ones_are_gone() {
    let world = World::new(1);
    let db = world.open(world.options().retention(60 * MINUTE));
    let old = db.keyspace("old").unwrap();
    old.put("k", "v").unwrap();
    db.put("k", "v").unwrap();
    let before = db.latest_seq();
    db.drop_keyspace("old").unwrap();
    let again = db.keyspace("old").unwrap();
    again.put("k", "w").unwrap();
    let snapshot = db.snapshot_at(before).unwrap();
    assert_eq!(snapshot.get("k").unwrap().unwrap(), "v");
    assert_eq!(snapshot.get_in(&again, "k").unwrap(), None);
    assert_eq!(snapshot.iter_in(&again).count(), 0);
    assert_eq!(snapshot.get_in(&old, "k").unwrap_err().kind(), ErrorKind::NotFound);
}

// The model of the past: every state there ever was, in full.

const NAMES: [&str; 3] = ["default", "second", "third"];

/// Contents of all keyspaces.
type State = BTreeMap<&'static str, Map>;

struct Commit {
    seq: u64,
    at: SystemTime,
    state: State,
}

struct Rig {
    random: Random,
    world: World,
    db: Option<Db>,
    commits: Vec<Commit>,
    held: Vec<(Snapshot, usize)>,
    window: Duration,
    /// Times before are known roughly: of the moments between the last flush and a crash nothing is written down, and
    /// only the open after it notes one again.
    rough_before: SystemTime,
    crashed: bool,
    seed: u64,
}

impl Rig {
    fn new(seed: u64) -> Rig {
        let mut random = Random::new(seed);
        let world = World::new(seed);
        let window = Duration::from_secs(1 + random.below(1000));
        let now = world.now();
        let first = Commit { seq: 0, at: now, state: State::new() };
        let mut rig = Rig {
            random,
            world,
            db: None,
            commits: vec![first],
            held: Vec::new(),
            window,
            rough_before: now,
            crashed: false,
            seed,
        };
        rig.open();
        for name in NAMES {
            let options =
                KeyspaceOptions::new().write_buffer_bytes(8 << 10).target_table_bytes(2 << 10).l0_runs(2);
            rig.db().keyspace_with(name, &options).expect("create");
        }
        rig
    }

    fn db(&self) -> &Db {
        self.db.as_ref().expect("open")
    }

    fn open(&mut self) {
        self.db = Some(self.world.open(self.world.options().retention(self.window)));
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..60 => self.write(),
            60..75 => {
                let share = self.random.below(60) as u32;
                self.world.wait(self.window * share / 300);
            }
            75..80 => self.db().flush().expect("flush"),
            80..83 => {
                let name = *self.random.pick(&NAMES);
                self.db().existing_keyspace(name).expect("there").compact().expect("compact");
            }
            83..87 => work(self.db()),
            87..89 => self.reopen(),
            89..91 => self.hold(),
            91..93 => self.compare_held(),
            93..97 => self.compare_by_seq(),
            _ => self.compare_by_time(),
        }
    }

    fn write(&mut self) {
        let mut state = self.commits.last().expect("the first").state.clone();
        let mut batch = self.db().batch();
        for _ in 0..=self.random.below(4) {
            let name = *self.random.pick(&NAMES);
            let keyspace = self.db().existing_keyspace(name).expect("there");
            let key = vec![b'a' + self.random.below(26) as u8; 1 + self.random.below(3) as usize];
            let map = state.entry(name).or_default();
            if self.random.chance(25) {
                batch.delete(&keyspace, &key).expect("delete");
                map.remove(&key);
            } else {
                let len = self.random.below(60) as usize;
                let value = self.random.bytes(len);
                batch.put(&keyspace, &key, &value).expect("put");
                map.insert(key, value);
            }
        }
        batch.commit().expect("commit");
        let (seq, at) = (self.db().latest_seq(), self.world.now());
        self.commits.push(Commit { seq, at, state });
    }

    fn reopen(&mut self) {
        self.held.clear();
        let db = self.db.take().expect("open");
        let closes = self.random.chance(50);
        if closes {
            db.close().expect("close");
        } else {
            // All commits are durable, so all of them come back.
            let mode = *self.random.pick(&CrashMode::ALL);
            self.world.crash(self.random.next(), mode);
            self.crashed = true;
            drop(db);
        }
        if self.random.chance(30) {
            self.world.wait(self.window / 10);
        }
        if !closes {
            self.rough_before = self.world.now();
        }
        self.open();
    }

    /// The commit whose state was in force at a time.
    fn commit_at(&self, time: SystemTime) -> usize {
        self.commits.partition_point(|commit| commit.at <= time).saturating_sub(1)
    }

    fn compare(&self, snapshot: &Snapshot, nth: usize, what: &str) {
        let commit = &self.commits[nth];
        assert_eq!(snapshot.seq(), commit.seq, "seed {}: {what}", self.seed);
        for name in NAMES {
            let keyspace = self.db().existing_keyspace(name).expect("there");
            let found = all_of(snapshot, &keyspace).expect("read");
            let expect = commit.state.get(name).cloned().unwrap_or_default();
            assert_eq!(found, expect, "seed {}: {what}, commit {nth} in {name}", self.seed);
            for (key, value) in expect.iter().take(3) {
                let found = snapshot.get_in(&keyspace, key).expect("read");
                assert_eq!(found.as_deref(), Some(&value[..]), "seed {}: {what}", self.seed);
            }
        }
    }

    fn hold(&mut self) {
        if self.held.len() < 4 {
            let nth = self.commits.len() - 1;
            self.held.push((self.db().snapshot(), nth));
        } else {
            self.held.remove(0);
        }
    }

    fn compare_held(&self) {
        for (snapshot, nth) in &self.held {
            self.compare(snapshot, *nth, "held");
            let again = self.db().snapshot_at(snapshot.seq()).expect("somebody reads there");
            self.compare(&again, *nth, "again");
        }
    }

    fn span(&self) -> Duration {
        self.window / 256 + Duration::from_micros(1)
    }

    fn compare_by_seq(&mut self) {
        let start = self.world.now() - self.window;
        let oldest = self.commit_at(start);
        // Half of them around the start of the window.
        let nth = if self.random.chance(50) {
            self.random.below(self.commits.len() as u64) as usize
        } else {
            (oldest + self.random.below(7) as usize).saturating_sub(3).min(self.commits.len() - 1)
        };
        let what = format!("by number, {nth} of {}, window from {oldest}", self.commits.len());
        match self.db().snapshot_at(self.commits[nth].seq) {
            Ok(snapshot) => {
                let long_gone = self.commit_at(start - self.span());
                let is_held = self.held.iter().any(|(_, held)| *held == nth);
                let refused = nth < long_gone && !self.crashed && !is_held;
                // The commits of a span share a moment: the last before it may be kept as well.
                let before = self.commits[..long_gone].iter().rev().map(|commit| commit.at);
                let shared = before.take_while(|at| *at + self.span() >= start - self.span()).count();
                assert!(!refused || nth + shared >= long_gone, "seed {}: {what}: not refused", self.seed);
                self.compare(&snapshot, nth, &what);
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::SnapshotTooOld, "seed {}: {what}: {error}", self.seed);
                assert!(nth < oldest, "seed {}: {what}: {error}", self.seed);
            }
        }
    }

    fn compare_by_time(&mut self) {
        let back = self.window * self.random.below(1200) as u32 / 1000;
        let (now, time) = (self.world.now(), self.world.now() - back);
        let what = format!("{back:?} ago, window {:?}", self.window);
        match self.db().snapshot_at_time(time) {
            Ok(snapshot) => {
                let nth = self.commits.partition_point(|commit| commit.seq < snapshot.seq());
                self.compare(&snapshot, nth, &what);
                assert!(nth <= self.commit_at(time), "seed {}: {what}: from the future", self.seed);
                let missing = self.commit_at(time - self.span());
                let rough = time < self.rough_before;
                assert!(nth >= missing || rough, "seed {}: {what}: {nth} instead of {missing}", self.seed);
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::SnapshotTooOld, "seed {}: {what}: {error}", self.seed);
                let before = time < now - self.window || time < self.commits[0].at;
                assert!(before, "seed {}: {what}: {error}", self.seed);
            }
        }
    }
}

/// `ESKER_SNAPSHOT_RUNS` runs of 1,500 steps.
#[test]
fn every_state_in_the_window_is_there_whatever_happens() {
    let (first, runs) = (seed(1), setting("ESKER_SNAPSHOT_RUNS", 25));
    println!("ESKER_SEED={first} ESKER_SNAPSHOT_RUNS={runs}");
    for seed in first..first + runs {
        let mut rig = Rig::new(seed);
        for _ in 0..1500 {
            rig.step();
        }
        rig.compare_held();
        let last = rig.commits.len() - 1;
        for (name, expect) in &rig.commits[last].state {
            let keyspace = rig.db().existing_keyspace(name).expect("there");
            assert_eq!(&contents(&keyspace).expect("read"), expect, "seed {seed}");
        }
        rig.db().verify().expect("sound");
    }
}
