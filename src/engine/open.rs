//! Open and create: from a directory to a running [`Core`], in the one order that is safe after a crash.
//!
//! A clean open (the manifest's clean marker is set and no log segment is numbered at or above the marker's) reads
//! the manifest and one directory listing, syncs nothing, creates nothing, removes nothing. Any other open first
//! makes durable what it is about to read (log, manifest, directory), drops the cached pages, reads again from the
//! device, and only then replays: what a reader has once seen after a recovery can then never disappear.

use super::background::Class;
use super::core::{Active, CommitState, Core, FileNumbers, ManifestState, State};
use super::events::Event;
use super::health::Health;
use super::keyspace::{Frozen, KeyspaceCore, View, is_reserved};
use super::obsolete::Garbage;
use super::options::{KeyspaceOptions, Options, ReadMode, ResolvedOptions};
use super::pipeline::Pipeline;
use super::replayed::{self, Memtables, Replayed};
use super::snapshot::{Keeping, Registry};
use super::stall::Stall;
use super::stats::Counters;
use super::tables::{Tables, parse_table_name};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::random::SplitMix64;
use crate::base::sync::{Condvar, Mutex, Rank};
use crate::base::types::{DbId, FileNo, KeyspaceId, SegmentNo, SeqNo, micros};
use crate::cache::BlockCache;
use crate::env::{DirEntry, Env, FileLock, JoinHandle, OsFs};
use crate::manifest::{Edit, EditOp, Manifest, Moment, Version, is_manifest_file};
use crate::memtable::ActiveMemtable;
use crate::wal::{Log, LogOptions, LogStart, parse_segment_name, sync_segments};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Name of the lock file.
const LOCK_NAME: &str = "LOCK";

/// What an open found out before anything runs.
struct Recovered {
    manifest: Manifest,
    version: Version,
    log: LogStart,
    replay: Option<Replayed>,
    /// What the log holds and no table does.
    memtables: Memtables,
    /// Files that nothing names.
    orphans: Vec<PathBuf>,
    next_file: FileNo,
    /// What was wrong with copies of the manifest.
    damaged: Vec<Error>,
    /// Whether the copies must be written again before anything else.
    needs_heal: bool,
    /// Bytes of an edit that a crash cut short.
    manifest_dropped_bytes: u64,
    took: Took,
}

/// What a recovery spent its time on.
#[derive(Default)]
struct Took {
    syncs: Duration,
    replay: Duration,
}

/// The background threads of an open database.
pub(crate) type Threads = Vec<Box<dyn JoinHandle>>;

/// Opens or creates the database in a directory; answers it and its background threads.
pub(crate) fn open(options: Options, dir: &Path) -> Result<(Arc<Core>, Threads)> {
    options.validate()?;
    check_path(dir)?;
    let env = match &options.env {
        Some(env) => env.clone(),
        None => {
            Env { fs: Arc::new(OsFs::with_modes(options.file_mode, options.directory_mode)), ..Env::os() }
        }
    };
    let lock = claim_directory(&env, &options, dir)?;
    let found = match find(&env, dir)? {
        Some(found) => found,
        None => create(&env, &options, dir)?,
    };
    let resolved = in_force(&options, &found.version)?;
    let core = Arc::new(build(env, dir, resolved, options, lock, found)?);
    let threads = start_threads(&core)?;
    Ok((core, threads))
}

/// The system's answer to an empty path names nothing.
fn check_path(dir: &Path) -> Result<()> {
    if dir.as_os_str().is_empty() {
        return Err(Error::new(ErrorKind::InvalidArgument, "the path of the database is empty"));
    }
    Ok(())
}

/// What these options come to in this database, whose default keyspace keeps what it was created with.
fn in_force(options: &Options, version: &Version) -> Result<ResolvedOptions> {
    match version.keyspaces.get(&KeyspaceId::DEFAULT) {
        Some(record) => Ok(options.resolved_with(&KeyspaceOptions::from_settings(&record.options)?)),
        None => Ok(options.resolved()),
    }
}

