//! Crashes at every mutating operation, in every mode, and crashes in what follows a crash.
//!
//! The oracle: with `acknowledged` edits acknowledged and at most one more issued, reading finds the state after
//! the one or the other, reports no damage (a crash is not damage), finds the same again, and goes on from there.
//! What an open has shown is never taken back.

use super::world::*;
use super::*;
use crate::env::{CrashMode, Env, MemFs};
use std::sync::Arc;

const EDITS: usize = 13;

/// How far the script came: edits acknowledged, and edits handed over.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    acknowledged: usize,
    issued: usize,
}

/// Creates, appends over two rewrites, closes, opens again and appends more.
fn script(env: &Env, progress: &mut Progress) -> crate::base::error::Result<()> {
    progress.issued = 1;
    let (mut manifest, mut version) = create(env)?;
    progress.acknowledged = 1;
    for index in 1..EDITS {
        if index == 9 || index == 11 {
            manifest.close()?;
            (manifest, version) = open(env)?.expect("the manifest is there");
        }
        progress.issued = index + 1;
        version = manifest.append(&version, &edit(index))?;
        progress.acknowledged = index + 1;
    }
    Ok(())
}

/// What the crashes led to, so that the test can tell that it tested something.
#[derive(Debug, Default)]
struct Seen {
    crashes: u64,
    nested: u64,
    lagging: u64,
    torn: u64,
    litter: u64,
    unacknowledged: u64,
}

/// Reads after a crash and holds the result against the oracle; answers how many edits it found.
fn check_read(
    disk: &Arc<MemFs>,
    states: &[Version],
    progress: Progress,
    seen: &mut Seen,
    what: &str,
) -> usize {
    let env = env_of(disk);
    Manifest::sync_existing(&env, dir()).unwrap();
    seen.litter += u64::from(!litter(disk).is_empty());
    let Some(loaded) = read(&env).unwrap_or_else(|error| panic!("{what}: {error}")) else {
        assert_eq!(progress.acknowledged, 0, "{what}: the manifest is gone");
        return 0;
    };
    let found =
        (progress.acknowledged..=progress.issued).find(|count| states[*count] == state(&loaded.version));
    let Some(found) = found else { panic!("{what}: {progress:?}, but found\n{}", loaded.version) };
    assert!(loaded.damaged.is_empty(), "{what}: {:?}", loaded.damaged);
    assert_eq!(read(&env).unwrap().unwrap().version, loaded.version, "{what}: read twice");
    seen.lagging += u64::from(loaded.lagging);
    seen.torn += u64::from(loaded.dropped_bytes > 0);
    seen.unacknowledged += u64::from(found > progress.acknowledged);
    found
}

/// Opens and appends on a crashed disk, with another crash at every operation of that.
fn crash_again(disk: &Arc<MemFs>, states: &[Version], before: Progress, seen: &mut Seen, what: &str) {
    for operation in 1.. {
        let fork = Arc::new(disk.crash_clone(operation, CrashMode::ProcessKill));
        fork.freeze_at(operation);
        let mut progress = before;
        let outcome = open_and_append(&env_of(&fork), states, &mut progress);
        let interrupted = fork.is_frozen();
        fork.thaw();
        if !interrupted {
            outcome.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(litter(&fork).is_empty(), "{what}: {:?}", litter(&fork));
            return;
        }
        for mode in CrashMode::ALL {
            seen.nested += 1;
            let crashed = Arc::new(fork.crash_clone(operation, mode));
            let what = format!("{what}, then operation {operation}, {mode:?}");
            check_read(&crashed, states, progress, seen, &what);
        }
    }
}

/// As an engine would; what the open shows counts as acknowledged from then on.
fn open_and_append(env: &Env, states: &[Version], progress: &mut Progress) -> crate::base::error::Result<()> {
    let (mut manifest, version) = match open(env)? {
        Some(opened) => opened,
        None => {
            progress.issued = 1;
            create(env)?
        }
    };
    let shown = states.iter().position(|known| *known == state(&version)).expect("a state of the script");
    (progress.acknowledged, progress.issued) = (shown, shown + 1);
    manifest.append(&version, &edit(shown))?;
    progress.acknowledged = shown + 1;
    Ok(())
}

