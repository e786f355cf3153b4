//! Files and directories that are there in full or not at all.

use std::fs;
use std::path::Path;

use fusion_core::atomic::{
    Place, RECORD, check_file, claim, remove_written, write_directory_atomically, write_file_atomically,
    write_own_file,
};
use fusion_core::{Error, Result};

/// The names and contents in a directory, sorted, without the record of what was written.
fn content(directory: &Path) -> Vec<(String, String)> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name() != RECORD)
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

/// Everything below a directory, with the content of files, sorted.
fn tree(directory: &Path) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (name, text) in content(directory) {
        if text == "<dir>" {
            let below = tree(&directory.join(&name));
            all.extend(below.into_iter().map(|(path, text)| (format!("{name}/{path}"), text)));
        } else {
            all.push((name, text));
        }
    }
    all
}

fn write_files(path: &Path, files: &[(&str, &str)]) -> Result<()> {
    write_directory_atomically(path, |directory| {
        files
            .iter()
            .try_for_each(|(name, text)| write_file_atomically(&directory.join(name), text.as_bytes()))
    })
}

/// What is written to a directory first and then.
const OLD: [(&str, &str); 4] =
    [("config.json", "old"), ("model-1.safetensors", "old"), ("plan.txt", "old"), ("sub/a", "old")];
const NEW: [(&str, &str); 3] = [("config.json", "new"), ("model.safetensors", "new"), ("sub/b", "new")];

fn pairs(files: &[&[(&str, &str)]]) -> Vec<(String, String)> {
    let mut pairs: Vec<_> = files.concat().iter().map(|(name, text)| pair(name, text)).collect();
    pairs.sort();
    pairs
}

#[test]
fn files_of_others_are_kept() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("model");
    write_files(&path, &OLD).unwrap();
    let own = [("NOTES.md", "mine"), (".git/HEAD", "mine"), ("sub/mine", "mine")];
    for (name, text) in own {
        fs::create_dir_all(path.join(name).parent().unwrap()).unwrap();
        fs::write(path.join(name), text).unwrap();
    }
    write_files(&path, &NEW).unwrap();
    assert_eq!(tree(&path), pairs(&[&own, &NEW]));
    write_files(&path, &OLD).unwrap();
    assert_eq!(tree(&path), pairs(&[&own, &OLD]));
    assert_eq!(content(parent.path()), [pair("model", "<dir>")]);
}

#[test]
fn what_others_wrote_is_not_replaced() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("model");
    let refused = |files: &[(&str, &str)]| {
        let before = tree(parent.path());
        let message = write_files(&path, files).unwrap_err().to_string();
        assert_eq!(tree(parent.path()), before, "nothing has changed");
        message.replace(parent.path().to_str().unwrap(), "DIR")
    };
    fs::create_dir(&path).unwrap();
    fs::write(path.join("notes"), "").unwrap();
    insta::assert_snapshot!(refused(&NEW), @"DIR/model is not empty, and nothing in it was written by this program");
    fs::remove_file(path.join("notes")).unwrap();
    write_files(&path, &OLD).unwrap();
    fs::write(path.join("model.safetensors"), "mine").unwrap();
    insta::assert_snapshot!(refused(&NEW), @"DIR/model/model.safetensors was not written by this program, so it is not replaced");
    // A file where a directory would have to be.
    fs::rename(path.join("model.safetensors"), path.join("deeper")).unwrap();
    insta::assert_snapshot!(refused(&[("deeper/x", "")]), @"DIR/model/deeper was not written by this program, so it is not replaced");
    fs::write(path.join("sub/a"), "mine").unwrap();
    insta::assert_snapshot!(refused(&NEW), @"DIR/model/sub/a was changed after this program wrote it, so it is not replaced");
    // Nor is what a link under a name of ours leads to.
    fs::rename(path.join("sub/a"), path.join("kept")).unwrap();
    std::os::unix::fs::symlink("../kept", path.join("sub/a")).unwrap();
    insta::assert_snapshot!(refused(&NEW), @"DIR/model/sub/a was changed after this program wrote it, so it is not replaced");
    // What is gone is no reason to refuse.
    fs::remove_file(path.join("sub/a")).unwrap();
    write_files(&path, &NEW).unwrap();
    assert_eq!(tree(&path), pairs(&[&NEW, &[("deeper", "mine"), ("kept", "mine")]]));
}