/// Refuses what is not ours without touching it, then takes the lock.
fn claim_directory(env: &Env, options: &Options, dir: &Path) -> Result<Box<dyn FileLock>> {
    let exists = env.fs.exists(dir).map_err(|error| not_a_directory(env, dir, error))?;
    let entries =
        if exists { env.fs.list(dir).map_err(|error| not_a_directory(env, dir, error))? } else { Vec::new() };
    let has_manifest = entries.iter().any(|entry| is_copy(&entry.name));
    if has_manifest && !entries.iter().any(|entry| entry.name == LOCK_NAME) {
        // What would be refused is refused before a lock file is put beside it.
        Manifest::read(env, dir)?;
    }
    if !has_manifest {
        if entries
            .iter()
            .any(|entry| parse_table_name(&entry.name).is_some() || parse_segment_name(&entry.name).is_some())
        {
            return Err(no_manifest(dir));
        }
        if let Some(foreign) = entries.iter().find(|entry| !is_leftover(&entry.name)) {
            return Err(Error::new(
                ErrorKind::NotADatabase,
                format!(
                    "{} holds {:?} and no manifest: it is not a database of esker",
                    dir.display(),
                    foreign.name
                ),
            ));
        }
        if !options.create_if_missing {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("there is no database in {}", dir.display()),
            ));
        }
        let anchor = env.fs.create_dir_all(dir).map_err(|error| Error::io("create", dir, error))?;
        sync_created(env, &anchor, dir)?;
    }
    let path = dir.join(LOCK_NAME);
    env.fs.lock(&path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => Error::new(
            ErrorKind::Locked,
            format!(
                "{} is open already, in another process or through another handle in this one: its lock is held",
                dir.display()
            ),
        ),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            let cause = Error::io("lock", &path, error);
            Error::caused(cause.kind(), "even to be read, a database needs a directory and files that this process may write to", cause)
        }
        _ => Error::io("lock", &path, error),
    })
}

/// A file where a directory is to be cannot be a database; any other failure is the system's.
fn not_a_directory(env: &Env, dir: &Path, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotADirectory => {
            let file = dir.ancestors().find(|path| env.fs.exists(path).is_ok_and(|exists| exists));
            let file = file.unwrap_or(dir).display();
            Error::new(ErrorKind::NotADatabase, format!("{file} is not a directory"))
        }
        _ => Error::io("open", dir, error),
    }
}

/// Whether a file is a copy of the manifest.
fn is_copy(name: &str) -> bool {
    is_manifest_file(name) && !is_temporary(name)
}

/// Whether a file is a copy of the manifest that was being written.
fn is_temporary(name: &str) -> bool {
    is_manifest_file(name) && name.ends_with(".tmp")
}

/// What an interrupted creation may have left behind.
fn is_leftover(name: &str) -> bool {
    name == LOCK_NAME || is_temporary(name)
}

/// Makes the new directories durable, from the one that existed down to the new one's parent.
fn sync_created(env: &Env, anchor: &Path, dir: &Path) -> Result<()> {
    let mut parents: Vec<&Path> =
        dir.ancestors().skip(1).take_while(|parent| parent.starts_with(anchor)).collect();
    parents.reverse();
    for parent in parents {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        env.fs.sync_dir(parent).map_err(|error| Error::io("sync directory", parent, error))?;
    }
    Ok(())
}

fn no_manifest(dir: &Path) -> Error {
    Error::corrupt(&dir.join("MANIFEST-A"), None, "a copy of the manifest", "neither it nor MANIFEST-B")
}

fn list(env: &Env, dir: &Path) -> Result<Vec<DirEntry>> {
    env.fs.list(dir).map_err(|error| Error::io("list", dir, error))
}

