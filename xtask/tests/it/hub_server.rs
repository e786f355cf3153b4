//! A Hugging Face Hub on this machine, as far as fetching models needs one.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use sha2::{Digest, Sha256};

/// What the hub does with a request for bytes of weights.
#[derive(Clone, Copy, PartialEq)]
pub enum Fault {
    None,
    /// Breaks the next so many connections after a part of the bytes.
    Break(usize),
    /// Sends as many bytes as there should be, but others.
    Garble,
    /// Ends every answer early as if that were all.
    Truncate,
}

/// A model: its commit, its files, and the status with which it is refused.
#[derive(Clone, Default)]
pub struct Model {
    pub commit: String,
    pub files: BTreeMap<String, Vec<u8>>,
    pub refused: Option<u16>,
}

impl Model {
    /// The files of a directory.
    pub fn of(directory: &Path, commit: &str) -> Self {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(directory).expect("a directory") {
            let entry = entry.expect("an entry");
            if entry.file_type().expect("a type").is_file() {
                let name = entry.file_name().into_string().expect("UTF-8");
                files.insert(name, fs::read(entry.path()).expect("a file"));
            }
        }
        Model { commit: commit.repeat(40), files, refused: None }
    }
}

struct State {
    address: String,
    models: BTreeMap<String, Model>,
    fault: Fault,
    requests: Vec<String>,
}

pub struct Hub {
    pub address: String,
    state: Arc<Mutex<State>>,
}

impl Hub {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let state = State {
            address: address.clone(),
            models: BTreeMap::new(),
            fault: Fault::None,
            requests: Vec::new(),
        };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        // Ends with the tests' process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away is none of the hub's business.
                let _ = answer(&shared, stream);
            }
        });
        Hub { address, state }
    }

    pub fn put(&self, name: &str, model: Model) {
        self.state.lock().expect("no panic").models.insert(name.to_owned(), model);
    }

    pub fn fail(&self, fault: Fault) {
        self.state.lock().expect("no panic").fault = fault;
    }

    /// The requests since the last call: `PATH RANGE`.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().expect("no panic").requests)
    }
}

/// Reads a request and answers it; every connection serves one.
fn answer(state: &Mutex<State>, mut stream: TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut range = String::new();
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some(("range", value)) = line.to_lowercase().split_once(": ") {
            range = value.to_owned();
        }
    }
    let mut state = state.lock().expect("no panic");
    state.requests.push(format!("{path} {range}").trim_end().to_owned());
    stream.write_all(&state.answer(&path, &range))
}

impl State {
    fn answer(&mut self, path: &str, range: &str) -> Vec<u8> {
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match parts.as_slice() {
            ["api", "models", organisation, name, "revision", revision] => {
                self.with_model(organisation, name, |_, model| info(model, revision))
            }
            [organisation, name, "resolve", commit, file] => {
                let place = format!("{}/{organisation}/{name}/cdn/{file}", self.address);
                self.with_model(organisation, name, |_, model| resolve(model, commit, file, &place, range))
            }
            [organisation, name, "cdn", file] => self.with_model(organisation, name, |fault, model| {
                weights(model.files.get(*file).map_or(&[], Vec::as_slice), range, fault)
            }),
            _ => status(404),
        }
    }

    fn with_model(
        &mut self,
        organisation: &str,
        name: &str,
        answer: impl FnOnce(&mut Fault, &Model) -> Vec<u8>,
    ) -> Vec<u8> {
        match self.models.get(&format!("{organisation}/{name}")) {
            // Nobody is told which models do not exist.
            None => status(401),
            Some(Model { refused: Some(refusal), .. }) => status(*refusal),
            Some(model) => answer(&mut self.fault, model),
        }
    }
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

/// Small files are sent at once, weights lie elsewhere.
fn resolve(model: &Model, commit: &str, name: &str, place: &str, range: &str) -> Vec<u8> {
    let Some(file) = model.files.get(name).filter(|_| commit == model.commit) else { return status(404) };
    let commit = format!("X-Repo-Commit: {commit}");
    let hash: String = Sha256::digest(file).iter().map(|byte| format!("{byte:02x}")).collect();
    if name.ends_with(".safetensors") || name.ends_with(".bin") {
        let headers = [commit, format!("X-Linked-Etag: \"{hash}\""), format!("Location: {place}")];
        return response("302 Found", &headers, &[]);
    }
    let etag = format!("ETag: \"{}\"", hash.get(..40).expect("64 digits"));
    part(file, range, &[commit, etag])
}

fn weights(file: &[u8], range: &str, fault: &mut Fault) -> Vec<u8> {
    let whole = part(file, range, &[]);
    // What the client asks first is only the size.
    let is_download = !range.ends_with("-0");
    match fault {
        Fault::Break(times) if is_download && *times > 0 => {
            *times -= 1;
            whole[..whole.len() / 2].to_vec()
        }
        Fault::Garble if is_download => {
            let mut garbled = whole;
            garbled.iter_mut().rev().take(9).for_each(|byte| *byte ^= 1);
            garbled
        }
        Fault::Truncate if is_download => {
            let mut head = b"HTTP/1.1 206 Partial Content\r\nConnection: close\r\n\r\n".to_vec();
            head.extend(file.get(..file.len() / 2).expect("half of it"));
            head
        }
        _ => whole,
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
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}
