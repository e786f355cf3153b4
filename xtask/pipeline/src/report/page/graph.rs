//! The picture of a run's stages: boxes, and curves between them.

use serde::Serialize;

use crate::numbers::{count, duration};
use crate::report::results::{Link, Node, Progress, State};

/// Sizes in units of the picture.
const BOX: [f64; 2] = [196.0, 88.0];
const GAP: [f64; 2] = [54.0, 18.0];
const MARGIN: f64 = 6.0;

/// A picture of a graph.
#[derive(Debug, Serialize)]
pub struct Picture {
    pub width: f64,
    pub height: f64,
    /// The width below which nobody could read it: a narrower screen scrolls.
    pub least: f64,
    pub boxes: Vec<Stage>,
    pub links: Vec<Curve>,
    /// What it shows, for those who do not see it.
    pub description: String,
    /// What of its marks needs an explanation.
    pub legend: Legend,
}

/// Which marks occur.
#[derive(Debug, Serialize)]
pub struct Legend {
    pub fused: bool,
    pub twice: bool,
    pub unfinished: bool,
    pub hidden: bool,
}

#[derive(Debug, Serialize)]
pub struct Stage {
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
    /// Words for the style.
    pub class: String,
    pub name: String,
    /// The name, cut to what fits.
    pub label: String,
    pub kind: String,
    pub lines: Vec<String>,
    /// Everything about it, as a tooltip.
    pub title: String,
    /// How much of it is done, from 0 to 1, if it is under way.
    pub progress: Option<f64>,
}

#[derive(Debug, Serialize)]
pub struct Curve {
    pub path: String,
    pub class: &'static str,
}

impl Picture {
    pub fn new(nodes: &[Node]) -> Self {
        let pitch = [BOX[0] + GAP[0], (BOX[1] + GAP[1]) / 2.0];
        let corner = |node: &Node| {
            [MARGIN + node.place.column as f64 * pitch[0], MARGIN + node.place.row as f64 * pitch[1]]
        };
        let corners: Vec<[f64; 2]> = nodes.iter().map(corner).collect();
        let farthest = |axis: usize| corners.iter().map(|corner| corner[axis]).fold(0.0, f64::max);
        let (mut links, mut hidden) = (Vec::new(), false);
        for (node, to) in nodes.iter().zip(&corners) {
            let takes_model = node.links.iter().any(|link| link.model);
            for link in &node.links {
                let Some(from) = corners.get(link.from) else { continue };
                // A model brings its tokenizer along.
                if !link.model && takes_model {
                    hidden = true;
                    continue;
                }
                links.extend(curves(link, *from, *to));
            }
        }
        let has = |wanted: fn(&Node) -> bool| nodes.iter().any(wanted);
        let width = farthest(0) + BOX[0] + MARGIN;
        Picture {
            width,
            least: (0.75 * width).round(),
            height: farthest(1) + BOX[1] + MARGIN,
            boxes: nodes.iter().zip(&corners).map(|(node, corner)| stage(node, *corner)).collect(),
            links,
            description: description(nodes),
            legend: Legend {
                fused: has(|node| node.fused),
                twice: has(|node| node.links.iter().any(|link| link.times > 1)),
                unfinished: has(|node| !node.state.is_finished()),
                hidden,
            },
        }
    }
}

/// One curve, or as many beside each other as a model is used times.
fn curves(link: &Link, from: [f64; 2], to: [f64; 2]) -> Vec<Curve> {
    let class = if link.model { "model" } else { "tokenizer" };
    let times = link.times.clamp(1, 4);
    let curve = |number: usize| {
        let shift = (number as f64 - (times as f64 - 1.0) / 2.0) * 5.0;
        let (start, end) =
            ([from[0] + BOX[0], from[1] + BOX[1] / 2.0 + shift], [to[0], to[1] + BOX[1] / 2.0 + shift]);
        let bend = (end[0] - start[0]).max(GAP[0]) / 2.0;
        let path = format!(
            "M{:.1} {:.1}C{:.1} {:.1} {:.1} {:.1} {:.1} {:.1}",
            start[0],
            start[1],
            start[0] + bend,
            start[1],
            end[0] - bend,
            end[1],
            end[0],
            end[1]
        );
        Curve { path, class }
    };
    (0..times).map(curve).collect()
}

fn stage(node: &Node, corner: [f64; 2]) -> Stage {
    let lines = lines(node);
    let mut title = vec![format!("{}: {}, {}", node.name, node.kind, node.state.words())];
    title.extend(lines.iter().cloned());
    if !node.outside.is_empty() {
        title.push(format!("from {}", node.outside.join(", ")));
    }
    let state = match &node.state {
        State::Finished => "finished",
        State::Running { .. } => "running",
        State::Interrupted { .. } => "interrupted",
        State::Failed { error } => {
            title.push(error.clone());
            "failed"
        }
        State::Waiting => "waiting",
        State::LeftOut { .. } => "left-out",
    };
    let progress = match &node.state {
        State::Running { progress } | State::Interrupted { progress } => *progress,
        _ => None,
    };
    Stage {
        x: corner[0],
        y: corner[1],
        width: BOX[0],
        height: BOX[1],
        class: format!("{state}{}", if node.fused { " fused" } else { "" }),
        label: cut(&node.name, 21),
        name: node.name.clone(),
        kind: node.kind.clone(),
        lines,
        title: title.join("\n"),
        progress: progress.map(|Progress { step, of }| (step as f64 / of.max(1) as f64).clamp(0.0, 1.0)),
    }
}

fn lines(node: &Node) -> Vec<String> {
    let joined = |parts: [Option<String>; 2]| parts.into_iter().flatten().collect::<Vec<_>>().join(" · ");
    let progress = match &node.state {
        State::Running { progress: Some(progress) } | State::Interrupted { progress: Some(progress) } => {
            Some(format!("step {} of {}", progress.step, progress.of))
        }
        State::Finished => node.steps.map(|steps| format!("{} steps", crate::numbers::thousands(steps))),
        state => Some(state.words().to_owned()),
    };
    let all = [
        joined([node.parameters.map(|parameters| format!("{} param.", count(parameters as f64))), progress]),
        joined([
            node.tokens.map(|tokens| format!("{} tokens", count(tokens as f64))),
            node.flops.map(|flops| format!("{}FLOP", count(flops))),
        ]),
        joined([node.loss.map(|loss| format!("loss {loss:.3}")), node.seconds.map(duration)]),
    ];
    all.into_iter().filter(|line| !line.is_empty()).collect()
}

/// At most so many characters, the last of them an ellipsis if there were more.
fn cut(text: &str, most: usize) -> String {
    match text.chars().count() > most {
        true => text.chars().take(most - 1).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

fn description(nodes: &[Node]) -> String {
    let each = nodes.iter().map(|node| {
        let from = node.links.iter().filter_map(|link| {
            let name = &nodes.get(link.from)?.name;
            Some(if link.times > 1 { format!("{name} ({} times)", link.times) } else { name.clone() })
        });
        let from: Vec<String> = from.collect();
        match from.is_empty() {
            true => format!("{} ({})", node.name, node.kind),
            false => format!("{} ({}) from {}", node.name, node.kind, from.join(" and ")),
        }
    });
    each.collect::<Vec<_>>().join("; ")
}
