//! A local Hugging Face Hub, as far as fetching models and datasets needs one, and web folders.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::loopback::{self, Request, Then, listen, serve};
use crate::program::sha256;

/// How the hub handles requests for the bytes of weights or data.
#[derive(Clone, Copy, PartialEq)]
pub enum Fault {
    None,
    /// Breaks this many connections after part of the bytes.
    Break(usize),
    /// Sends the right number of bytes with the wrong contents.
    Garble,
    /// Ends every answer early as if it were complete.
    Truncate,
    /// Sends half of every answer, then nothing more.
    Stall,
}

/// A model or a dataset: its commit, its files, and the status it is refused with.
#[derive(Clone, Default)]
pub struct Model {
    pub commit: String,
    pub files: BTreeMap<String, Vec<u8>>,
    pub refused: Option<u16>,
}

impl Model {
    /// The files of a directory.
    pub fn of(directory: &Path, commit: &str) -> Self {
        let mut model = Model { commit: commit.repeat(40), ..Model::default() };
        model.add(directory, "");
        model
    }

    /// The same, including the files in subdirectories.
    pub fn of_folders(directory: &Path, commit: &str) -> Self {
        let mut model = Model::of(directory, commit);
        for entry in fs::read_dir(directory).expect("a directory") {
            let entry = entry.expect("an entry");
            if entry.file_type().expect("a type").is_dir() {
                let name = entry.file_name().into_string().expect("UTF-8");
                model.add(&entry.path(), &format!("{name}/"));
            }
        }
        model
    }

    fn add(&mut self, directory: &Path, prefix: &str) {
        for entry in fs::read_dir(directory).expect("a directory") {
            let entry = entry.expect("an entry");
            if entry.file_type().expect("a type").is_file() {
                let name = entry.file_name().into_string().expect("UTF-8");
                self.files.insert(format!("{prefix}{name}"), fs::read(entry.path()).expect("a file"));
            }
        }
    }
}

struct State {
    address: String,
    /// Keyed by their names in URLs: `org/small`, `datasets/org/glue`.
    models: BTreeMap<String, Model>,
    fault: Fault,
    requests: Vec<String>,
    tokens: Vec<String>,
}

pub struct Hub {
    pub address: String,
    state: Arc<Mutex<State>>,
}

impl Hub {
    pub fn start() -> Self {
        let (listener, address) = listen();
        let state = State {
            address: address.clone(),
            models: BTreeMap::new(),
            fault: Fault::None,
            requests: Vec::new(),
            tokens: Vec::new(),
        };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        serve(listener, move |request| shared.lock().expect("no panic").serve(request));
        Hub { address, state }
    }

    pub fn put(&self, name: &str, model: Model) {
        self.state.lock().expect("no panic").models.insert(name.to_owned(), model);
    }

    pub fn fail(&self, fault: Fault) {
        self.state.lock().expect("no panic").fault = fault;
    }

    /// The different values of the header `Authorization` since the last call.
    pub fn tokens(&self) -> Vec<String> {
        let mut tokens = std::mem::take(&mut self.state.lock().expect("no panic").tokens);
        tokens.dedup();
        tokens
    }

    /// The requests since the last call: `PATH RANGE`.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().expect("no panic").requests)
    }
}

impl State {
    fn serve(&mut self, request: &Request) -> (Vec<u8>, Then) {
        let (path, range) = (&*request.path, request.header("range"));
        self.tokens.push(request.header("authorization").to_owned());
        self.requests.push(format!("/{path} {range}").trim_end().to_owned());
        (self.answer(path, range), if self.fault == Fault::Stall { Then::Stall } else { Then::Close })
    }

    fn answer(&mut self, path: &str, range: &str) -> Vec<u8> {
        if let Some((folder, file)) = path.strip_prefix("web/").and_then(|path| path.split_once('/')) {
            return self.with_model(&format!("web/{folder}"), |fault, model| web(model, file, range, fault));
        }
        if let Some((name, revision)) =
            path.strip_prefix("api/").and_then(|path| path.split_once("/revision/"))
        {
            let name = name.trim_start_matches("models/");
            return self.with_model(name, |_, model| info(model, revision));
        }
        if let Some((name, (commit, file))) =
            path.split_once("/resolve/").and_then(|(name, rest)| Some((name, rest.split_once('/')?)))
        {
            let place = format!("{}/{name}/cdn/{file}", self.address);
            return self.with_model(name, |_, model| resolve(model, commit, file, &place, range));
        }
        if let Some((name, file)) = path.split_once("/cdn/") {
            return self.with_model(name, |fault, model| {
                weights(model.files.get(file).map_or(&[], Vec::as_slice), range, fault)
            });
        }
        status(404)
    }

