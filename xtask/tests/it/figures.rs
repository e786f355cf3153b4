//! The figures of reports as files.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;

use roxmltree::{Document, Node};
use serde_json::{Value, json};

use crate::program::{call, directory, text};
use crate::report::run;

/// Writes the figures of a run into a directory; what the program says.
fn draw(run: &Path, figures: &Path) -> String {
    let called = call(&["report", text(run), "--figures", text(figures)]);
    assert_eq!((called.code, called.stdout.as_str()), (Some(0), ""), "{}", called.stderr);
    called.stderr
}

fn names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry"));
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// The colour of axes.
const RULE: &str = "#D8D8D3";

/// What there is in a drawing: texts, and lines by the names of their models with how many corners they have.
fn content(svg: &str) -> String {
    let document = Document::parse(svg).expect("XML");
    let shown = |node: Node<'_, '_>| {
        let attribute = |name| node.attribute(name).unwrap_or_default();
        match node.tag_name().name() {
            "text" | "title" => node.text().map(|text| format!("{} {}", node.tag_name().name(), text.trim())),
            name @ ("polyline" | "polygon") => {
                let colour = attribute(if name == "polygon" { "fill" } else { "stroke" });
                let corners: Vec<&str> = attribute("points").split_whitespace().collect();
                let ends = format!("{} to {}", corners.first()?, corners.last()?);
                (colour != RULE).then(|| format!("{name} {colour} {} corners, {ends}", corners.len()))
            }
            "circle" => {
                Some(format!("circle {} {} {}", attribute("stroke"), attribute("cx"), attribute("cy")))
            }
            "line" if node.has_attribute("stroke-dasharray") => Some(format!("goal at {}", attribute("y1"))),
            _ => None,
        }
    };
    document.descendants().filter_map(shown).map(|line| line + "\n").collect()
}

