//! A worker seen from the bench.

use std::fmt::Display;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde::de::DeserializeOwned;

use super::protocol::parse;
use crate::terminal::interrupt;

/// The longest delay before Ctrl-C is noticed.
const PATIENCE: Duration = Duration::from_millis(50);
/// The maximum length of an answer's line in bytes.
const LONGEST_LINE: u64 = 1 << 26;

/// A process that computes on request, and is killed when this is dropped.
pub struct Worker {
    process: Child,
    requests: Option<ChildStdin>,
    answers: Receiver<String>,
    /// Its standard error.
    messages: File,
}

impl Worker {
    pub fn start(mut command: Command) -> Result<Worker> {
        let messages = tempfile::tempfile().context("cannot create a temporary file")?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(messages.try_clone()?);
        // Ctrl-C on a terminal reaches a whole process group; this process decides what happens to its
        // workers.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let program = command.get_program().to_string_lossy().into_owned();
        let mut process = command.spawn().with_context(|| format!("cannot start {program}"))?;
        let (requests, output) = (process.stdin.take(), process.stdout.take());
        let (said, answers) = sync_channel(1);
        let worker = Worker { process, requests, answers, messages };
        let output = output.context("the worker has no standard output")?;
        std::thread::spawn(move || pass_on(output, &said));
        Ok(worker)
    }

    /// The process's id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    pub fn ask<Answer: DeserializeOwned>(&mut self, request: impl Display) -> Result<Answer> {
        let sent = self.requests.as_mut().map(|requests| writeln!(requests, "{request}"));
        match sent {
            Some(Ok(())) => self.hear(),
            _ => Err(self.ended()),
        }
    }

    /// Reads its next message.
    pub fn hear<Answer: DeserializeOwned>(&mut self) -> Result<Answer> {
        loop {
            interrupt::check("the measurement is given up")?;
            match self.answers.recv_timeout(PATIENCE) {
                Ok(line) => return parse(&line),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(self.ended()),
            }
        }
    }

    /// How a worker that has fallen silent ended.
    fn ended(&mut self) -> anyhow::Error {
        let _ = self.process.kill(); // it has already ended, or breaks the protocol
        let status = match self.process.wait() {
            Ok(status) => format!("ended with {status}"),
            Err(error) => format!("ended: {error}"),
        };
        let messages = self.messages();
        match (out_of_memory(&messages), last_line(&messages)) {
            (Some(message), _) => anyhow!("{message}"),
            (None, Some(message)) => anyhow!("{status}: {message}"),
            (None, None) => anyhow!(status),
        }
    }

    /// What it wrote to standard error.
    fn messages(&mut self) -> String {
        let mut text = Vec::new();
        let _ = self.messages.rewind().and_then(|()| self.messages.read_to_end(&mut text)); // or what there is
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// The last line, without Rust's hint about backtraces.
fn last_line(messages: &str) -> Option<&str> {
    let mut lines = messages.lines().map(str::trim).rev();
    lines.find(|line| !line.is_empty() && !line.starts_with("note: run with"))
}

/// The line saying that a GPU ran out of memory and how much was requested, without PyTorch's advice and
/// whatever else follows.
fn out_of_memory(messages: &str) -> Option<&str> {
    let message = messages.lines().find_map(|line| line.find("CUDA out of memory").map(|at| &line[at..]))?;
    Some(message.split(". GPU ").next().unwrap_or(message).trim_end())
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.requests.take()); // ends any process that a script may have started
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Forwards lines until there are no more or the receiver is gone.
fn pass_on(output: ChildStdout, said: &SyncSender<String>) {
    let mut output = BufReader::new(output);
    loop {
        let mut line = Vec::new();
        match output.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) if said.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() => return,
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{last_line, out_of_memory};

    #[test]
    fn what_matters_of_messages() {
        let panic = "thread 'main' panicked\n\nno such operator\nnote: run with `RUST_BACKTRACE=1`\n";
        assert_eq!((out_of_memory(panic), last_line(panic)), (None, Some("no such operator")));
        assert_eq!(last_line("\n"), None);
        let wanted = "CUDA out of memory. Tried to allocate 1.88 GiB";
        let python = format!(
            "Traceback:\ntorch.OutOfMemoryError: {wanted}. GPU 0 has a total capacity of 79.11 GiB\n"
        );
        assert_eq!(out_of_memory(&python), Some(wanted));
        let libtorch =
            format!("error: Internal torch error: {wanted}. GPU 0 has\nException raised from malloc\n");
        assert_eq!(out_of_memory(&libtorch), Some(wanted));
    }
}
