//! The queue and grant logic without the table: on plain stripes, and with a model checker's mutexes around them, which
//! tries interleavings at every lock that is taken (shuttle: random and probabilistic concurrency testing, Burckhardt
//! et al. 2010).

use super::*;
use crate::mvcc::locks::owner::{ALL_STRIPES, Held, Outcome};
use crate::mvcc::locks::queue::{Attempt, Request, Stripe, Wanted};
use crate::mvcc::locks::range;
use crate::mvcc::locks::span::{Span, SpanRef};
use crate::mvcc::locks::stripes::{self, Released, Stripes};
use std::cell::{RefCell, RefMut};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Few stripes, so that keys meet in them and ranges span some.
pub(super) const KERNEL_STRIPES: u32 = 2;

pub(super) fn kernel_stripe(key: &[u8]) -> u32 {
    u32::from(key[0]) % KERNEL_STRIPES
}

/// `x a`, `s b`, `x a..c`.
pub(super) fn parse(what: &str) -> (Mode, Span) {
    let (mode, span) = what.split_once(' ').unwrap();
    let mode = if mode == "x" { Mode::Exclusive } else { Mode::Shared };
    let span = match span.split_once("..") {
        None => SpanRef::Key(span.as_bytes()),
        Some((start, end)) => {
            SpanRef::Range { start: start.as_bytes(), end: (!end.is_empty()).then_some(end.as_bytes()) }
        }
    };
    (mode, span.to_owned())
}

/// What a table does with its stripes, but for memory, time and sleeping.
pub(super) struct Kernel<S> {
    pub(super) stripes: S,
    arrivals: AtomicU64,
}

impl<S: Stripes> Kernel<S> {
    pub(super) fn new(stripes: S) -> Kernel<S> {
        Kernel { stripes, arrivals: AtomicU64::new(0) }
    }

    /// As if so many requests had come and gone.
    pub(super) fn skip_arrivals(&self, count: u64) {
        self.arrivals.fetch_add(count, Ordering::Relaxed);
    }

    /// The request, if it has to wait.
    pub(super) fn request(&self, owner: &Arc<Owner>, what: &str) -> Option<Arc<Request>> {
        let (mode, span) = parse(what);
        let wanted = Wanted { owner, keyspace: KS, span: span.as_ref(), mode };
        let request = |stripe| {
            let arrival = self.arrivals.fetch_add(1, Ordering::Relaxed);
            Arc::new(Request::new(arrival, owner, &wanted, stripe, Duration::ZERO))
        };
        let held = |stripe| Held { stripe, keyspace: KS, span: span.clone() };
        let Span::Key(key) = &span else {
            let mut all = self.stripes.all();
            let blocked = match range::attempt(&all, &wanted) {
                Attempt::Held => return None,
                Attempt::Free { .. } => None,
                Attempt::Blocked => Some(request(ALL_STRIPES)),
            };
            let waits = blocked.filter(|request| range::is_blocked(&all, &wanted, request.ticket));
            if let Some(request) = &waits {
                owner.begin_wait(request).unwrap();
                range::enqueue(&mut all, request);
            } else {
                owner.hold(held(ALL_STRIPES)).unwrap();
                range::insert(&mut all, owner, KS, span.clone(), mode);
            }
            return waits;
        };
        let index = kernel_stripe(key);
        let mut stripe = self.stripes.one(index);
        let blocked = match stripe.attempt(&wanted, key) {
            Attempt::Held => return None,
            Attempt::Free { .. } => None,
            Attempt::Blocked => Some(request(index)),
        };
        let waits = blocked.filter(|request| stripe.is_blocked(&wanted, request.ticket));
        if let Some(request) = &waits {
            owner.begin_wait(request).unwrap();
            stripe.enqueue(Arc::clone(request));
        } else if stripe.mode_of(owner.id(), KS, key).is_some() {
            stripe.upgrade(owner, KS, key, mode);
        } else {
            owner.hold(held(index)).unwrap();
            stripe.insert(owner, KS, key, mode);
        }
        waits
    }

    pub(super) fn release(&self, owner: &Owner) -> Released {
        stripes::release(&self.stripes, owner)
    }

    pub(super) fn cancel(&self, request: &Request) -> Released {
        stripes::cancel(&self.stripes, request)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.stripes.all().iter().all(|stripe| stripe.is_empty())
    }
}

