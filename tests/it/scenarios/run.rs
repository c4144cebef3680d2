//! Runs a scenario on a database: by the table, exactly; or by the model, with transactions that are rolled back on the
//! way, and with crashes.

use super::actor::Actor;
use super::model::Model;
use super::parse::{Action, LEVELS, Op, PLAIN, Scenario, State, Step, Who, braces, name};
use super::serial::History;
use super::world::{Noise, World, names};
use esker::env::CrashMode;
use std::collections::{BTreeMap, BTreeSet};
use std::thread::Scope;
use std::time::{Duration, Instant};

/// How long a thread may take for what does not wait, before the run is given up as stuck. Nothing is measured.
const STUCK: Duration = Duration::from_secs(60);

/// What is varied.
#[derive(Debug, Clone, Copy)]
pub struct Variant {
    pub noise: Noise,
    /// The step after which there is noise; all if none is named.
    pub noise_at: Option<usize>,
    /// Transactions begin in the opposite order.
    pub reversed: bool,
    /// Which of the steps that may be swapped are, as bits.
    pub swapped: u32,
}

pub const PLAIN_RUN: Variant = Variant { noise: Noise::None, noise_at: None, reversed: false, swapped: 0 };

/// What else happens in a run by the model.
#[derive(Debug, Clone, Copy)]
pub struct Injected {
    /// After this step, this one is rolled back.
    pub abort: Option<(usize, Who)>,
    /// After each step there is a look at what a crash would leave.
    pub crash: Option<CrashMode>,
}

impl Scenario {
    /// Steps that may be swapped with the one before.
    pub fn swaps(&self) -> u32 {
        self.steps.iter().filter(|step| step.swaps).count() as u32
    }

    /// The steps in the order of a variant.
    fn order(&self, variant: &Variant) -> Vec<Step> {
        let mut steps = self.steps.clone();
        let is_begin = |step: &Step| matches!(step.action, Action::Do(_, Op::Begin(_)));
        let silent = steps.iter().take_while(|step| is_begin(step)).count();
        if variant.reversed {
            steps[..silent].reverse();
        }
        let marks: Vec<usize> = (0..steps.len()).filter(|at| steps[*at].swaps).collect();
        for (bit, at) in marks.into_iter().enumerate() {
            if variant.swapped & (1 << bit) != 0 {
                steps.swap(at - 1, at);
            }
        }
        steps
    }

    fn actors(&self) -> BTreeSet<Who> {
        self.steps.iter().filter_map(|step| step.action.who()).collect()
    }
}

/// Runs it and holds everything against the table.
pub fn by_table(scenario: &Scenario, level: usize, variant: &Variant) -> Result<(), String> {
    staged(scenario, level, &format!("{variant:?}"), |stage| {
        let steps = scenario.order(variant);
        let one_of = scenario.one_of.iter().filter(|(at, _)| *at == level).map(|(_, who)| who.clone()).next();
        let may_fail = one_of.clone().unwrap_or_default();
        let mut failed: BTreeSet<Who> = BTreeSet::new();
        for (at, step) in steps.iter().enumerate() {
            stage.trace(&step.text);
            match &step.action {
                Action::Clock(time) => stage.world.env.clock.sleep(*time),
                Action::Resumes(who) => {
                    let answer = stage.resumed(*who)?;
                    same(&step.expect[level], &answer)?;
                }
                Action::Do(who, op) if step.expect[level] == "waits" => stage.waits(*who, op)?,
                Action::Do(who, op) => {
                    let answer = stage.answer(*who, op)?;
                    if answer == "unserializable" && may_fail.contains(who) && !failed.contains(who) {
                        failed.insert(*who);
                    } else if failed.contains(who) {
                        same(if *op == Op::Rollback { "ok" } else { "failed" }, &answer)?;
                    } else {
                        same(&step.expect[level], &answer)?;
                    }
                }
            }
            let is_releasing = matches!(steps.get(at + 1), Some(Step { action: Action::Resumes(_), .. }));
            if !is_releasing {
                stage.check_waiting()?;
            }
            if variant.noise_at.is_none_or(|noisy| noisy == at) {
                stage.world.make(variant.noise).map_err(|error| error.to_string())?;
            }
        }
        if one_of.is_some() && failed.len() != 1 {
            return Err(format!("exactly one of {may_fail:?} is to fail, not {failed:?}"));
        }
        let end = stage.world.state();
        let finals = &scenario.finals[level];
        if !finals.contains(&final_text(&end)) {
            return Err(format!("in the end {finals:?} is to be there, not {end:?}"));
        }
        stage.world.check_quiet()
    })
}

