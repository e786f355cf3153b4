//! A report as a page. `.ci/check-page` opens pages in a browser; these tests look at what is in them.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::program::{PROGRAM, call, directory, text};
use crate::report::run;

/// `report --serve`, ended with the test.
struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn of(run: &Path) -> Self {
        let arguments = ["report", text(run), "--serve", "--port", "0"];
        let mut process =
            Command::new(PROGRAM).args(arguments).stderr(Stdio::piped()).spawn().expect("the program starts");
        let mut line = String::new();
        let said = process.stderr.as_mut().expect("standard error");
        BufReader::new(said).read_line(&mut line).expect("a line");
        let (_, after) = line.split_once("http://").expect("an address");
        let address = after.split_once('/').expect("the end of an address").0.to_owned();
        Server { process, address }
    }

    /// The status of an answer, and all of it.
    fn ask(&self, request: &str) -> (u16, String) {
        let mut connection = TcpStream::connect(&self.address).expect("a connection");
        let request = format!("{request}Connection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).expect("a request");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).expect("an answer");
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.unwrap_or_else(|| panic!("{answer:?}")), answer)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().expect("it still runs");
        self.process.wait().expect("it ends");
    }
}

/// The page of these runs.
fn page(runs: &[&Path]) -> String {
    let folder = directory(&[]);
    let place = folder.path().join("page.html");
    let runs = runs.iter().map(|run| text(run));
    let called =
        call(&[&["report"], runs.collect::<Vec<_>>().as_slice(), &["--html", text(&place)]].concat());
    assert_eq!(called.success(), "");
    fs::read_to_string(place).expect("a page")
}

/// What the page's script draws.
fn data(page: &str) -> Value {
    let (_, after) = page.split_once("<script type=\"application/json\" id=\"data\"").expect("data");
    let (_, json) = after.split_once('>').expect("the end of a tag");
    let (json, _) = json.split_once("</script>").expect("the end of the data");
    serde_json::from_str(json).expect("JSON")
}

/// JSON with a line for each list of numbers.
fn lines(key: &str, value: &Value) -> String {
    match value {
        Value::Object(object) => {
            object.iter().map(|(own, value)| lines(&format!("{key}.{own}"), value)).collect()
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            items.iter().enumerate().map(|(at, value)| lines(&format!("{key}[{at}]"), value)).collect()
        }
        value => format!("{key} {value}\n"),
    }
}

/// The anchors of the page's sections.
fn sections(page: &str) -> Vec<&str> {
    let ids = page.split("<section id=\"").skip(1);
    ids.filter_map(|rest| rest.split('"').next()).collect()
}

#[test]
fn curves_of_a_run() {
    let run = run(5.0);
    let page = page(&[run.path()]);
    insta::assert_snapshot!(lines("", &data(&page)));
    assert_eq!(sections(&page), ["comparison", "context", "recipe", "glue", "costs", "provenance"]);
    // Nothing is fetched: what is named elsewhere is named in words.
    for tag in ["<img", "<link rel=\"stylesheet\"", "<iframe", " src=", "@import", "url("] {
        assert!(!page.contains(tag), "{tag}");
    }
    assert!(page.contains("Permission is hereby granted, free of charge"), "the licence of uPlot");
    // In words as the report in text has them.
    let words = call(&["report", text(run.path())]).success();
    let verdict = words.lines().find(|line| line.starts_with("After 40 steps")).expect("a verdict");
    assert!(page.contains(verdict), "{verdict}");
}

#[test]
fn names_and_texts_are_no_markup() {
    let hostile = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u{2028}{{ 7 * 7 }}\"'&";
    let span = json!({ "sentinel": "<extra_id_0>", "expected": hostile, "filled": hostile });
    let record = json!({
        "version": 1, "inputs": {}, "seconds": 1.0,
        "settings": { "seed": 1, "note": hostile, "data": { "text": [hostile] } },
        "result": { "parameters": 1, "steps": 5, "tokens": 5, "flops": 1.0, "total_flops": 1.0, "loss": 1.0 },
    });
    let point = |step: u64| {
        json!({
            "kind": "evaluation", "step": step, "tokens": step, "flops": step as f64, "loss": 1.0, "accuracy": 0.5,
        })
    };
    let stage = json!({ "name": "a", "kind": hostile, "inputs": [hostile] });
    let other = json!({ "name": "b", "kind": "pretrain", "inputs": [hostile] });
    let run = json!({
        "version": 1, "name": hostile, "stages": [stage, other],
        "recipe": [{ "name": hostile, "text": format!("# {hostile}\nx = \"{hostile}\"\n") }],
        "command": ["cargo", "xtask", hostile],
    });
    let folder = directory(&[
        ("run.json", &run.to_string()),
        ("b/stage.json", &record.to_string()),
        ("b/metrics.jsonl", &format!("{}\n{}\n", point(0), point(5))),
        (
            "b/examples.json",
            &json!({ "examples": [{ "input": format!("{hostile}<extra_id_0>"), "spans": [span] }] })
                .to_string(),
        ),
    ]);
    let page = page(&[folder.path()]);
    let lower = page.to_lowercase();
    // The page's own scripts: data, uPlot, and what draws with it. No other tag begins with what was put in.
    assert_eq!(lower.matches("<script").count(), 3, "scripts");
    assert_eq!(lower.matches("</script>").count(), 3, "ends of scripts");
    assert!(!lower.contains("<img"), "an image");
    assert!(page.contains("{{ 7 * 7 }}") && !page.contains("> 49"), "a template in a text");
    assert!(page.contains("&lt;img src=x onerror=alert(2)&gt;"), "the text itself is there");
    assert_eq!(sections(&page), ["comparison", "recipe", "costs", "examples", "provenance"]);
}