/// Stripes of one thread.
pub(super) struct Plain(Vec<RefCell<Stripe>>);

impl Plain {
    pub(super) fn new() -> Plain {
        Plain((0..KERNEL_STRIPES).map(|_| RefCell::new(Stripe::default())).collect())
    }
}

impl Stripes for Plain {
    type Guard<'a> = RefMut<'a, Stripe>;

    fn one(&self, index: u32) -> RefMut<'_, Stripe> {
        self.0[index as usize].borrow_mut()
    }

    fn all(&self) -> Vec<RefMut<'_, Stripe>> {
        self.0.iter().map(RefCell::borrow_mut).collect()
    }
}

/// Stripes whose mutexes are the model checker's.
struct Checked(Vec<shuttle::sync::Mutex<Stripe>>);

impl Stripes for Checked {
    type Guard<'a> = shuttle::sync::MutexGuard<'a, Stripe>;

    fn one(&self, index: u32) -> shuttle::sync::MutexGuard<'_, Stripe> {
        self.0[index as usize].lock().unwrap()
    }

    fn all(&self) -> Vec<shuttle::sync::MutexGuard<'_, Stripe>> {
        self.0.iter().map(|stripe| stripe.lock().unwrap()).collect()
    }
}

/// A place to sleep under the model checker.
#[derive(Default)]
struct Bed {
    turn: shuttle::sync::Mutex<()>,
    changed: shuttle::sync::Condvar,
}

/// A table under the model checker. A wake-up that is lost leaves a thread asleep, and that the checker reports.
struct Model {
    kernel: Kernel<Checked>,
    detector: shuttle::sync::Mutex<()>,
    beds: HashMap<TxnId, Bed>,
    /// Who has what, as the owners believe.
    believed: std::sync::Mutex<Vec<(TxnId, Span, Mode)>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Granted,
    GaveUp,
    Victim,
}

impl Model {
    fn new(owners: u64) -> Arc<Model> {
        let stripes = (0..KERNEL_STRIPES).map(|_| shuttle::sync::Mutex::new(Stripe::default()));
        Arc::new(Model {
            kernel: Kernel::new(Checked(stripes.collect())),
            detector: shuttle::sync::Mutex::new(()),
            beds: (0..owners).map(|id| (id, Bed::default())).collect(),
            believed: std::sync::Mutex::default(),
        })
    }

    fn wake(&self, owner: &Owner) {
        let bed = &self.beds[&owner.id()];
        let _turn = bed.turn.lock().unwrap();
        bed.changed.notify_all();
    }

    fn wake_all(&self, released: Released) {
        released.woken.iter().for_each(|owner| self.wake(owner));
    }

    fn take(&self, owner: &Arc<Owner>, what: &str, may_give_up: bool) -> Answer {
        let answer = match self.kernel.request(owner, what) {
            None => Answer::Granted,
            Some(request) => self.wait(&request, may_give_up),
        };
        if answer == Answer::Granted {
            self.believe(owner.id(), what);
        }
        answer
    }

    fn wait(&self, request: &Request, may_give_up: bool) -> Answer {
        let owner = &request.owner;
        self.break_deadlocks(owner);
        let outcome = if may_give_up && shuttle::rand::Rng::gen_bool(&mut shuttle::rand::thread_rng(), 0.5) {
            owner.give_up()
        } else {
            let bed = &self.beds[&owner.id()];
            let mut turn = bed.turn.lock().unwrap();
            loop {
                match owner.outcome() {
                    Outcome::Waiting => turn = bed.changed.wait(turn).unwrap(),
                    ended => break ended,
                }
            }
        };
        let answer = match outcome {
            Outcome::Granted { .. } => return Answer::Granted,
            Outcome::Doomed(_) => Answer::Victim,
            Outcome::Waiting => Answer::GaveUp,
            Outcome::Ended { .. } => panic!("nobody ended it"),
        };
        self.wake_all(self.kernel.cancel(request));
        answer
    }

    fn break_deadlocks(&self, owner: &Arc<Owner>) {
        let _turn = self.detector.lock().unwrap();
        while let Some(cycle) = stripes::find_cycle(&self.kernel.stripes, owner, &mut 0) {
            let victim = cycle.iter().max_by_key(|link| link.owner().id()).unwrap();
            let report = Arc::new(crate::base::deadlock::DeadlockReport::new(
                Vec::new(),
                victim.owner().id(),
                String::new(),
                0,
            ));
            if victim.request.owner.doom(victim.request.ticket, &report) {
                self.wake(victim.owner());
            }
        }
    }

