//! Writes TensorBoard's event files. (Existing crates for them depend on protoc, an outdated image library or
//! an HTTP client; a scalar takes twenty lines.)

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use fusion_core::Error;
use fusion_core::atomic::claim_new;
use prost::Message;

use crate::Result;

/// Appends scalars to a new file in `tensorboard/`.
pub struct TensorBoard {
    path: PathBuf,
    file: File,
}

impl TensorBoard {
    /// The files' directory in that of a run.
    pub const FOLDER: &str = "tensorboard";

    /// Starts a file in a run's directory. TensorBoard then ignores what earlier files say about steps after
    /// `step`.
    pub fn open(run_directory: &Path, step: u64) -> Result<Self> {
        let directory = run_directory.join(Self::FOLDER);
        fs::create_dir_all(&directory).map_err(Error::io("create", &directory))?;
        // TensorBoard reads files in order of their names.
        let mut seconds = wall_time() as u64;
        let (path, file) = loop {
            let name = format!("events.out.tfevents.{seconds:010}.t5-model");
            let path = directory.join(&name);
            match File::create_new(&path) {
                Ok(file) => {
                    claim_new(&directory, &[&name])?;
                    break (path, file);
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => seconds += 1,
                Err(error) => return Err(Error::io("create", &path)(error).into()),
            }
        };
        let mut board = TensorBoard { path, file };
        board.write(0, What::FileVersion("brain.Event:2".into()))?;
        let next = i64::try_from(step).unwrap_or(i64::MAX).saturating_add(1);
        board.write(next, What::SessionLog(SessionLog { status: SESSION_START }))?;
        Ok(board)
    }

    /// Adds the scalars of a step, as tags and values.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn append<T: Into<String>>(
        &mut self,
        step: u64,
        scalars: impl IntoIterator<Item = (T, f64)>,
    ) -> Result<()> {
        let value = |(tag, value): (T, f64)| Value { tag: tag.into(), simple_value: Some(value as f32) };
        let summary = Summary { value: scalars.into_iter().map(value).collect() };
        self.write(i64::try_from(step).unwrap_or(i64::MAX), What::Summary(summary))
    }

    fn write(&mut self, step: i64, what: What) -> Result<()> {
        let event = EventProto { wall_time: wall_time(), step, what: Some(what) };
        let written = self.file.write_all(&event.record());
        Ok(written.map_err(Error::io("write", &self.path))?)
    }
}

fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn masked_checksum(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// `SessionLog.SessionStatus.START`: the program started (again) at the event's step.
const SESSION_START: i32 = 1;

/// The parts of `tensorboard.Event` that are written here.
#[derive(Clone, PartialEq, Message)]
struct EventProto {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    what: Option<What>,
}

impl EventProto {
    /// TFRecord: the length, its checksum, the data, its checksum.
    fn record(&self) -> Vec<u8> {
        let data = self.encode_to_vec();
        let length = (data.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(data.len() + 16);
        record.extend(length);
        record.extend(masked_checksum(&length).to_le_bytes());
        record.extend(&data);
        record.extend(masked_checksum(&data).to_le_bytes());
        record
    }
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The output of TensorBoard's own writer for the same events:
    ///
    /// ```python
    /// from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    /// from tensorboard.compat.proto.summary_pb2 import Summary
    /// from tensorboard.summary.writer.record_writer import RecordWriter
    /// writer = RecordWriter(file)
    /// loss, eval = Summary.Value(tag="train/loss", simple_value=2.5), Summary.Value(tag="eval/loss", simple_value=0)
    /// for event in [
    ///     Event(wall_time=1.5, file_version="brain.Event:2"),
    ///     Event(wall_time=1.5, step=8, session_log=SessionLog(status=SessionLog.START)),
    ///     Event(wall_time=1.5, step=7, summary=Summary(value=[loss, eval])),
    /// ]:
    ///     writer.write(event.SerializeToString())
    /// ```
    const GOLDEN: &str = "\
        1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c\
        0f000000000000006d532b0909000000000000f83f10083a0208019571c7d1\
        3200000000000000241956ec09000000000000f83f10072a250a110a0a747261696e2f6c6f7373150000\
        20400a100a096576616c2f6c6f7373150000000091b32051";

    #[test]
    fn records_are_tensorboards() {
        let value = |tag: &str, value| Value { tag: tag.into(), simple_value: Some(value) };
        let summary = Summary { value: vec![value("train/loss", 2.5), value("eval/loss", 0.0)] };
        let events = [
            (0, What::FileVersion("brain.Event:2".into())),
            (8, What::SessionLog(SessionLog { status: SESSION_START })),
            (7, What::Summary(summary)),
        ];
        let records =
            events.map(|(step, what)| EventProto { wall_time: 1.5, step, what: Some(what) }.record());
        let hex: String = records.concat().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, GOLDEN);
    }
}