/// Reads the database; `None` when there is no manifest yet.
fn find(env: &Env, dir: &Path) -> Result<Option<Recovered>> {
    let entries = list(env, dir)?;
    if !entries.iter().any(|entry| is_copy(&entry.name)) {
        return Ok(None);
    }
    let Some(loaded) = Manifest::read(env, dir)? else { return Ok(None) };
    if !loaded.needs_heal()
        && let Some(next) = is_clean(&loaded.version, &entries)
    {
        let log = LogStart { next, predecessor: None, live: Vec::new() };
        let (manifest, version) = (loaded.manifest, loaded.version);
        let next_file = first_free_file(&version, &entries);
        let dead: Vec<_> = entries.iter().filter_map(|entry| parse_segment_name(&entry.name)).collect();
        let orphans = orphans(dir, &version, &dead, &entries);
        return Ok(Some(Recovered {
            manifest,
            version,
            log,
            replay: None,
            memtables: Memtables::new(),
            orphans,
            next_file,
            damaged: Vec::new(),
            needs_heal: false,
            manifest_dropped_bytes: 0,
            took: Took::default(),
        }));
    }
    recover(env, dir).map(Some)
}

/// The next log number, when the last session ended cleanly and nothing happened since.
fn is_clean(version: &Version, entries: &[DirEntry]) -> Option<SegmentNo> {
    let next = version.clean_next_log?;
    let newer =
        entries.iter().filter_map(|entry| parse_segment_name(&entry.name)).any(|number| number >= next);
    (!newer).then_some(next)
}

/// After an unclean stop: sync, forget the cache, read again, replay.
fn recover(env: &Env, dir: &Path) -> Result<Recovered> {
    let start = env.clock.now();
    Manifest::sync_existing(env, dir)?;
    let Some(loaded) = Manifest::read(env, dir)? else { return Err(no_manifest(dir)) };
    let needs_heal = loaded.needs_heal();
    let version = loaded.version;
    sync_segments(env, dir, version.log_number)?;
    env.fs.sync_dir(dir).map_err(|error| Error::io("sync directory", dir, error))?;
    let synced = env.clock.now();
    // More than this machine may have cores: one thread parses while another waits for the device.
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(4)
        .thread_name(|index| format!("esker-replay-{index}"))
        .build()
        .ok();
    let (replay, memtables) = replayed::read(env, dir, &version, pool.as_ref())?;
    let replayed = env.clock.now();
    let entries = list(env, dir)?;
    let dead = [&replay.unused[..], &replay.obsolete[..]].concat();
    let orphans = orphans(dir, &version, &dead, &entries);
    Ok(Recovered {
        manifest: loaded.manifest,
        log: replay.start.clone(),
        next_file: first_free_file(&version, &entries),
        version,
        replay: Some(replay),
        memtables,
        orphans,
        damaged: loaded.damaged,
        needs_heal,
        manifest_dropped_bytes: loaded.dropped_bytes,
        took: Took { syncs: synced.saturating_sub(start), replay: replayed.saturating_sub(synced) },
    })
}

/// A table number above everything reserved and everything seen.
fn first_free_file(version: &Version, entries: &[DirEntry]) -> FileNo {
    let seen = entries.iter().filter_map(|entry| parse_table_name(&entry.name)).max();
    version.files_reserved_upto.max(seen.map_or(1, |number| number.saturating_add(1))).max(1)
}

/// Files of ours that the manifest and the log do not name.
fn orphans(dir: &Path, version: &Version, dead: &[SegmentNo], entries: &[DirEntry]) -> Vec<PathBuf> {
    let live: BTreeSet<FileNo> = version
        .keyspaces
        .values()
        .flat_map(|record| record.tree.tables())
        .map(|table| table.number)
        .collect();
    let mut files = Vec::new();
    for entry in entries {
        let table = parse_table_name(&entry.name).is_some_and(|number| !live.contains(&number));
        let segment = parse_segment_name(&entry.name).is_some_and(|number| dead.contains(&number));
        // Not a copy of the manifest that was being written: its name is used again, so the manifest itself removes it,
        // and a collection at the wrong moment would take the new one.
        if table || segment {
            files.push(dir.join(&entry.name));
        }
    }
    files
}