    fn believe(&self, id: TxnId, what: &str) {
        let (mode, span) = parse(what);
        let mut believed = self.believed.lock().unwrap();
        for (other, other_span, other_mode) in believed.iter() {
            let conflicts =
                *other != id && mode.conflicts(*other_mode) && span.as_ref().overlaps(other_span.as_ref());
            assert!(!conflicts, "{id} got {what}, {other} has {other_span:?}");
        }
        believed.push((id, span, mode));
    }

    fn end(&self, owner: &Owner) {
        self.believed.lock().unwrap().retain(|(id, _, _)| *id != owner.id());
        self.wake_all(self.kernel.release(owner));
    }
}

/// Runs each script on a thread of its own, in many interleavings; the check gets the last answer of each.
fn explore(scripts: &'static [&'static [&'static str]], may_give_up: bool, check: fn(&[Answer])) {
    let run = move || {
        let model = Model::new(scripts.len() as u64);
        let one_thread = |(id, script): (usize, &'static &'static [&'static str])| {
            let model = Arc::clone(&model);
            shuttle::thread::spawn(move || {
                let owner = Arc::new(Owner::new(info(id as u64)));
                let mut answers = script.iter().map(|what| model.take(&owner, what, may_give_up));
                let answer = answers.find(|answer| *answer != Answer::Granted);
                model.end(&owner);
                answer.unwrap_or(Answer::Granted)
            })
        };
        let threads: Vec<_> = scripts.iter().enumerate().map(one_thread).collect();
        let answers: Vec<Answer> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(model.kernel.is_empty());
        check(&answers);
    };
    shuttle::check_random(run, 300);
    shuttle::check_pct(run, 300, 3);
}

fn count(answers: &[Answer], what: Answer) -> usize {
    answers.iter().filter(|answer| **answer == what).count()
}

/// Keys in one order: no cycles, so everybody gets everything.
#[test]
fn in_order_everybody_gets_everything_in_every_interleaving() {
    let all_granted = |answers: &[Answer]| {
        assert_eq!(count(answers, Answer::Granted), answers.len(), "{answers:?}");
    };
    for scripts in [
        &[&["x a", "s b"] as &[&str], &["s a", "x b"], &["s a", "s b"]] as &[&[&str]],
        &[&["x a..c", "x c"], &["s a", "x c"], &["s b", "x b"]],
        &[&["s a..c"], &["x a", "x b"], &["s a..b"], &["x b"]],
        &[&["s a", "x a"], &["x a"], &["x a..c"]],
    ] {
        explore(scripts, false, all_granted);
    }
}

/// A cycle has one victim, and only if it arises.
#[test]
fn a_cycle_costs_at_most_one_victim_in_every_interleaving() {
    let one_victim = |answers: &[Answer]| {
        assert!(count(answers, Answer::Victim) <= 1, "{answers:?}");
        assert_eq!(count(answers, Answer::GaveUp), 0, "{answers:?}");
    };
    for scripts in [
        &[&["x a", "x b"] as &[&str], &["x b", "x a"]] as &[&[&str]],
        &[&["s a", "x a"], &["s a", "x a"]],
        &[&["x a", "x b"], &["x b", "x c"], &["x c", "x a"]],
        &[&["x a..b", "x c"], &["x c", "s a"]],
        &[&["x a", "x a..d"], &["x c", "s a..b"]],
    ] {
        explore(scripts, false, one_victim);
    }
    // Each pair may be a cycle of its own; one always gets through.
    let some_granted = |answers: &[Answer]| {
        assert!(count(answers, Answer::Granted) >= 1, "{answers:?}");
    };
    explore(&[&["s a", "x b"], &["s b", "x a..c"], &["x c", "s a", "x b"]], false, some_granted);
}

/// Giving up at any moment loses nobody else's wake-up.
#[test]
fn giving_up_loses_no_wake_up_in_any_interleaving() {
    for scripts in [
        &[&["x a"] as &[&str], &["x a"], &["s a"], &["s a"]] as &[&[&str]],
        &[&["x a", "x b"], &["x a..c"], &["x b"]],
        &[&["s a..c"], &["x a", "s b"], &["x a..b"]],
    ] {
        explore(scripts, true, |_| {});
    }
}
