//! The page of runs under way, on this machine's own address.

use std::io::Cursor;
use std::net::Ipv4Addr;
use std::thread;

use anyhow::{Result, anyhow};
use pipeline::report::page::Live;
use tiny_http::{Header, Method, Request, Response, Server};

use crate::terminal::{asked, causes};

/// Requests answered at once: a browser opens several connections, and may be slow to read from one.
const WORKERS: usize = 4;

/// The names of this machine for itself. A page from elsewhere whose own name has been made to mean 127.0.0.1
/// asks under that name, and gets nothing.
const OWN_NAMES: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];

/// Shows the page until the process ends; port 0 stands for any that is free.
pub fn serve(live: &Live, port: u16) -> Result<()> {
    let server = Server::http((Ipv4Addr::LOCALHOST, port)).map_err(|error| {
        anyhow!("cannot listen on port {port} of 127.0.0.1: {error}; choose another with --port")
    })?;
    eprintln!("the page is at http://{}/ and follows the runs; Ctrl-C ends it", server.server_addr());
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Ok(request) = server.recv() {
                    let answer = answer(&request, live);
                    // A browser that has gone needs none.
                    let _ = request.respond(answer);
                }
            });
        }
    });
    Ok(())
}

fn answer(request: &Request, live: &Live) -> Response<Cursor<Vec<u8>>> {
    if let Some((status, text)) = refusal(request) {
        return with(Response::from_string(text).with_status_code(status), &[]);
    }
    let page = match live.page() {
        Ok(page) => page,
        // Perhaps a file is just being moved; the page asks again soon.
        Err(error) => {
            let text = format!("The runs cannot be read: {}.", causes(&error, asked()));
            return with(Response::from_string(text).with_status_code(503), &[]);
        }
    };
    let version = format!("\"{}\"", page.version);
    let known = header(request, "If-None-Match").is_some_and(|known| known == version);
    let response = match known {
        true => Response::from_data("").with_status_code(304),
        false => Response::from_data(page.html.as_bytes()),
    };
    with(response, &[("Content-Type", "text/html; charset=utf-8"), ("ETag", &version)])
}

/// Why a request gets no page.
fn refusal(request: &Request) -> Option<(u16, &'static str)> {
    let host = header(request, "Host").unwrap_or_default();
    let name =
        host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(host, |(name, _)| name);
    // A tunnel may have another port.
    if !OWN_NAMES.iter().any(|own| name.eq_ignore_ascii_case(own)) {
        return Some((403, "This page is for the machine it is on. Open it as 127.0.0.1 or localhost."));
    }
    if !matches!(request.method(), Method::Get | Method::Head) {
        return Some((405, "This page can only be read."));
    }
    (request.url() != "/").then_some((404, "There is only one page, and it is at /."))
}

fn header<'a>(request: &'a Request, name: &'static str) -> Option<&'a str> {
    request.headers().iter().find(|header| header.field.equiv(name)).map(|header| header.value.as_str())
}

/// The answer with these headers and those that all have.
fn with(mut response: Response<Cursor<Vec<u8>>>, headers: &[(&str, &str)]) -> Response<Cursor<Vec<u8>>> {
    let always = [
        ("Cache-Control", "no-cache"),
        // The page carries its own policy; this part of it only counts in a header.
        ("Content-Security-Policy", "frame-ancestors 'none'"),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
    ];
    for (name, value) in always.iter().chain(headers) {
        let header = Header::from_bytes(*name, *value);
        response.add_header(header.expect("these are characters that headers may have"));
    }
    response
}