/// A new database: one manifest with the default keyspace, nothing else.
fn create(env: &Env, options: &Options, dir: &Path) -> Result<Recovered> {
    let default = options.keyspace.creation(KeyspaceId::DEFAULT, "default");
    // Nothing was ever dropped.
    let mut ops = vec![default, EditOp::Floor(0)];
    if options.retention.is_some() {
        let moment = Moment { at_micros: env.clock.unix_micros(), seq: 0 };
        ops.push(EditOp::Moment { moment, span_micros: 0 });
    }
    let (manifest, version) = Manifest::create(env, dir, new_id(env), &Edit(ops))?;
    let log = LogStart { next: version.log_number.max(1), predecessor: None, live: Vec::new() };
    Ok(Recovered {
        manifest,
        version,
        log,
        replay: None,
        memtables: Memtables::new(),
        orphans: Vec::new(),
        next_file: 1,
        damaged: Vec::new(),
        needs_heal: false,
        manifest_dropped_bytes: 0,
        took: Took::default(),
    })
}

fn new_id(env: &Env) -> DbId {
    let mut random = SplitMix64::new(env.entropy());
    (u128::from(random.next_u64()) << 64) | u128::from(random.next_u64())
}

/// Assembles the core from what was found.
fn build(
    env: Env,
    dir: &Path,
    resolved: ResolvedOptions,
    options: Options,
    lock: Box<dyn FileLock>,
    mut found: Recovered,
) -> Result<Core> {
    let health = Health::new(options.listener);
    heal(&health, &mut found)?;
    let version = found.version;
    let replayed = std::mem::take(&mut found.memtables);
    let last_seq = last_sequence(&version, found.replay.as_ref());
    let (keyspaces, active) = keyspaces(&version, &resolved, replayed)?;
    let has_threads = AtomicBool::new(resolved.background_threads > 0);
    let tables = tables(&env, dir, version.db, &resolved);
    let log_options = LogOptions { segment_bytes: resolved.wal_segment_bytes, mapped: resolved.wal_mapped };
    let log = Log::new(&env, dir, version.db, log_options, found.log);
    let next_seq = last_seq.saturating_add(1);
    let commit = CommitState { next_seq, log, target: None, active, unchecked_bytes: 0 };
    let garbage = Garbage::new();
    // A clean open changes nothing, and a copy of the manifest that lags behind may still name what the other dropped.
    if found.replay.is_none() || found.needs_heal {
        garbage.hold_files(found.orphans);
    } else {
        garbage.add_files(found.orphans);
    }
    let keeping = Keeping {
        max_age: resolved.max_snapshot_age.map(|age| (age, resolved.snapshot_age_policy)),
        retention: resolved.retention,
    };
    let registry = Registry::new(Arc::clone(&env.clock), keeping, last_seq, version.floor, &version.moments);
    let db_id = version.db;
    let stats = Counters::default();
    if let Some(replay) = &found.replay {
        stats.wal_bytes_dropped.add(replay.dropped_bytes);
        health.emit(&Event::Recovered {
            batches: replay.batches,
            dropped_bytes: replay.dropped_bytes,
            manifest_dropped_bytes: found.manifest_dropped_bytes,
            sync_micros: micros(found.took.syncs),
            replay_micros: micros(found.took.replay),
        });
    }
    Ok(Core {
        dir: dir.to_path_buf(),
        db_id,
        options: resolved,
        health,
        commit: Mutex::new(Rank::Commit, commit),
        pipeline: Pipeline::new(last_seq),
        manifest: Mutex::new(
            Rank::Manifest,
            ManifestState { manifest: found.manifest, version, lock: Some(lock) },
        ),
        files: FileNumbers::new(found.next_file),
        state: Mutex::new(Rank::Engine, State { keyspaces, ..State::default() }),
        work: Condvar::default(),
        progress: Condvar::default(),
        registry: Arc::new(registry),
        tables: Arc::new(tables),
        garbage,
        stall: Stall::new(),
        stats,
        has_threads,
        cancel: AtomicBool::new(false),
        prepare: AtomicU64::new(0),
        proof_due: AtomicU64::new(0),
        sync_due: AtomicU64::new(0),
        held_back: AtomicBool::new(false),
        env,
    })
}

/// The tables of a database, none of them open yet.
fn tables(env: &Env, dir: &Path, db: DbId, resolved: &ResolvedOptions) -> Tables {
    let mode = match resolved.read_mode {
        ReadMode::Mmap => crate::sstable::ReadMode::Mmap,
        ReadMode::Pread => crate::sstable::ReadMode::Pread,
    };
    Tables::new(
        Arc::clone(&env.fs),
        dir.to_path_buf(),
        db,
        mode,
        Arc::new(BlockCache::new(resolved.block_cache_bytes)),
        resolved.table_cache_bytes,
        resolved.max_open_files,
    )
}

