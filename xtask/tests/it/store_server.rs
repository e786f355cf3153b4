//! A local object store that speaks S3's protocol, as far as reading needs it, and by the same addresses a web server.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::loopback::{Request, Then, listen, response, serve};
use crate::program::sha256;

/// How the store answers requests for bytes.
#[derive(Clone, Copy, PartialEq)]
pub enum Fault {
    None,
    /// Breaks this many connections after half of the bytes.
    Break(usize),
    /// Breaks all of them without a byte.
    Dead,
    /// Answers with this status.
    Status(u16),
    /// Sends weak tags, which no `If-Match` matches.
    WeakTags,
    /// Lists tags without their quotation marks, as Azure does.
    BareTags,
    /// Sends other objects than it lists.
    Changed,
    /// Knows no ranges, and breaks one connection.
    NoRanges,
}

struct State {
    /// By `bucket/key`.
    objects: BTreeMap<String, Vec<u8>>,
    fault: Fault,
    requests: Vec<String>,
}

pub struct Store {
    pub address: String,
    state: Arc<Mutex<State>>,
}

impl Store {
    pub fn start() -> Self {
        let (listener, address) = listen();
        let state = State { objects: BTreeMap::new(), fault: Fault::None, requests: Vec::new() };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        serve(listener, move |request| (shared.lock().expect("no panic").answer(request), Then::Close));
        Store { address, state }
    }

    pub fn put(&self, name: &str, content: impl Into<Vec<u8>>) {
        self.state.lock().expect("no panic").objects.insert(name.to_owned(), content.into());
    }

    pub fn fail(&self, fault: Fault) {
        self.state.lock().expect("no panic").fault = fault;
    }

    /// The requests for bytes since the last call: `bucket/key [RANGE]`.
    pub fn reads(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().expect("no panic").requests)
    }
}

impl State {
    fn answer(&mut self, request: &Request) -> Vec<u8> {
        let (method, range, wanted) = (&*request.method, request.header("range"), request.header("if-match"));
        let path = request.path.replace("%2F", "/").replace("%2E", "."); // as Google's client writes them
        let (path, query) = path.split_once('?').unwrap_or((&path, ""));
        if query.contains("list-type=2") {
            return self.list(path, query);
        }
        let Some(object) = self.objects.get(path) else { return response("404 Not Found", &[], 0, &[]) };
        let tag = match self.fault {
            Fault::WeakTags => format!("W/{}", tag(object)),
            Fault::Changed if method == "GET" => tag(b"another"),
            _ => tag(object),
        };
        let mut headers =
            vec![format!("ETag: {tag}"), "Last-Modified: Mon, 01 Jan 2024 00:00:00 GMT".to_owned()];
        if method == "HEAD" {
            return response("200 OK", &headers, object.len(), &[]);
        }
        self.requests.push(format!("{path} {range}").trim_end().to_owned());
        if !wanted.is_empty() && (wanted != tag || tag.starts_with("W/")) {
            return response("412 Precondition Failed", &[], 0, &[]);
        }
        let first = range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap_or(0);
        let whole = range.is_empty() || self.fault == Fault::NoRanges;
        let (status, bytes) = match whole {
            true => ("200 OK", &object[..]),
            false => {
                headers.push(format!("Content-Range: bytes {first}-{}/{}", object.len() - 1, object.len()));
                ("206 Partial Content", &object[first..])
            }
        };
        let answer = response(status, &headers, bytes.len(), bytes);
        let head = answer.len() - bytes.len();
        match &mut self.fault {
            Fault::Break(times) if *times > 0 => {
                *times -= 1;
                answer[..head + bytes.len() / 2].to_vec()
            }
            // The first request asks for no range.
            Fault::NoRanges if range.is_empty() && self.requests.len() == 1 => {
                answer[..head + bytes.len() / 2].to_vec()
            }
            Fault::Dead => answer[..head].to_vec(),
            Fault::Status(status) => response(&format!("{status} No"), &[], 0, &[]),
            _ => answer,
        }
    }

    /// Two objects a page.
    fn list(&self, bucket: &str, query: &str) -> Vec<u8> {
        let value = |name: &str| {
            let found = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            found.unwrap_or_default().replace("%2F", "/")
        };
        let bucket = bucket.trim_end_matches('/');
        let keys = self.objects.iter().filter_map(|(name, object)| {
            let key = name.strip_prefix(bucket)?.strip_prefix('/')?;
            (key.starts_with(&value("prefix")) && key > value("continuation-token").as_str())
                .then_some((key, object))
        });
        let keys: Vec<_> = keys.collect();
        let page: String = keys.iter().take(2).map(|(key, object)| {
            let (tag, size) = (tag(object), object.len());
            let tag = match self.fault {
                Fault::WeakTags => format!("W/{tag}"),
                Fault::BareTags => tag.trim_matches('"').to_owned(),
                _ => tag,
            };
            format!("<Contents><Key>{key}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>{tag}</ETag><Size>{size}</Size></Contents>")
        }).collect();
        let next = match keys.get(2) {
            Some(_) => format!("<NextContinuationToken>{}</NextContinuationToken>", keys[1].0),
            None => String::new(),
        };
        let body = format!(
            "<ListBucketResult><IsTruncated>{}</IsTruncated>{page}{next}</ListBucketResult>",
            !next.is_empty()
        );
        response("200 OK", &["Content-Type: application/xml".to_owned()], body.len(), body.as_bytes())
    }
}

fn tag(object: &[u8]) -> String {
    format!("\"{}\"", sha256(object).get(..32).expect("64 digits"))
}
