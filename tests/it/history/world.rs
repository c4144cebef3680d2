//! Where random histories happen: a database on a disk in memory, clients in many threads or many transactions of one
//! thread, work in the background, crashes, and the history that all of it leaves.

use super::client::{Client, Open, Space, Stop};
use super::model::{End, History, Status};
use super::plan::{Mix, Plan};
use crate::support::Random;
use esker::env::{CrashMode, Env, MemFs, OsClock, OsSpawner};
use esker::{CompactionStyle, Db, KeyspaceOptions, Options, ReadMode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

const DIR: &str = "/db";

/// Transactions of one history: enough for everything to happen, little enough to stay in the processor's cache.
pub const ROUND: u64 = 20_000;

/// How clients take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turns {
    /// One thread steps through this many transactions at once: the seed says in which order. Nobody waits for locks.
    Stepped(u64),
    /// So many threads, as the system lets them run.
    Threads(u32),
}

/// One piece of history to be.
#[derive(Debug, Clone)]
pub struct Round {
    pub turns: Turns,
    pub mix: Mix,
    pub transactions: u64,
    pub crash: Option<CrashMode>,
}

impl Round {
    pub fn draw(random: &mut Random, transactions: u64) -> Round {
        let turns = match random.chance(40) {
            true => Turns::Stepped(2 + random.below(6)),
            false => Turns::Threads(2 + random.below(15) as u32),
        };
        let mut round = Round { turns, mix: Mix::draw(random), transactions, crash: None };
        if random.chance(50) {
            // Many crashes rather than much before each, and commits that wait for the disk when it comes.
            round.transactions /= 5;
            round.mix.disk = *random.pick(&[3, 40, 90]);
            round.crash = Some(*random.pick(&CrashMode::ALL));
        }
        round
    }
}

pub struct World {
    pub random: Random,
    fs: Arc<MemFs>,
    db: Option<Db>,
    time: u64,
}

fn options(random: &mut Random, env: Env, background_threads: usize) -> Options {
    let styles = [CompactionStyle::LazyLeveling, CompactionStyle::Leveled, CompactionStyle::Tiered];
    let keyspace = KeyspaceOptions::new()
        .write_buffer_bytes(4 << 10)
        .target_table_bytes(2 << 10)
        .level_base_bytes(8 << 10)
        .block_bytes(256)
        .restart_interval(3)
        .size_ratio(2)
        .l0_runs(2)
        .compaction_style(*random.pick(&styles));
    Options::tiny()
        .default_keyspace(keyspace)
        .wal_segment_bytes(16 << 10)
        .wal_bytes_max(64 << 10)
        .wal_mapped(random.chance(50))
        .read_mode(*random.pick(&[ReadMode::Mmap, ReadMode::Pread]))
        .background_threads(background_threads)
        .env(env)
}

impl World {
    pub fn new(seed: u64) -> World {
        World { random: Random::new(seed), fs: Arc::new(MemFs::new()), db: None, time: 100 }
    }

    fn open(&mut self, turns: Turns) -> Db {
        let simulated = Env::simulated(self.fs.clone(), self.random.next());
        let (env, threads) = match turns {
            Turns::Stepped(_) => (simulated, 0),
            Turns::Threads(_) => {
                (Env { clock: Arc::new(OsClock::new()), spawner: Arc::new(OsSpawner), ..simulated }, 2)
            }
        };
        options(&mut self.random, env, threads).open(DIR).expect("open")
    }

    /// Lets one piece of history happen.
    pub fn run(&mut self, round: &Round) -> History {
        if let Some(db) = self.db.take() {
            db.close().expect("close");
        }
        let space = Space::new(self.open(round.turns), self.time);
        space.prepare().expect("prepare");
        let base = space.state().expect("read");
        let done = match round.turns {
            Turns::Stepped(width) => self.step(&space, round, width),
            Turns::Threads(count) => self.let_run(&space, round, count),
        };
        self.time = space.now();
        let Done { mut history, durable_seq, returned_seq } = done;
        history.base = base;
        history.end = Some(match round.crash {
            None => {
                let state = space.state().expect("read");
                self.db = Some(space.db);
                End { state, safe_seq: None }
            }
            Some(mode) => {
                let safe_seq = Some(if mode == CrashMode::ProcessKill { returned_seq } else { durable_seq });
                End { state: self.crash(space, mode, round.turns), safe_seq }
            }
        });
        history
    }

    /// What comes back after a crash. The disk is frozen already.
    fn crash(&mut self, space: Space, mode: CrashMode, turns: Turns) -> Vec<u64> {
        let next = Arc::new(self.fs.crash_clone(self.random.next(), mode));
        // What the old process still does happens on a disk that nobody looks at again.
        self.fs.freeze_at(1);
        drop(space);
        self.fs = next;
        let space = Space::new(self.open(turns), self.time);
        let state = space.state().expect("read after a recovery");
        self.db = Some(space.db);
        state
    }

    // Stepping.

