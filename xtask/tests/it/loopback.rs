//! Web servers on this machine.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Result, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

/// A request without a body.
pub struct Request {
    pub method: String,
    /// Without the slash that it begins with.
    pub path: String,
    headers: BTreeMap<String, String>,
}

impl Request {
    fn read(stream: &TcpStream) -> Result<Self> {
        let mut lines = BufReader::new(stream).lines();
        let first = lines.next().transpose()?.unwrap_or_default();
        let mut headers = BTreeMap::new();
        for line in lines {
            let line = line?;
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        let mut words = first.split(' ');
        let method = words.next().unwrap_or_default().to_owned();
        let path = words.next().unwrap_or_default().trim_start_matches('/').to_owned();
        Ok(Request { method, path, headers })
    }

    /// A header's value, by its name in lower case; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// What a server does with a connection after its answer.
pub enum Then {
    Close,
    /// Leaves it open without another word.
    Stall,
}

/// A port to serve, and its address.
pub fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    (listener, address)
}

/// Answers one request of every connection, until the test process ends.
pub fn serve(listener: TcpListener, mut answer: impl FnMut(&Request) -> (Vec<u8>, Then) + Send + 'static) {
    let mut answer_on = move |mut stream: TcpStream| {
        let (bytes, then) = answer(&Request::read(&stream)?);
        stream.write_all(&bytes)?;
        if let Then::Stall = then {
            std::mem::forget(stream); // which would close it
        }
        Result::Ok(())
    };
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that disconnects does not concern the server.
            let _ = answer_on(stream);
        }
    });
}

/// An answer whose body has `length` bytes, of which these are sent.
pub fn response(status: &str, headers: &[String], length: usize, body: &[u8]) -> Vec<u8> {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}