/// A page that makes sense of every state; what there is nothing to show of is left out.
#[test]
fn runs_that_are_not_whole() {
    let stage = |name: &str, kind: &str| json!({ "name": name, "kind": kind, "inputs": [] });
    let file = |stages: Value, comparison: Value| {
        json!({ "version": 1, "name": "odd", "stages": stages, "comparison": comparison }).to_string()
    };
    let begun =
        json!({ "settings": { "kind": "pretrain", "steps": 50, "seed": 1 }, "inputs": {} }).to_string();
    let failed = json!([{ "began": 9, "seconds": 1.0, "error": "the disk is full" }]).to_string();
    let nan = "{\"kind\":\"train\",\"step\":1,\"tokens\":1,\"flops\":1.0,\"loss\":null,\"accuracy\":0.0,\
               \"gradient_norm\":null,\"learning_rate\":0.1,\"tokens_per_second\":1.0}\n";
    let none = Value::Null;
    let compared = json!({ "baseline": "a", "arms": ["b"] });

    let not_begun = directory(&[("run.json", &file(json!([stage("a", "pretrain")]), none.clone()))]);
    let shown = page(&[not_begun.path()]);
    assert_eq!(sections(&shown), ["recipe", "provenance"]);
    assert!(shown.contains("0 of 1 stages finished") && shown.contains("not begun"));

    let one = directory(&[
        ("run.json", &file(json!([stage("words", "tokenizer")]), none)),
        (
            "words/stage.json",
            &json!({ "version": 1, "settings": {}, "inputs": {}, "result": {}, "seconds": 2.0 }).to_string(),
        ),
    ]);
    assert!(page(&[one.path()]).contains("one stage, finished"));

    let stages = json!([stage("a", "pretrain"), stage("b", "pretrain"), stage("c", "glue")]);
    let broken = directory(&[
        ("run.json", &file(stages, compared)),
        ("a/begun.json", &begun),
        ("a/metrics.jsonl", nan),
        ("a/time.json", &failed),
        ("b/begun.json", &begun),
    ]);
    let shown = page(&[broken.path()]);
    assert!(shown.contains("a failed.") && shown.contains("the disk is full"));
    assert!(shown.contains("step 1 of 50") || shown.contains("failed"), "the state of a stage");
    assert_eq!(data(&shown)["sets"], json!([]));

    // Several at once, the same one twice.
    let whole = run(5.0);
    let shown = page(&[whole.path(), broken.path(), whole.path()]);
    let sets = data(&shown)["sets"].as_array().map_or(0, Vec::len);
    assert_eq!(sets, 4, "the two trainings of the whole run that have begun, twice");
}

#[test]
fn only_an_earlier_page_is_replaced() {
    let run = run(5.0);
    let folder = directory(&[("notes.html", "<p>mine</p>"), ("empty.html", "")]);
    let write = |name: &str| call(&["report", text(run.path()), "--html", text(&folder.path().join(name))]);
    let refused = write("notes.html").failure();
    assert!(refused.contains("is no page of a report, so it is not overwritten"), "{refused}");
    assert_eq!(fs::read_to_string(folder.path().join("notes.html")).expect("a file"), "<p>mine</p>");
    for name in ["empty.html", "new.html", "new.html"] {
        write(name).success();
    }
    write("").failure();
}

/// The server gives out the page, anew when the run has changed, and nothing else to nobody else.
#[test]
fn a_page_that_follows_its_run() {
    let run = run(5.0);
    let server = Server::of(run.path());
    let get = |more: &str| server.ask(&format!("GET / HTTP/1.1\r\nHost: {}\r\n{more}", server.address));
    let version = |answer: &str| {
        let (_, after) = answer.split_once("ETag: ").expect("a version");
        after.split_once("\r\n").expect("the end of a header").0.to_owned()
    };
    let (status, first) = get("");
    assert_eq!(status, 200);
    assert!(first.contains("connect-src 'self'") && first.contains("synthetic"));
    let known = format!("If-None-Match: {}\r\n", version(&first));
    assert_eq!(get(&known).0, 304);
    fs::write(run.path().join("words/metrics.jsonl"), "").expect("a file");
    let later = std::iter::repeat_with(|| get(&known))
        .take(100_000)
        .find(|(status, _)| *status != 304)
        .expect("a new page");
    assert_eq!(later.0, 200);
    assert_ne!(version(&first), version(&later.1));

    let host = format!("Host: {}\r\n", server.address);
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: localhost:1\r\n", 200), // through a tunnel
        ("GET / HTTP/1.1\r\nHost: elsewhere.example\r\n", 403),
        ("GET / HTTP/1.1\r\n", 403),
        (&format!("POST / HTTP/1.1\r\n{host}"), 405),
        (&format!("GET /run.json HTTP/1.1\r\n{host}"), 404),
        (&format!("GET /../../etc/passwd HTTP/1.1\r\n{host}"), 404),
    ] {
        assert_eq!(server.ask(request).0, status, "{request}");
    }
    // What cannot be read is said, until it can be read again.
    fs::write(run.path().join("run.json"), "{").expect("a file");
    let damaged = std::iter::repeat_with(|| get(&known))
        .take(100_000)
        .find(|(status, _)| *status != 200)
        .expect("an error");
    assert_eq!(damaged.0, 503);
    assert!(damaged.1.contains("run.json is damaged"), "{}", damaged.1);
}

#[test]
fn what_cannot_be_served() {
    let run = run(5.0);
    let none = call(&["report", "nowhere", "--serve"]).failure();
    assert!(none.contains("nowhere"), "{none}");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let error = call(&["report", text(run.path()), "--serve", "--port", &port]).failure();
    assert!(error.contains(&format!("cannot listen on port {port}")) && error.contains("--port"), "{error}");
}