/// Large files are recognised by samples.
#[test]
fn large_files_are_recognised() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("model");
    let large = "0123456789abcdef".repeat(300_000);
    write_files(&path, &[("model.safetensors", &large)]).unwrap();
    let copy = parent.path().join("copy");
    fs::create_dir(&copy).unwrap();
    for name in ["model.safetensors", RECORD] {
        fs::copy(path.join(name), copy.join(name)).unwrap();
    }
    write_files(&copy, &NEW).unwrap();
    assert_eq!(tree(&copy), pairs(&[&NEW]));
    fs::write(path.join("model.safetensors"), large.replace('a', "A")).unwrap();
    write_files(&path, &NEW).unwrap_err();
    fs::write(path.join("model.safetensors"), &large[1..]).unwrap();
    write_files(&path, &NEW).unwrap_err();
    fs::write(path.join("model.safetensors"), &large).unwrap();
    write_files(&path, &NEW).unwrap();
}

/// A volume, a repository, a folder with other permissions: empty or with hidden files, it stays the same directory.
#[test]
fn free_directories_are_filled() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("volume");
    fs::create_dir_all(path.join(".git")).unwrap();
    fs::create_dir(path.join("lost+found")).unwrap();
    fs::write(path.join(".git/HEAD"), "x").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o2775)).unwrap();
    let inode = fs::metadata(&path).unwrap().ino();
    assert!(Place::of(&path).unwrap().is_free().unwrap());
    write_files(&path, &OLD).unwrap();
    write_files(&path, &NEW).unwrap();
    assert_eq!(tree(&path), pairs(&[&NEW, &[(".git/HEAD", "x")]]));
    let found = fs::metadata(&path).unwrap();
    assert_eq!((found.ino(), found.mode() & 0o7777), (inode, 0o2775));
    // A directory that is replaced as a whole keeps its permissions, too.
    let whole = parent.path().join("whole");
    write_files(&whole, &OLD).unwrap();
    fs::set_permissions(&whole, fs::Permissions::from_mode(0o750)).unwrap();
    write_files(&whole, &NEW).unwrap();
    assert_eq!(fs::metadata(&whole).unwrap().mode() & 0o7777, 0o750);
}

#[test]
fn links_and_dots_name_directories() {
    let parent = tempfile::tempdir().unwrap();
    let at = |name: &str| parent.path().join(name);
    fs::create_dir_all(at("disk/a")).unwrap();
    for (link, target) in [("link", "disk/a"), ("chain", "link"), ("broken", "disk/none"), ("loop", "loop")] {
        std::os::unix::fs::symlink(target, at(link)).unwrap();
    }
    for name in ["link", "link/", "chain/.", "disk/a/../a", "disk/../link", "disk/a/"] {
        write_files(&at(name), &OLD).unwrap();
        write_files(&at(name), &NEW).unwrap();
        assert_eq!(tree(&at("disk")), pairs(&[&NEW]).map_names("a/"), "{name}");
    }
    assert!(at("link").is_symlink() && at("chain").is_symlink());
    for name in ["new/", "link/below/.", "disk/a/../b/c"] {
        write_files(&at(name), &NEW).unwrap();
        assert_eq!(tree(&at(name)), pairs(&[&NEW]), "{name}");
    }
    let refused = ["broken", "broken/x", "loop", "none/..", ""].map(|name| {
        let path = if name.is_empty() { Path::new("").into() } else { at(name) };
        write_files(&path, &NEW).unwrap_err().to_string()
    });
    insta::assert_snapshot!(refused.join("\n").replace(parent.path().to_str().unwrap(), "DIR"));
}

trait MapNames {
    fn map_names(self, prefix: &str) -> Self;
}

impl MapNames for Vec<(String, String)> {
    fn map_names(self, prefix: &str) -> Self {
        self.into_iter().map(|(name, text)| (format!("{prefix}{name}"), text)).collect()
    }
}