/// Writes damaged manifest copies again from the sound one.
fn heal(health: &Health, found: &mut Recovered) -> Result<()> {
    if !found.needs_heal {
        return Ok(());
    }
    match found.manifest.heal(&found.version) {
        Ok(version) => found.version = version,
        // A full disk must not keep a database from being read: the next append heals.
        Err(error) if error.kind() == ErrorKind::NoSpace => return Ok(()),
        Err(error) => return Err(error),
    }
    found.needs_heal = false;
    for damage in &found.damaged {
        health.emit(&Event::ManifestHealed { damage: damage.clone() });
    }
    Ok(())
}

fn last_sequence(version: &Version, replay: Option<&Replayed>) -> SeqNo {
    let tables =
        version.keyspaces.values().flat_map(|record| record.tree.tables()).map(|table| table.seq_max);
    let flushed = version.keyspaces.values().map(|record| record.flushed_seq);
    let logged = replay.map_or(0, |replay| replay.last_seq);
    tables.chain(flushed).fold(version.last_seq.max(logged), SeqNo::max)
}

type Keyspaces = BTreeMap<KeyspaceId, Arc<KeyspaceCore>>;

fn keyspaces(
    version: &Version,
    resolved: &ResolvedOptions,
    mut replayed: Memtables,
) -> Result<(Keyspaces, BTreeMap<KeyspaceId, Active>)> {
    let mut cores = BTreeMap::new();
    let mut actives = BTreeMap::new();
    for record in version.keyspaces.values() {
        let options = KeyspaceOptions::from_settings(&record.options)?;
        let frozen = replayed.remove(&record.id).map(Arc::new).into_iter().collect();
        let (core, active) =
            new_keyspace(record.id, &record.name, options, resolved, frozen, Arc::clone(&record.tree));
        cores.insert(record.id, core);
        actives.insert(record.id, active);
    }
    Ok((cores, actives))
}

/// A keyspace with an empty memtable.
pub(crate) fn new_keyspace(
    id: KeyspaceId,
    name: &str,
    options: KeyspaceOptions,
    resolved: &ResolvedOptions,
    frozen: Vec<Arc<Frozen>>,
    tree: Arc<crate::manifest::Tree>,
) -> (Arc<KeyspaceCore>, Active) {
    let bytes = match options.write_buffer_bytes {
        0 if is_reserved(name) => system_buffer_bytes(resolved),
        0 => resolved.write_buffer_bytes,
        bytes => bytes,
    };
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    let memtable = Arc::new(ActiveMemtable::new(bytes));
    let view = View { active: Arc::clone(&memtable), frozen, tree };
    let core = Arc::new(KeyspaceCore::new(id, name.to_string(), options, bytes, view));
    let active = Active { keyspace: Arc::clone(&core), memtable, first_segment: None, used: false };
    (core, active)
}

/// Write buffer of the engine's own records. Small, for its filter is made for all of it with the first of them; large
/// enough that sessions which commit all the time do not flush all the time.
fn system_buffer_bytes(resolved: &ResolvedOptions) -> u64 {
    (resolved.write_buffer_bytes / 16).clamp(4 << 10, 4 << 20)
}

fn start_threads(core: &Arc<Core>) -> Result<Threads> {
    let mut threads = Vec::new();
    for index in 0..core.options.background_threads {
        let class = if index == 0 && core.options.background_threads > 1 { Class::Flush } else { Class::Any };
        let body = Arc::clone(core);
        let name = format!("esker-{}-{index}", if class == Class::Flush { "flush" } else { "work" });
        let started = core.env.spawner.spawn(name, Box::new(move || body.background_loop(class)));
        match started {
            Ok(Some(thread)) => threads.push(thread),
            Ok(None) => core.has_threads.store(false, Ordering::Relaxed),
            Err(error) => {
                super::close::stop_threads(core, threads)?;
                return Err(Error::io("start a thread", &core.dir, error));
            }
        }
    }
    Ok(threads)
}