/// As the table writes it.
fn final_text(state: &State) -> String {
    let entries: Vec<(&String, i64)> = state.iter().map(|(key, value)| (key, *value)).collect();
    let text = braces(&entries);
    text.trim_matches(['{', '}']).to_string()
}

fn same(expect: &str, found: &str) -> Result<(), String> {
    if expect == found { Ok(()) } else { Err(format!("expected {expect:?}, found {found:?}")) }
}

/// Runs it and holds everything against the model; answers how many crashes were looked at.
pub fn by_model(
    scenario: &Scenario,
    level: usize,
    variant: &Variant,
    injected: &Injected,
) -> Result<u64, String> {
    let mut crashes = 0;
    staged(scenario, level, &format!("{variant:?} {injected:?}"), |stage| {
        let mut run = ModelRun {
            model: Model::new(&scenario.start, level),
            history: History::default(),
            asked: BTreeMap::new(),
            unserializable: false,
            level,
        };
        for (at, step) in scenario.order(variant).iter().enumerate() {
            match &step.action {
                Action::Clock(time) => {
                    stage.trace(&step.text);
                    stage.world.env.clock.sleep(*time);
                    let events = run.model.advance(*time);
                    run.settle(stage, events)?;
                }
                Action::Do(who, op) if run.is_ready(*who, op) => {
                    stage.trace(&step.text);
                    run.step(stage, *who, op)?;
                }
                _ => {}
            }
            if let Some((when, who)) = injected.abort
                && when == at
                && run.is_ready(who, &Op::Rollback)
            {
                stage.trace(&format!("{} rollback (injected)", name(who)));
                run.step(stage, who, &Op::Rollback)?;
            }
            if variant.noise_at.is_none_or(|noisy| noisy == at) {
                stage.world.make(variant.noise).map_err(|error| error.to_string())?;
            }
            if let Some(mode) = injected.crash {
                let shown = stage.world.after_crash(mode, at as u64)?;
                same_state("after a crash", &run.model.committed(), &shown)?;
                crashes += 1;
            }
        }
        run.finish(stage)?;
        let end = stage.world.state();
        same_state("in the end", &run.model.committed(), &end)?;
        if level == 3 && scenario.actors().len() <= 6 {
            run.history.check(&scenario.start, &end)?;
        }
        if run.unserializable && scenario.one_of.is_empty() {
            return Err("somebody failed as unserializable without need".to_string());
        }
        stage.world.check_quiet()
    })?;
    Ok(crashes)
}

fn same_state(when: &str, expect: &State, found: &State) -> Result<(), String> {
    if expect == found { Ok(()) } else { Err(format!("{when} {expect:?} is to be there, not {found:?}")) }
}

/// A model beside a database.
struct ModelRun {
    model: Model,
    history: History,
    /// What those do who wait.
    asked: BTreeMap<Who, Op>,
    unserializable: bool,
    level: usize,
}

impl ModelRun {
    fn is_ready(&self, who: Who, op: &Op) -> bool {
        let is_begin = matches!(op, Op::Begin(_));
        (who == PLAIN || is_begin || self.model.is_open(who)) && !self.model.is_waiting(who)
    }

    fn step(&mut self, stage: &mut Stage<'_>, who: Who, op: &Op) -> Result<(), String> {
        let before = self.model.clone();
        let mut events = self.model.step(who, op);
        self.asked.insert(who, op.clone());
        if self.model.is_waiting(who) {
            stage.waits(who, op)?;
        } else {
            let own = events.iter().position(|(one, _)| *one == who).ok_or("the model gives no answer")?;
            let (_, expect) = events.remove(own);
            let answer = stage.answer(who, op)?;
            if self.level == 3 && answer == "unserializable" {
                // It is as if the step had never been, and the transaction gone.
                self.unserializable = true;
                self.model = before;
                events = self.model.fail(who, *op == Op::Commit);
                self.history.note(who, op, &answer);
            } else {
                self.judge(who, &expect, &answer)?;
            }
        }
        self.settle(stage, events)
    }

    /// Those that go on because of a step.
    fn settle(&mut self, stage: &mut Stage<'_>, events: Vec<(Who, String)>) -> Result<(), String> {
        for (who, expect) in events {
            let answer = stage.resumed(who)?;
            self.judge(who, &expect, &answer)?;
        }
        stage.check_waiting()
    }

