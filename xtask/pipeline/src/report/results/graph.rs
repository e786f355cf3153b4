//! A run's stages as a graph.

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;
use t5_model::method::MethodSettings;

use super::ReadRun;
use super::layout::{Place, places};
use super::training::arm;
use crate::report::StageReport;
use crate::run::{LeftOut, StageLock, journal};
use crate::stage::pretrain::Measured;
use crate::stage::{Input, Kind, fuse, pretrain};

/// A stage.
#[derive(Clone, Debug, Serialize)]
pub struct Node {
    /// The stage's name in the run.
    pub name: String,
    /// The name of its [`Kind`].
    pub kind: String,
    /// Whether its model is a fusion, or has grown from one model.
    pub fused: bool,
    /// How far it has got.
    pub state: State,
    /// Where it is in the picture.
    pub place: Place,
    /// The stages that it takes something from.
    pub links: Vec<Link>,
    /// Inputs that are no stages: paths and names of models.
    pub outside: Vec<String>,
    /// Parameters of its model.
    pub parameters: Option<u64>,
    /// Optimiser steps that its model was trained for here.
    pub steps: Option<u64>,
    /// Input and target tokens that it was trained on here.
    pub tokens: Option<u64>,
    /// Floating-point operations of that.
    pub flops: Option<f64>,
    /// Wall-clock time of all processes that worked on it.
    pub seconds: Option<f64>,
    /// On held-out text at the end, or as far as it has got.
    pub loss: Option<f64>,
    /// As a share.
    pub accuracy: Option<f64>,
    /// In nats.
    pub context_gain: Option<f64>,
}

/// An edge of the graph.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Link {
    /// The index of the stage that gives something.
    pub from: usize,
    /// How often it is taken: twice in a self fusion.
    pub times: usize,
    /// Whether it gives a model; else a tokenizer.
    pub model: bool,
}

/// How far a stage has got.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum State {
    /// Its result is there.
    Finished,
    /// A process is at work on it.
    Running {
        /// How far it is, where that is known.
        progress: Option<Progress>,
    },
    /// It was begun, and can be resumed.
    Interrupted {
        /// How far it got, where that is known.
        progress: Option<Progress>,
    },
    /// It was begun and failed.
    Failed {
        /// Why.
        error: String,
    },
    /// It has not begun.
    Waiting,
    /// The latest run leaves it out.
    LeftOut {
        /// Because GLUE's files were not given; otherwise only other stages were asked for.
        without_glue: bool,
    },
}

/// How far a training has got.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Progress {
    /// The last step that was logged.
    pub step: u64,
    /// All there will be.
    pub of: u64,
}

impl State {
    /// Whether the result is there.
    pub fn is_finished(&self) -> bool {
        *self == State::Finished
    }

    /// In a word or two.
    pub fn words(&self) -> &'static str {
        match self {
            State::Finished => "finished",
            State::Running { .. } => "running",
            State::Interrupted { .. } => "not finished",
            State::Failed { .. } => "failed",
            State::Waiting => "not begun",
            State::LeftOut { without_glue: true } => "left out (no GLUE)",
            State::LeftOut { without_glue: false } => "left out",
        }
    }
}

/// How far a stage has got.
pub(super) fn state(run: &ReadRun, stage: &StageReport) -> Result<State> {
    if stage.finished {
        return Ok(State::Finished);
    }
    if stage.unfinished {
        let progress = progress(run, stage)?;
        if run.report.file.is_some() && StageLock::is_taken(&run.place, &stage.entry.name) {
            return Ok(State::Running { progress });
        }
        let sessions = journal::sessions(&run.directory(stage))?;
        return Ok(match sessions.into_iter().next_back().and_then(|session| session.error) {
            Some(error) => State::Failed { error },
            None => State::Interrupted { progress },
        });
    }
    Ok(match stage.entry.left_out {
        Some(why) => State::LeftOut { without_glue: why == LeftOut::WithoutGlue },
        None => State::Waiting,
    })
}