/// With a parent that cannot be written to, as a user's folder on a shared disk. (Root may write anywhere.)
#[test]
fn only_the_directory_itself_need_be_writable() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("mine");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let written = [&OLD[..], &NEW].map(|files| write_files(&path, files));
    fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o755)).unwrap();
    written.into_iter().for_each(Result::unwrap);
    assert_eq!(tree(&path), pairs(&[&NEW]));

    fs::set_permissions(&path, fs::Permissions::from_mode(0o555)).unwrap();
    let is_root = fs::write(path.join("probe"), "").is_ok();
    let place = Place::of(&path);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(place.is_ok(), is_root);
}

#[test]
fn names_may_be_as_long_as_the_file_system_allows() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("ü".repeat(127));
    write_files(&path, &OLD).unwrap();
    write_files(&path, &NEW).unwrap();
    write_file_atomically(&path.join("x".repeat(255)), b"").unwrap();
    assert_eq!(content(parent.path()).len(), 1);
}

#[test]
fn names_are_claimed_before_the_work() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("run");
    claim(&path, &["log", "model"]).unwrap();
    fs::write(path.join("log"), "1").unwrap();
    fs::write(path.join("mine"), "").unwrap();
    claim(&path, &["log", "model"]).unwrap();
    let refused = claim(&path, &["log", "mine"]).unwrap_err().to_string();
    assert!(refused.contains("run/mine was not written by this program"), "{refused}");
    write_files(&path.join("model"), &OLD).unwrap();
    fs::write(path.join("model/mine"), "").unwrap();
    // A file that changes over time is this program's whatever is in it.
    fs::write(path.join("log"), "2").unwrap();
    assert!(remove_written(&path).unwrap(), "something is left");
    assert_eq!(tree(&path), [pair("mine", ""), pair("model/mine", "")]);
    fs::remove_file(path.join("mine")).unwrap();
    fs::remove_dir_all(path.join("model")).unwrap();
    claim(&path, &["log"]).unwrap();
    assert!(!remove_written(&path).unwrap());
    assert!(!path.exists());
}

#[test]
fn a_report_that_was_edited_is_kept() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("run");
    for text in ["one", "two", "two"] {
        write_own_file(&path, "report.md", text.as_bytes()).unwrap();
        claim(&path, &["report.md"]).unwrap();
    }
    fs::write(path.join("report.md"), "mine").unwrap();
    for refused in [claim(&path, &["report.md"]), write_own_file(&path, "report.md", b"three")] {
        let message = refused.unwrap_err().to_string();
        assert!(message.contains("run/report.md was changed after this program wrote it"), "{message}");
    }
    fs::write(path.join("other.md"), "mine").unwrap();
    write_own_file(&path, "other.md", b"three").unwrap_err();
    assert_eq!(content(&path), [pair("other.md", "mine"), pair("report.md", "mine")]);
}

#[test]
fn files_go_where_links_lead_and_replace_nothing_else() {
    let parent = tempfile::tempdir().unwrap();
    let at = |name: &str| parent.path().join(name);
    fs::create_dir(at("disk")).unwrap();
    fs::write(at("disk/a"), "old").unwrap();
    for (link, target) in [("link", "disk/a"), ("broken", "disk/none")] {
        std::os::unix::fs::symlink(target, at(link)).unwrap();
    }
    check_file(&at("link")).unwrap();
    write_file_atomically(&at("link"), b"new").unwrap();
    assert!(at("link").is_symlink());
    assert_eq!(fs::read_to_string(at("disk/a")).unwrap(), "new");
    let refused = [at("broken"), at("disk"), "/dev/null".into(), at("disk/a/x"), at("disk/.."), "".into()];
    let messages = refused.map(|path| {
        let early = check_file(&path).unwrap_err().to_string();
        let late = write_file_atomically(&path, b"").unwrap_err().to_string();
        if early == late { early } else { format!("{early} | {late}") }
    });
    insta::assert_snapshot!(messages.join("\n").replace(parent.path().to_str().unwrap(), "DIR"));
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
        write(&directory.join(".."), "x").unwrap_err(),
        write_file_atomically(&directory, b"").unwrap_err(),
    ];
    let text = messages.map(|error| error.to_string()).join("\n");
    insta::assert_snapshot!(text.replace(parent.path().to_str().unwrap(), "DIR"));
}