    fn judge(&mut self, who: Who, expect: &str, answer: &str) -> Result<(), String> {
        let op = self.asked.get(&who).ok_or("nothing was asked")?;
        self.history.note(who, op, answer);
        if answer == expect {
            return Ok(());
        }
        Err(format!("{}: {op:?}: the model says {expect:?}, the database {answer:?}", name(who)))
    }

    /// Ends what is still open.
    fn finish(&mut self, stage: &mut Stage<'_>) -> Result<(), String> {
        while let Some(who) = self.model.open().into_iter().find(|who| !self.model.is_waiting(*who)) {
            self.step(stage, who, &Op::Rollback)?;
        }
        match self.model.waiting().as_slice() {
            [] => Ok(()),
            stuck => Err(format!("{stuck:?} wait for each other")),
        }
    }
}

/// The database, the threads, and who is to wait.
struct Stage<'a> {
    world: &'a World,
    actors: BTreeMap<Who, Actor>,
    waiting: BTreeSet<Who>,
    done: Vec<String>,
}

/// Sets a stage and runs `play` on it. When that fails the threads are let go.
fn staged(
    scenario: &Scenario,
    level: usize,
    what: &str,
    play: impl FnOnce(&mut Stage<'_>) -> Result<(), String>,
) -> Result<(), String> {
    let world = World::new(&scenario.start);
    std::thread::scope(|scope| {
        let mut stage = Stage::new(scope, &world, scenario, level);
        let result = play(&mut stage);
        let steps = stage.done.join("; ");
        stage.actors.clear();
        if result.is_err() {
            // Whoever waits has waited long enough.
            world.env.clock.sleep(Duration::from_secs(1000 * 24 * 3600));
        }
        let level = LEVELS[level];
        result.map_err(|problem| format!("{} at {level}, {what}\n  {steps}\n  {problem}", scenario.id))
    })
}

impl<'a> Stage<'a> {
    fn new<'s>(scope: &'s Scope<'s, '_>, world: &'a World, scenario: &Scenario, level: usize) -> Stage<'a> {
        let start = |who| (who, Actor::start(scope, &world.db, who, LEVELS[level]));
        let actors = scenario.actors().into_iter().map(start).collect();
        Stage { world, actors, waiting: BTreeSet::new(), done: Vec::new() }
    }

    fn trace(&mut self, step: &str) {
        self.done.push(step.to_string());
    }

    fn ask(&self, who: Who, op: &Op) -> Result<(), String> {
        self.actors[&who].tasks.send(op.clone()).map_err(|_| format!("{} is gone", name(who)))
    }

    fn receive(&self, who: Who) -> Result<String, String> {
        let answer = self.actors[&who].answers.recv_timeout(STUCK);
        answer.map_err(|_| format!("{} is stuck:\n{}", name(who), self.world.db.wait_graph()))
    }

    /// Does a step that is not to wait.
    fn answer(&mut self, who: Who, op: &Op) -> Result<String, String> {
        self.ask(who, op)?;
        self.receive(who)
    }

    /// Does a step that is to wait.
    fn waits(&mut self, who: Who, op: &Op) -> Result<(), String> {
        self.ask(who, op)?;
        self.waiting.insert(who);
        let begun = Instant::now();
        while !self.world.waiting().contains(&name(who)) {
            if let Ok(answer) = self.actors[&who].answers.try_recv() {
                return Err(format!("{} is to wait and answered {answer:?}", name(who)));
            }
            if begun.elapsed() > STUCK {
                return Err(format!("{} neither waits nor answers", name(who)));
            }
            std::thread::yield_now();
        }
        Ok(())
    }

    /// The answer of one that has waited.
    fn resumed(&mut self, who: Who) -> Result<String, String> {
        if !self.waiting.remove(&who) {
            return Err(format!("{} did not wait", name(who)));
        }
        self.receive(who)
    }

    /// Those that are to wait do, and nobody else.
    fn check_waiting(&self) -> Result<(), String> {
        let expect = names(&self.waiting);
        let listed: BTreeSet<String> = expect.iter().filter(|name| *name != "P").cloned().collect();
        let begun = Instant::now();
        // Between two locks one waits for neither.
        while (self.world.waiting(), self.world.listed_as_waiting()) != (expect.clone(), listed.clone()) {
            if begun.elapsed() > STUCK {
                let graph = self.world.db.wait_graph();
                return Err(format!("{expect:?} are to wait, and it is so:\n{graph}"));
            }
            std::thread::yield_now();
        }
        let answered = self.waiting.iter().find(|who| self.actors[who].answers.try_recv().is_ok());
        answered.map_or(Ok(()), |who| Err(format!("{} has answered", name(*who))))
    }
}