fn progress(run: &ReadRun, stage: &StageReport) -> Result<Option<Progress>> {
    let directory = run.directory(stage);
    let steps = stage.settings.as_ref().and_then(|settings| settings.get("steps")?.as_u64());
    let (Some(of), true) = (steps, directory.join("metrics.jsonl").is_file()) else { return Ok(None) };
    let Measured { evaluations, logged } = Measured::read(&directory)?;
    let logged = logged.last().map(|line| line.step);
    let evaluated = evaluations.last().map(|point| point.step);
    Ok(logged.max(evaluated).map(|step| Progress { step, of }))
}

/// The stages of a run, with their links.
pub(super) fn nodes(run: &ReadRun) -> Result<Vec<Node>> {
    let stages = &run.report.stages;
    let mut nodes = Vec::new();
    for stage in stages {
        let (links, outside) = links(stage, stages);
        let overview = stage.shown.as_ref().map(|shown| shown.overview).unwrap_or_default();
        let is_training = Kind::named(&stage.entry.kind).is_some_and(|kind| kind.arm.is_some());
        let arm = if is_training { Some(arm(run, stage)?) } else { None };
        let last = arm.as_ref().and_then(|arm| arm.evaluations.last());
        let quality = overview.quality.or(last.map(|last| last.quality));
        let seconds: f64 =
            journal::sessions(&run.directory(stage))?.iter().filter_map(|session| session.seconds).sum();
        nodes.push(Node {
            name: stage.entry.name.clone(),
            kind: stage.entry.kind.clone(),
            fused: stage.entry.kind == fuse::KIND.name,
            state: state(run, stage)?,
            place: Place::default(),
            links,
            outside,
            parameters: overview.parameters,
            steps: overview.steps.or(last.map(|last| last.step)),
            tokens: overview.tokens.or(last.map(|last| last.tokens)),
            flops: last.map(|last| last.flops),
            seconds: stage.seconds.or((seconds > 0.0).then_some(seconds)),
            loss: quality.map(|quality| quality.loss),
            accuracy: quality.map(|quality| quality.accuracy),
            context_gain: quality.and_then(|quality| quality.context_gain),
        });
    }
    // A model that was trained on is still a fused one.
    for at in 0..nodes.len() {
        let fused = |link: &Link| link.model && nodes.get(link.from).is_some_and(|from: &Node| from.fused);
        if nodes[at].kind == pretrain::KIND.name && nodes[at].links.iter().any(fused) {
            nodes[at].fused = true;
        }
    }
    let edges: Vec<Vec<usize>> =
        nodes.iter().map(|node| node.links.iter().map(|link| link.from).collect()).collect();
    for (node, place) in nodes.iter_mut().zip(places(&edges)) {
        node.place = place;
    }
    Ok(nodes)
}

fn links(stage: &StageReport, stages: &[StageReport]) -> (Vec<Link>, Vec<String>) {
    let (mut links, mut outside) = (Vec::<Link>::new(), Vec::new());
    for input in &stage.entry.inputs {
        let named = |name: &str| stages.iter().position(|other| other.entry.name == name);
        // A model on the way of a training is named after its stage and the step.
        let Some(from) = named(Input::parts(input).0) else {
            outside.push(input.clone());
            continue;
        };
        let model = Kind::named(&stages[from].entry.kind)
            .is_some_and(|kind| kind.gives == Some(crate::stage::Gives::Model));
        let copies = if model { copies(stage) } else { 1 };
        match links.iter_mut().find(|link| link.from == from) {
            Some(link) => link.times += copies,
            None => links.push(Link { from, times: copies, model }),
        }
    }
    (links, outside)
}

/// How often a stage uses a model that it names once.
fn copies(stage: &StageReport) -> usize {
    let settings = stage.settings.as_ref().filter(|_| stage.entry.kind == fuse::KIND.name);
    settings.and_then(method).map_or(1, |settings| settings.parent_copies())
}

/// The method among a fusion's settings.
pub(super) fn method(settings: &Value) -> Option<MethodSettings> {
    let mut own = settings.as_object()?.clone();
    for key in ["kind", "parents", "calibrate"] {
        own.shift_remove(key);
    }
    serde_json::from_value(Value::Object(own)).ok()
}