#[test]
fn every_crash_and_every_crash_after_it() {
    let states = states(EDITS + 1);
    let base = seeded(5).random::<u64>();
    let mut seen = Seen::default();
    for operation in 1.. {
        let (env, disk) = world();
        let mut progress = Progress::default();
        disk.freeze_at(operation);
        let outcome = script(&env, &mut progress);
        let interrupted = disk.is_frozen();
        disk.thaw();
        if !interrupted {
            outcome.unwrap();
            assert!(operation > 80, "{operation} operations");
            break;
        }
        for mode in CrashMode::ALL {
            for round in 0..2 {
                seen.crashes += 1;
                let seed = base.wrapping_add(round);
                let what = format!("operation {operation}, {mode:?}, seed {seed}");
                let crashed = Arc::new(disk.crash_clone(seed, mode));
                let untouched = Arc::new(disk.crash_clone(seed, mode));
                let found = check_read(&crashed, &states, progress, &mut seen, &what);
                // `crashed` was synced and read: what it has shown stays. `untouched` was not looked at.
                let shown = Progress { acknowledged: found, issued: found };
                crash_again(&crashed, &states, shown, &mut seen, &what);
                if round == 0 {
                    crash_again(&untouched, &states, progress, &mut seen, &what);
                }
            }
        }
    }
    println!("{seen:?}");
    let counts = [seen.lagging, seen.torn, seen.litter, seen.unacknowledged];
    assert!(counts.iter().all(|count| *count > 50), "{seen:?}");
}

/// A process that dies leaves everything to the system, which may still lose it: what was read must be synced first.
#[test]
fn what_was_read_after_a_kill_survives_a_power_cut() {
    let states = states(4);
    let (env, disk) = world();
    let (mut manifest, version) = create(&env).unwrap();
    let version = manifest.append(&version, &edit(1)).unwrap();
    disk.freeze_at(2);
    manifest.append(&version, &edit(2)).unwrap_err();
    disk.thaw();
    // The edit is in copy A, whole, and not durable.
    let killed = Arc::new(disk.crash_clone(1, CrashMode::ProcessKill));
    assert_eq!(state(&read(&env_of(&killed)).unwrap().unwrap().version), states[3]);
    let unsynced = Arc::new(killed.crash_clone(1, CrashMode::SyncedOnly));
    assert_eq!(state(&read(&env_of(&unsynced)).unwrap().unwrap().version), states[2]);
    Manifest::sync_existing(&env_of(&killed), dir()).unwrap();
    let synced = Arc::new(killed.crash_clone(1, CrashMode::SyncedOnly));
    assert_eq!(state(&read(&env_of(&synced)).unwrap().unwrap().version), states[3]);
}

/// One database, a crash after every few operations, hundreds of times in a row.
#[test]
fn a_long_chain_of_crashes_loses_nothing() {
    let mut rng = seeded(8);
    let (_, mut disk) = world();
    let (mut acknowledged, mut issued) = (0u64, 0u64);
    for round in 0..600 {
        disk.freeze_at(rng.random_range(1..40));
        let env = env_of(&disk);
        let what = format!("round {round}, {acknowledged} of {issued}");
        // Fails with the power, sooner or later.
        let outcome = (|| {
            let (mut manifest, mut version) = match open(&env)? {
                Some((manifest, version)) => {
                    let log = version.log_number;
                    assert!((acknowledged..=issued).contains(&log), "{what}: found {log}");
                    (acknowledged, issued) = (log, log);
                    (manifest, version)
                }
                None => {
                    assert_eq!(acknowledged, 0, "{what}");
                    create(&env)?
                }
            };
            loop {
                issued = acknowledged + 1;
                version = manifest.append(&version, &Edit(vec![EditOp::LogNumber(issued)]))?;
                acknowledged = issued;
            }
        })();
        let _power_failed: crate::base::error::Result<()> = outcome;
        assert!(disk.is_frozen(), "{what}");
        disk.thaw();
        let mode = CrashMode::ALL[rng.random_range(0..CrashMode::ALL.len())];
        disk = Arc::new(disk.crash_clone(rng.random(), mode));
    }
    assert!(acknowledged > 1000, "{acknowledged}");
}