/// Width, height, and how many colours there are.
fn pixels(path: &Path) -> (u32, u32, usize) {
    let mut reader =
        png::Decoder::new(BufReader::new(File::open(path).expect("a file"))).read_info().expect("PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
    let frame = reader.next_frame(&mut pixels).expect("a picture");
    assert_eq!(frame.color_type, png::ColorType::Rgba);
    let colours: BTreeSet<&[u8]> = pixels.chunks(4).collect();
    (frame.width, frame.height, colours.len())
}

#[test]
fn figures_of_a_run() {
    let (run, folder) = (run(5.0), directory(&[]));
    let figures = folder.path().join("new/figures");
    let said = draw(run.path(), &figures);
    let all = [
        "loss-by-steps",
        "loss-by-computation",
        "accuracy-by-steps",
        "accuracy-by-computation",
        "context-gain",
        "recipe",
    ];
    assert_eq!(said, format!("in {}, as SVG and PNG: {}\n", figures.display(), all.join(", ")));
    let files = all.iter().flat_map(|name| [format!("{name}.svg"), format!("{name}.png")]);
    assert_eq!(names(&figures), files.chain([".deep-fusion.json".to_owned()]).collect());
    let mut drawn = String::new();
    for name in all {
        let svg = fs::read_to_string(figures.join(format!("{name}.svg"))).expect("a drawing");
        drawn += &format!("== {name}\n{}", content(&svg));
        let size = |name: &str| -> u32 {
            let document = Document::parse(&svg).expect("XML");
            document.root_element().attribute(name).and_then(|size| size.parse::<f64>().ok()).expect("a size")
                as u32
        };
        let (width, height, colours) = pixels(&figures.join(format!("{name}.png")));
        assert_eq!((width, height), (2 * size("width"), 2 * size("height")), "{name}");
        assert!(colours > 20, "{name} has {colours} colours, too few for letters and lines");
        // Nothing is from elsewhere, or about this machine.
        assert_eq!(svg.matches("http").count(), svg.matches("http://www.w3.org/2000/svg").count(), "{name}");
        assert!(!svg.contains(text(run.path())), "{name}");
    }
    insta::assert_snapshot!(drawn);

    // Once more, over the first ones: the same bytes.
    let bytes = |name: &String| fs::read(figures.join(name)).expect("a file");
    let first: Vec<Vec<u8>> = names(&figures).iter().map(bytes).collect();
    draw(run.path(), &figures);
    assert_eq!(first, names(&figures).iter().map(bytes).collect::<Vec<_>>());
}

#[test]
fn bands_gaps_and_rings() {
    let point = |step: usize, loss: f64, gain: Option<f64>| {
        json!({
            "kind": "evaluation", "step": step, "tokens": step, "flops": step, "loss": loss, "accuracy": 0.5,
            "context_gain": gain,
        })
        .to_string()
            + "\n"
    };
    let trained = |seed: u64, start: &str| {
        json!({
            "version": 1, "inputs": {}, "seconds": 1.0,
            "settings": { "kind": "pretrain", "start": start, "seed": seed, "steps": 40 },
            "result": { "parameters": 1, "steps": 40, "tokens": 40, "flops": 40.0, "total_flops": 40.0, "loss": 1.0 },
        })
        .to_string()
    };
    let stage = |name: &str| json!({ "name": name, "kind": "pretrain", "inputs": [] });
    let run = json!({
        "version": 1, "name": "seeds", "stages": [stage("base-1"), stage("base-2"), stage("other"), stage("one")],
        "comparison": { "baseline": "base-1", "arms": ["base-2", "other", "one"] },
    });
    // In the middle, the context gain was not measured.
    let losses = |losses: &[f64]| -> String {
        let points = losses.iter().enumerate();
        points.map(|(at, loss)| point(10 * at, *loss, (at != 2).then_some(0.1 * loss))).collect()
    };
    let folder = directory(&[
        ("run.json", &run.to_string()),
        ("base-1/stage.json", &trained(1, "a")),
        ("base-1/metrics.jsonl", &losses(&[5.0, 4.0, 3.5, 3.2, 3.0])),
        ("base-2/stage.json", &trained(2, "a")),
        ("base-2/metrics.jsonl", &losses(&[5.2, 4.1, 3.7, 3.3, 3.2])),
        ("other/stage.json", &trained(1, "b")),
        ("other/metrics.jsonl", &losses(&[4.0, 3.5, 3.2, 3.0, 2.9])),
        ("one/stage.json", &trained(1, "c")),
        ("one/metrics.jsonl", &losses(&[4.5])),
    ]);
    let figures = folder.path().join("figures");
    draw(folder.path(), &figures);
    let drawn = |name: &str| content(&fs::read_to_string(figures.join(name)).expect("a drawing"));
    insta::assert_snapshot!(drawn("loss-by-steps.svg") + &drawn("context-gain.svg"));
}

/// Names of stages may be anybody's.
#[test]
fn names_are_no_markup() {
    let hostile = "</text><script>alert(1)</script>\"'&<!--\u{1b}[31m\u{0}{{ 7 * 7 }}]]>";
    let record = json!({
        "version": 1, "inputs": {}, "seconds": 1.0, "settings": {},
        "result": { "parameters": 1, "steps": 5, "tokens": 5, "flops": 1.0, "total_flops": 1.0, "loss": 1.0 },
    });
    let point = |step: u64| json!({ "kind": "evaluation", "step": step, "tokens": step, "flops": step as f64, "loss": 1.0, "accuracy": 0.5 });
    let stage = json!({ "name": "b", "kind": "pretrain", "inputs": [hostile] });
    let run = json!({
        "version": 1, "name": hostile,
        "stages": [stage, { "name": "c", "kind": hostile, "inputs": ["b"] }],
    });
    let files = |name: &str| {
        directory(&[
            (
                "run.json",
                &json!({ "version": 1, "name": name, "stages": [] })
                    .to_string()
                    .replace("\"stages\":[]", &format!("\"stages\":{}", run["stages"])),
            ),
            ("b/stage.json", &record.to_string()),
            ("b/metrics.jsonl", &format!("{}\n{}\n", point(0), point(5))),
        ])
    };
    let (one, other, folder) = (files(hostile), files(&format!("../{hostile}")), directory(&[]));
    // Names of several runs precede those of their trainings.
    call(&["report", text(one.path()), text(other.path()), "--figures", text(folder.path())]).success();
    let drawings: Vec<String> =
        names(folder.path()).into_iter().filter(|name| name.ends_with(".svg")).collect();
    assert_eq!(drawings.len(), 6, "{drawings:?}");
    for name in drawings {
        let svg = fs::read_to_string(folder.path().join(&name)).expect("a drawing");
        let document = Document::parse(&svg).unwrap_or_else(|error| panic!("{name}: {error}"));
        let tags: BTreeSet<&str> =
            document.descendants().filter(Node::is_element).map(|node| node.tag_name().name()).collect();
        assert!(!tags.contains("script"), "{name}: {tags:?}");
        assert!(content(&svg).contains("<script>alert(1)</script>"), "{name}: {}", content(&svg));
        assert!(!svg.contains(['\u{1b}', '\u{0}']) && !svg.contains("> 49"), "{name}");
    }
}

#[test]
fn runs_that_are_not_whole() {
    let stage = |name: &str, kind: &str| json!({ "name": name, "kind": kind, "inputs": [] });
    let file = |stages: Value| json!({ "version": 1, "name": "odd", "stages": stages }).to_string();
    let begun =
        json!({ "settings": { "kind": "pretrain", "steps": 50, "seed": 1 }, "inputs": {} }).to_string();
    let evaluated =
        "{\"kind\":\"evaluation\",\"step\":0,\"tokens\":0,\"flops\":0.0,\"loss\":5.0,\"accuracy\":0.0}\n";
    let nan = "{\"kind\":\"train\",\"step\":1,\"tokens\":1,\"flops\":1.0,\"loss\":null,\"accuracy\":0.0,\
               \"gradient_norm\":null,\"learning_rate\":0.1,\"tokens_per_second\":1.0}\n";
    let diverged = format!("{evaluated}{nan}");
    let drawn = |files: &[(&str, &str)]| {
        let (run, figures) = (directory(files), directory(&[]));
        draw(run.path(), figures.path());
        names(figures.path()).into_iter().filter(|name| name.ends_with(".svg")).collect::<Vec<_>>()
    };
    let not_begun = file(json!([stage("a", "pretrain")]));
    assert_eq!(drawn(&[("run.json", &not_begun)]), ["recipe.svg"]);
    let with = |metrics: &str| {
        drawn(&[("run.json", &not_begun), ("a/begun.json", &begun), ("a/metrics.jsonl", metrics)])
    };
    assert_eq!(with(nan), ["recipe.svg"]);
    let all =
        ["accuracy-by-computation", "accuracy-by-steps", "loss-by-computation", "loss-by-steps", "recipe"];
    assert_eq!(with(&diverged), all.map(|name| format!("{name}.svg")));
    // Results of GLUE by themselves have no curves and no stages.
    let scores = directory(&[("glue.json", "{\"settings\":{},\"seeds\":[]}")]);
    let figures = directory(&[]);
    let said = draw(scores.path(), figures.path());
    assert!(said.starts_with("there is nothing to draw yet"), "{said}");
}

#[test]
fn only_own_files_are_replaced() {
    let run = run(5.0);
    let folder = directory(&[("notes/recipe.png", "mine"), ("file", "mine"), ("docs/README.md", "mine")]);
    let at = |name: &str| folder.path().join(name);
    let refused = call(&["report", text(run.path()), "--figures", text(&at("notes"))]).failure();
    assert!(refused.contains("recipe.png"), "{refused}");
    assert_eq!(names(&at("notes")), BTreeSet::from(["recipe.png".to_owned()]), "nothing was written");
    let refused = call(&["report", text(run.path()), "--figures", text(&at("file"))]).failure();
    assert!(refused.contains("file"), "{refused}");
    // Files of others do not matter, and a page may be written along with figures.
    let page = at("page.html");
    call(&["report", text(run.path()), "--figures", text(&at("docs")), "--html", text(&page)]).success();
    assert!(page.is_file() && at("docs/loss-by-steps.svg").is_file());
    // One that was edited since is the user's.
    fs::write(at("docs/recipe.svg"), "edited").expect("a file");
    let refused = call(&["report", text(run.path()), "--figures", text(&at("docs"))]).failure();
    assert!(refused.contains("recipe.svg"), "{refused}");
    assert_eq!(fs::read_to_string(at("docs/recipe.svg")).expect("a file"), "edited");
}