    /// Every choice comes from the seed, so it happens again in the same way.
    fn step(&mut self, space: &Space, round: &Round, width: u64) -> Done {
        let mut client = Client::new(space, 0);
        client.no_wait = true;
        let mut open: Vec<(Open, Plan, usize)> = Vec::new();
        let mut freeze_after = round.crash.map(|_| self.random.below(round.transactions));
        while (client.history.transactions.len() as u64) < round.transactions {
            if freeze_after.is_some_and(|after| client.history.transactions.len() as u64 >= after) {
                self.fs.freeze_at(1 + self.random.below(40));
                freeze_after = None;
            }
            if self.take_turn(&mut client, &mut open, round, width) == Err(Stop::Over) {
                assert!(round.crash.is_some(), "the database stopped on a sound disk");
                break;
            }
            self.work_in_background(space, round.crash.is_some());
        }
        open.into_iter().for_each(|(open, _, _)| client.ended(open, Status::Aborted));
        Done::of([client])
    }

    fn take_turn(
        &mut self,
        client: &mut Client,
        open: &mut Vec<(Open, Plan, usize)>,
        round: &Round,
        width: u64,
    ) -> Result<(), Stop> {
        if (open.len() as u64) < width {
            let plan = Plan::draw(&mut self.random, &round.mix);
            if plan.plain {
                return client.run(&plan);
            }
            open.push((client.begin(&plan)?, plan, 0));
            return Ok(());
        }
        let chosen = self.random.below(width) as usize;
        let (transaction, plan, next) = &mut open[chosen];
        if let Some(action) = plan.actions.get(*next) {
            *next += 1;
            let result = transaction.step(client.space, *action);
            if result.is_err() {
                client.ended(open.swap_remove(chosen).0, Status::Aborted);
            }
            return result;
        }
        let (transaction, plan, _) = open.swap_remove(chosen);
        client.end(transaction, &plan)
    }

    fn work_in_background(&mut self, space: &Space, may_fail: bool) {
        let result = match self.random.below(2000) {
            0..100 => {
                space.db.run_background_job();
                Ok(())
            }
            100..103 => space.db.flush(),
            103 => space.db.compact(),
            _ => Ok(()),
        };
        assert!(result.is_ok() || may_fail, "{result:?}");
    }

    // Threads.

    fn let_run(&mut self, space: &Space, round: &Round, count: u32) -> Done {
        let progress = Progress::default();
        let seeds: Vec<u64> = (0..count).map(|_| self.random.next()).collect();
        let mut keeper = Random::new(self.random.next());
        let clients = thread::scope(|scope| {
            let workers: Vec<_> = seeds
                .into_iter()
                .enumerate()
                .map(|(process, seed)| {
                    let progress = &progress;
                    scope.spawn(move || {
                        let _stop_others = StopOthers(progress);
                        work(space, round, process as u32, seed, progress)
                    })
                })
                .collect();
            self.keep(space, round, &progress, &mut keeper);
            workers.into_iter().map(|worker| worker.join().expect("a client panicked")).collect::<Vec<_>>()
        });
        Done::of(clients)
    }

    /// What happens beside the clients: flushes, compactions, the crash.
    fn keep(&self, space: &Space, round: &Round, progress: &Progress, random: &mut Random) {
        let mut freeze_after = round.crash.map(|_| random.below(round.transactions));
        while !progress.is_over() {
            if freeze_after.is_some_and(|after| progress.count.load(Ordering::Relaxed) >= after) {
                self.fs.freeze_at(1 + random.below(40));
                freeze_after = None;
            }
            let result = match random.below(40) {
                0 => space.db.flush(),
                1 => space.db.compact(),
                _ => Ok(()),
            };
            assert!(result.is_ok() || round.crash.is_some(), "{result:?}");
            thread::sleep(Duration::from_micros(500));
        }
    }
}

/// How far the clients of a round are.
#[derive(Default)]
struct Progress {
    count: AtomicU64,
    over: AtomicBool,
}

impl Progress {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// When one client is at its end, or panics, nobody goes on.
struct StopOthers<'p>(&'p Progress);

impl Drop for StopOthers<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

fn work<'s>(space: &'s Space, round: &Round, process: u32, seed: u64, progress: &Progress) -> Client<'s> {
    let mut client = Client::new(space, process);
    let mut random = Random::new(seed);
    while !progress.is_over() {
        let plan = Plan::draw(&mut random, &round.mix);
        if client.run(&plan) == Err(Stop::Over) {
            assert!(round.crash.is_some(), "the database stopped on a sound disk");
            break;
        }
        if progress.count.fetch_add(1, Ordering::Relaxed) + 1 >= round.transactions {
            break;
        }
    }
    client
}

/// What the clients of a round leave.
struct Done {
    history: History,
    durable_seq: u64,
    returned_seq: u64,
}

impl Done {
    fn of<'s>(clients: impl IntoIterator<Item = Client<'s>>) -> Done {
        let mut done = Done { history: History::default(), durable_seq: 0, returned_seq: 0 };
        for client in clients {
            done.history.absorb(client.history);
            done.durable_seq = done.durable_seq.max(client.durable_seq);
            done.returned_seq = done.returned_seq.max(client.returned_seq);
        }
        done
    }
}