    fn with_model(&mut self, name: &str, answer: impl FnOnce(&mut Fault, &Model) -> Vec<u8>) -> Vec<u8> {
        match self.models.get(name) {
            // The hub does not disclose which models do not exist.
            None => status(401),
            Some(Model { refused: Some(refusal), .. }) => status(*refusal),
            Some(model) => answer(&mut self.fault, model),
        }
    }
}

/// A file in a web folder; its tag is the folder's commit, if it has one.
fn web(model: &Model, name: &str, range: &str, fault: &mut Fault) -> Vec<u8> {
    let Some(file) = model.files.get(name) else { return status(404) };
    let tag: Vec<String> = model.commit.get(..1).map(|tag| format!("ETag: \"{tag}\"")).into_iter().collect();
    let whole = || response("200 OK", &tag, file);
    let answer = if range.is_empty() { whole() } else { part(file, range, &tag) };
    if name == "SHA256SUMS" { answer } else { faulty(answer, file, fault) }
}

fn info(model: &Model, revision: &str) -> Vec<u8> {
    if revision != "main" && revision != model.commit {
        return status(404);
    }
    let files: Vec<String> =
        model.files.keys().map(|name| format!("{{\"rfilename\": \"{name}\"}}")).collect();
    let body = format!("{{\"sha\": \"{}\", \"siblings\": [{}]}}", model.commit, files.join(", "));
    response("200 OK", &[], body.as_bytes())
}

/// Small files are sent directly, weights from another place.
fn resolve(model: &Model, commit: &str, name: &str, place: &str, range: &str) -> Vec<u8> {
    let Some(file) = model.files.get(name).filter(|_| commit == model.commit) else { return status(404) };
    let commit = format!("X-Repo-Commit: {commit}");
    let hash = sha256(file);
    if [".safetensors", ".bin", ".parquet"].iter().any(|extension| name.ends_with(extension)) {
        let headers = [commit, format!("X-Linked-Etag: \"{hash}\""), format!("Location: {place}")];
        return response("302 Found", &headers, &[]);
    }
    let etag = format!("ETag: \"{}\"", hash.get(..40).expect("64 digits"));
    part(file, range, &[commit, etag])
}

fn weights(file: &[u8], range: &str, fault: &mut Fault) -> Vec<u8> {
    let answer = part(file, range, &[]);
    // The client's first request only asks for the size.
    if range.ends_with("-0") { answer } else { faulty(answer, file, fault) }
}

fn faulty(answer: Vec<u8>, file: &[u8], fault: &mut Fault) -> Vec<u8> {
    match fault {
        Fault::Break(times) if *times > 0 => {
            *times -= 1;
            answer[..answer.len() / 2].to_vec()
        }
        Fault::Stall => answer[..answer.len() / 2].to_vec(),
        Fault::Garble => {
            let mut garbled = answer;
            garbled.iter_mut().rev().take(9).for_each(|byte| *byte ^= 1);
            garbled
        }
        Fault::Truncate => {
            let mut head = b"HTTP/1.1 206 Partial Content\r\nConnection: close\r\n\r\n".to_vec();
            head.extend(file.get(..file.len() / 2).expect("half of it"));
            head
        }
        _ => answer,
    }
}

/// The bytes `bytes=FIRST-[LAST]` of a file.
fn part(file: &[u8], range: &str, headers: &[String]) -> Vec<u8> {
    let (first, last) = range.trim_start_matches("bytes=").split_once('-').unwrap_or_default();
    let first = first.parse().unwrap_or(0);
    let end = last.parse::<usize>().map_or(file.len(), |last| last + 1).min(file.len());
    let Some(bytes) = file.get(first..end).filter(|bytes| !bytes.is_empty()) else { return status(416) };
    let place = format!("Content-Range: bytes {first}-{}/{}", end - 1, file.len());
    response("206 Partial Content", &[headers, &[place]].concat(), bytes)
}

fn status(status: u16) -> Vec<u8> {
    response(&format!("{status} No"), &[], &[])
}

fn response(status: &str, headers: &[String], body: &[u8]) -> Vec<u8> {
    loopback::response(status, headers, body.len(), body)
}
