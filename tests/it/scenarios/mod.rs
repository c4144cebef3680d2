//! The isolation levels, scenario by scenario. What must happen stands in `table.txt`; here it is made to happen: with
//! noise after every step, in all orders that the table allows, with a transaction rolled back after every step, and with
//! a crash after every step.

mod actor;
mod model;
mod parse;
mod run;
mod serial;
mod world;

use esker::env::CrashMode;
use parse::{Action, PLAIN, Scenario, scenarios};
use run::{Injected, PLAIN_RUN, Variant, by_model, by_table};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use world::Noise;

/// A scenario with more steps than this has noise after every step only, not after each alone.
const LONG_STEPS: usize = 40;

const NOTHING: Injected = Injected { abort: None, crash: None };

/// One run, which answers how many crashes it looked at.
type Job<'a> = Box<dyn Fn() -> Result<u64, String> + Send + Sync + 'a>;

/// Does all jobs on a few threads, and complains about the first ones that fail.
fn run_all(what: &str, jobs: &[Job<'_>]) {
    let (next, crashes) = (AtomicUsize::new(0), AtomicU64::new(0));
    let problems = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match job() {
                        Ok(count) => {
                            crashes.fetch_add(count, Ordering::Relaxed);
                        }
                        Err(problem) => problems.lock().unwrap().push(problem),
                    }
                    if problems.lock().unwrap().len() >= 20 {
                        return;
                    }
                }
            });
        }
    });
    let problems = problems.into_inner().unwrap();
    println!("{what}: {} runs, {} crashes, {} problems", jobs.len(), crashes.into_inner(), problems.len());
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

/// Each scenario at each of its levels.
fn cases(all: &[Scenario]) -> impl Iterator<Item = (&Scenario, usize)> {
    all.iter().flat_map(|scenario| scenario.levels.iter().map(move |level| (scenario, *level)))
}

/// The orders that the table allows, with noise after every step.
fn orders(scenario: &Scenario, noise: Noise) -> impl Iterator<Item = Variant> {
    let begins = if scenario.ordered { vec![false] } else { vec![false, true] };
    let swaps = 1u32 << scenario.swaps();
    begins.into_iter().flat_map(move |reversed| {
        (0..swaps).map(move |swapped| Variant { noise, noise_at: None, reversed, swapped })
    })
}

#[test]
fn the_table_is_complete() {
    let all = scenarios();
    let of_the_design = "G0 G1a G1b G1c OTV PMP-r PMP-w P4 P4-lock G-single G-single-p G-single-w1 G-single-w2 G2-item \
                         G2 G2-2e LF ABS RYOW RC-iter SP RT CTRL RO RO-pivot DL2 DL3 DL-range DL-upg DL-none W-timeout";
    for id in of_the_design.split_whitespace() {
        assert!(all.iter().any(|scenario| scenario.id == id), "{id}");
    }
    for scenario in &all {
        for level in &scenario.levels {
            let is_open = scenario.finals[*level].iter().all(|text| !text.is_empty());
            assert!(is_open && !scenario.finals[*level].is_empty(), "{} has no end", scenario.id);
        }
    }
    println!("{} scenarios, {} columns", all.len(), cases(&all).count());
}

#[test]
fn the_table_holds_in_every_order_and_through_all_noise() {
    let all = scenarios();
    let mut jobs: Vec<Job<'_>> = Vec::new();
    for (scenario, level) in cases(&all) {
        for variant in Noise::ALL.into_iter().flat_map(|noise| orders(scenario, noise)) {
            jobs.push(Box::new(move || by_table(scenario, level, &variant).map(|()| 0)));
        }
    }
    run_all("table, orders and noise", &jobs);
}

#[test]
fn the_table_holds_with_noise_after_any_one_step() {
    let all = scenarios();
    let mut jobs: Vec<Job<'_>> = Vec::new();
    for (scenario, level) in cases(&all).filter(|(scenario, _)| scenario.steps.len() <= LONG_STEPS) {
        for at in 0..scenario.steps.len() {
            for noise in Noise::ALL.into_iter().filter(|noise| *noise != Noise::None) {
                let variant = Variant { noise, noise_at: Some(at), ..PLAIN_RUN };
                jobs.push(Box::new(move || by_table(scenario, level, &variant).map(|()| 0)));
            }
        }
    }
    run_all("table, noise after one step", &jobs);
}

#[test]
fn the_model_agrees_in_every_order() {
    let all = scenarios();
    let mut jobs: Vec<Job<'_>> = Vec::new();
    for (scenario, level) in cases(&all) {
        for reversed in [false, true] {
            for variant in orders(scenario, Noise::None).map(|variant| Variant { reversed, ..variant }) {
                jobs.push(Box::new(move || by_model(scenario, level, &variant, &NOTHING)));
            }
        }
    }
    run_all("model", &jobs);
}

#[test]
fn the_model_agrees_when_one_is_rolled_back_after_any_step() {
    let all = scenarios();
    let mut jobs: Vec<Job<'_>> = Vec::new();
    for (scenario, level) in cases(&all).filter(|(scenario, _)| scenario.steps.len() <= LONG_STEPS) {
        for at in 0..scenario.steps.len() {
            for who in actors(scenario) {
                // Each kind of noise gets its share.
                let noise = Noise::ALL[jobs.len() % Noise::ALL.len()];
                let reversed = jobs.len() % 2 == 1;
                let variant = Variant { noise, noise_at: None, reversed, swapped: 0 };
                let injected = Injected { abort: Some((at, who)), crash: None };
                jobs.push(Box::new(move || by_model(scenario, level, &variant, &injected)));
            }
        }
    }
    run_all("model, one rolled back", &jobs);
}

fn actors(scenario: &Scenario) -> Vec<usize> {
    let mut all: Vec<usize> =
        scenario.steps.iter().filter_map(|step| step.action.who()).filter(|who| *who != PLAIN).collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[test]
fn after_a_crash_at_any_step_only_what_committed_is_there() {
    let all = scenarios();
    let mut jobs: Vec<Job<'_>> = Vec::new();
    for (scenario, level) in cases(&all).filter(|(scenario, _)| scenario.steps.len() <= LONG_STEPS) {
        for mode in CrashMode::ALL {
            for noise in [Noise::None, Noise::Flush, Noise::Rotate] {
                let variant = Variant { noise, ..PLAIN_RUN };
                let injected = Injected { abort: None, crash: Some(mode) };
                jobs.push(Box::new(move || by_model(scenario, level, &variant, &injected)));
            }
        }
    }
    run_all("crash after every step", &jobs);
}

/// The levels differ: for each weaker one there are scenarios in which it shows what the next one does not.
#[test]
fn weaker_levels_show_what_stronger_ones_do_not() {
    let all = scenarios();
    for (weaker, stronger) in [(0, 1), (1, 2), (2, 3)] {
        let differ = |scenario: &&Scenario| {
            let has_both = scenario.levels.contains(&weaker) && scenario.levels.contains(&stronger);
            let answers = scenario.steps.iter().any(|step| {
                matches!(step.action, Action::Do(..) | Action::Resumes(_))
                    && step.expect[weaker] != step.expect[stronger]
            });
            has_both && (answers || scenario.finals[weaker] != scenario.finals[stronger])
        };
        let count = all.iter().filter(differ).count();
        println!("{} differs from {} in {count} scenarios", parse::LEVELS[weaker], parse::LEVELS[stronger]);
        assert!(count >= 5);
    }
}
