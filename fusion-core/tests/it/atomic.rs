//! Files and directories that are there in full or not at all.

use std::fs;
use std::path::Path;

use fusion_core::atomic::{write_directory_atomically, write_file_atomically};
use fusion_core::{Error, Result};

/// The names and contents in a directory, sorted.
fn content(directory: &Path) -> Vec<(String, String)> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let text = if entry.path().is_dir() {
                "<dir>".into()
            } else {
                fs::read_to_string(entry.path()).unwrap()
            };
            (entry.file_name().into_string().unwrap(), text)
        })
        .collect();
    files.sort();
    files
}

fn pair(name: &str, text: &str) -> (String, String) {
    (name.into(), text.into())
}

fn write(path: &Path, name: &str) -> Result<()> {
    write_directory_atomically(path, |directory| {
        fs::create_dir(directory.join("deeper")).map_err(Error::io("create", directory))?;
        write_file_atomically(&directory.join(name), name.as_bytes())
    })
}

#[test]
fn directories_are_created_and_replaced() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("not/yet/there");
    write(&path, "one").unwrap();
    assert_eq!(content(&path), [pair("deeper", "<dir>"), pair("one", "one")]);
    write(&path, "two").unwrap();
    assert_eq!(content(&path), [pair("deeper", "<dir>"), pair("two", "two")]);
    assert_eq!(content(path.parent().unwrap()), [pair("there", "<dir>")]);
}

#[test]
fn the_old_directory_stays_until_the_new_one_is_complete() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("model");
    write(&path, "old").unwrap();
    write_directory_atomically(&path, |directory| -> Result<()> {
        assert_ne!(directory, path);
        assert_eq!(content(&path), [pair("deeper", "<dir>"), pair("old", "old")]);
        Ok(())
    })
    .unwrap();
    assert_eq!(content(&path), []);
}

#[test]
fn a_failure_changes_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("model");
    let fail = |directory: &Path| -> Result<()> {
        fs::write(directory.join("half"), "").unwrap();
        let full = std::io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error());
        Err(Error::io("write", "model/half")(full))
    };
    insta::assert_snapshot!(
        write_directory_atomically(&path, fail).unwrap_err(),
        @"cannot write model/half: No space left on device (os error 28)"
    );
    assert_eq!(content(parent.path()), []);
    write(&path, "old").unwrap();
    write_directory_atomically(&path, fail).unwrap_err();
    assert_eq!(content(&path), [pair("deeper", "<dir>"), pair("old", "old")]);
    assert_eq!(content(parent.path()), [pair("model", "<dir>")]);
    // Also if the closure panics.
    let panicked = std::panic::catch_unwind(|| {
        write_directory_atomically(&path, |_| -> Result<()> { panic!("out of ideas") })
    });
    assert!(panicked.is_err());
    assert_eq!(content(parent.path()), [pair("model", "<dir>")]);
}

#[test]
fn leftovers_of_dead_processes_are_removed() {
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let dead = child.id();
    child.wait().unwrap();
    let alive = std::process::id();
    let parent = tempfile::tempdir().unwrap();
    let leftover = |name: String| {
        fs::create_dir(parent.path().join(&name)).unwrap();
        fs::write(parent.path().join(&name).join("half"), "").unwrap();
        (name, "<dir>".to_string())
    };
    leftover(format!(".model.{dead}-0.partial"));
    let mut kept = vec![
        leftover(format!(".model.{alive}-999999.partial")),
        leftover(format!(".other.{dead}-0.partial")),
        leftover(format!(".model.{dead}-x.partial")),
        leftover(format!(".model.{dead}-0")),
        leftover(".model.-1-0.partial".into()),
    ];
    kept.push(pair("model", "<dir>"));
    kept.sort();
    write(&parent.path().join("model"), "x").unwrap();
    assert_eq!(content(parent.path()), kept);
}

#[test]
fn files_are_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deeper/config.json");
    write_file_atomically(&path, b"one").unwrap();
    write_file_atomically(&path, b"two").unwrap();
    assert_eq!(content(path.parent().unwrap()), [pair("config.json", "two")]);
}

#[test]
fn error_messages() {
    let parent = tempfile::tempdir().unwrap();
    let file = parent.path().join("file");
    fs::write(&file, "").unwrap();
    let directory = parent.path().join("directory");
    fs::create_dir(&directory).unwrap();
    let messages = [
        write(&file, "x").unwrap_err(),
        write(&file.join("below"), "x").unwrap_err(),
        write(Path::new("/"), "x").unwrap_err(),
        write(&parent.path().join(".."), "x").unwrap_err(),
        write_file_atomically(&directory, b"").unwrap_err(),
    ];
    let text = messages.map(|error| error.to_string()).join("\n");
    insta::assert_snapshot!(text.replace(parent.path().to_str().unwrap(), "DIR"));
}
