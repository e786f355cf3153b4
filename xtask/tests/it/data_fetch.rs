//! Fetches GLUE's files from the hub and the web, both played by a server on this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::hub::User;
use crate::hub_server::{Fault, Hub, Model};
use crate::program::{Called, PROGRAM, directory, sha256, text};

const SST2: [&str; 4] =
    ["train-00000-of-00003", "train-00001-of-00003", "train-00002-of-00003", "validation-00000-of-00001"];

fn parquet() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../glue-eval/tests/goldens/parquet")
}

fn dataset(commit: &str) -> Model {
    Model::of_folders(&parquet(), commit)
}

/// A web folder with RTE as TSV files and CoLA as Parquet files.
fn site(tag: &str) -> Model {
    let header = "index\tsentence1\tsentence2\tlabel\n";
    let row = format!("0\tA cat sat {tag}.\tIt sat.\tentailment\n");
    let rows = format!("{header}{}", row.repeat(200));
    let rte = directory(&[("RTE/train.tsv", &rows), ("RTE/dev.tsv", &rows)]);
    let mut site = Model::of_folders(rte.path(), tag);
    let cola = dataset("a").files.into_iter().filter(|(name, _)| name.starts_with("cola/"));
    site.files.extend(cola);
    site
}

fn sums(site: &Model) -> Vec<u8> {
    site.files
        .iter()
        .map(|(name, file)| format!("{}  {name}\n", sha256(file)))
        .collect::<String>()
        .into_bytes()
}

/// A hub with a web folder, and a user who fetches RTE from it.
struct Web {
    hub: Hub,
    user: User,
}

impl Web {
    fn with(site: Model) -> Self {
        let hub = Hub::start();
        let user = User::of(&hub);
        hub.put("web/glue", site);
        Web { hub, user }
    }

    fn address(&self) -> String {
        format!("{}/web/glue/", self.hub.address)
    }

    fn fetch(&self, tasks: &str) -> Called {
        self.user.call(&["data", "fetch", &self.address(), "--output", "GLUE", "--tasks", tasks])
    }

    fn folder(&self) -> PathBuf {
        self.user.home.path().join("GLUE")
    }

    fn file(&self, name: &str) -> Vec<u8> {
        fs::read(self.folder().join(name)).expect("a file")
    }

    fn parts(&self) -> Vec<PathBuf> {
        let entries =
            fs::read_dir(self.folder().join("RTE")).map(Iterator::collect::<Vec<_>>).unwrap_or_default();
        let paths = entries.into_iter().map(|entry| entry.expect("an entry").path());
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "part")).collect()
    }

    /// The requests for a file, if any.
    fn requests(&self, name: &str) -> Vec<String> {
        self.hub.requests().into_iter().filter(|request| request.contains(name)).collect()
    }
}

#[test]
fn a_dataset_is_fetched_once_and_for_the_tasks_that_are_asked_for() {
    let hub = Hub::start();
    let user = User::of(&hub);
    hub.put("datasets/org/glue", dataset("a"));
    let check = ["data", "check", "hf:org/glue", "--tasks", "sst2"];
    let expected = crate::program::call(&["data", "check", text(&parquet()), "--tasks", "sst2"]).success();
    assert_eq!(user.call(&check).success(), expected);
    let requests = hub.requests();
    for name in SST2 {
        assert!(requests.iter().any(|request| request.contains(&format!("sst2/{name}.parquet"))), "{name}");
    }
    assert!(requests.iter().all(|request| !request.contains("cola")), "{requests:?}");

    hub.put("datasets/org/glue", Model { refused: Some(500), ..dataset("b") });
    assert_eq!(user.call_with(&check, &[("HF_HUB_OFFLINE", "1")]).success(), expected);
    assert_eq!(user.call(&check).success(), expected);
    let by_commit = format!("hf:org/glue@{}", "a".repeat(40));
    assert_eq!(user.call(&["data", "check", &by_commit, "--tasks", "sst2"]).success(), expected);
    assert_eq!(hub.requests(), [""; 0]);

    let more = ["data", "check", "hf:org/glue", "--tasks", "sst2,rte"];
    let offline = user.call_with(&more, &[("HF_HUB_OFFLINE", "1")]).failure();
    assert!(offline.contains("hf:org/glue is not in the cache at"), "{offline}");
    hub.put("datasets/org/glue", dataset("b"));
    user.call(&more).success();
}

#[test]
fn a_dataset_is_copied_into_a_folder() {
    let hub = Hub::start();
    let user = User::of(&hub);
    hub.put("datasets/org/glue", dataset("a"));
    let fetch = ["data", "fetch", "hf:org/glue", "--output", "GLUE", "--tasks", "cola,sst2"];
    let said = user.call(&fetch).success();
    assert_eq!(said, "7 files in GLUE, 7 of them fetched\nmissing: SST-2 test\n");
    assert!(user.call(&fetch).success().starts_with("7 files in GLUE, 0 of them fetched\n"));
    let glue = user.home.path().join("GLUE");
    for name in SST2.map(|name| format!("sst2/{name}.parquet")) {
        assert_eq!(fs::read(glue.join(&name)).expect("a file"), dataset("a").files[&name], "{name}");
    }
    let checked = user.call(&["data", "check", "GLUE"]).success();
    assert!(checked.ends_with("Files that agree with SHA256SUMS: 7\n"), "{checked}");
}

#[test]
fn what_cannot_be_fetched_says_why() {
    let web = Web::with(site("a"));
    let (hub, user) = (&web.hub, &web.user);
    let mut short = dataset("a");
    short.files.remove("cola/validation-00000-of-00001.parquet");
    hub.put("datasets/org/short", short);
    hub.put("datasets/org/gated", Model { refused: Some(403), ..dataset("a") });
    hub.put("web/broken", Model { refused: Some(503), ..site("a") });
    let sources = ["hf:org/short", "hf:org/gated", "hf:org/absent", "hf:org/short@v2"].map(str::to_owned);
    let addresses = ["web/broken", "web/glue/RTE"].map(|path| format!("{}/{path}", hub.address));
    let nobody = "http://127.0.0.1:1/glue".to_owned();
    let mut messages = String::new();
    for source in sources.into_iter().chain(addresses).chain([nobody]) {
        messages += &user.call(&["data", "fetch", &source, "--output", "GLUE"]).failure();
    }
    insta::assert_snapshot!(messages.replace(&hub.address, "SERVER").replace(text(user.home.path()), "HOME"));
    for source in ["GLUE", "hf:a/b/c", "https://", "ftp://host/glue", "https://host/glue?x"] {
        assert_eq!(user.call(&["data", "fetch", source, "--output", "GLUE"]).code, Some(2), "{source}");
    }
}

#[test]
fn a_folder_on_the_web_is_fetched_once() {
    let web = Web::with(site("a"));
    assert_eq!(web.fetch("rte,cola").success(), "5 files in GLUE, 5 of them fetched\nmissing: RTE test\n");
    for name in ["RTE/train.tsv", "RTE/dev.tsv", "cola/test-00000-of-00001.parquet"] {
        assert_eq!(web.file(name), site("a").files[name], "{name}");
    }
    web.hub.requests();
    web.hub.put("web/glue", site("b"));
    assert!(web.fetch("rte").success().starts_with("2 files in GLUE, 0 of them fetched"));
    assert_eq!(web.requests("RTE/train"), [""; 0]);
    let checked = web.user.call(&["data", "check", "GLUE"]).success();
    assert!(checked.ends_with("Files that agree with SHA256SUMS: 5\n"), "{checked}");

    // A file that has changed is noticed and fetched again.
    fs::write(web.folder().join("RTE/dev.tsv"), "damaged").expect("written");
    assert!(web.fetch("rte").success().starts_with("2 files in GLUE, 1 of them fetched"));
    assert_eq!(web.file("RTE/dev.tsv"), site("b").files["RTE/dev.tsv"]);
}

#[test]
fn sums_tell_which_files_there_are_and_which_are_right() {
    let mut shards = dataset("a");
    shards.files.insert("SHA256SUMS".into(), sums(&shards));
    let web = Web::with(shards);
    web.fetch("sst2").success();
    for name in SST2.map(|name| format!("sst2/{name}.parquet")) {
        assert_eq!(web.file(&name), dataset("a").files[&name], "{name}");
    }

    let mut site = site("a");
    site.files.insert("SHA256SUMS".into(), sums(&site));
    let web = Web::with(site);
    web.hub.fail(Fault::Garble);
    let message = web.fetch("rte").failure();
    assert!(message.contains("is thrown away: its hash is"), "{message}");
    assert!(!web.folder().join("RTE/train.tsv").exists());
    assert_eq!(web.parts(), [""; 0].map(PathBuf::from));
    web.hub.fail(Fault::None);
    web.fetch("rte").success();
    assert!(web.requests("RTE/train").iter().all(|request| request.ends_with("train.tsv")));
}

#[test]
fn a_broken_connection_is_taken_up_again() {
    let web = Web::with(site("a"));
    web.hub.fail(Fault::Break(2));
    web.fetch("rte").success();
    let requests = web.requests("RTE/train");
    assert_eq!(requests.len(), 3, "{requests:?}");
    assert!(requests[0].ends_with("train.tsv"), "{requests:?}");
    assert!(
        requests[1..].iter().all(|request| request.contains(" bytes=") && !request.ends_with("=0-")),
        "{requests:?}"
    );
    assert_eq!(web.file("RTE/train.tsv"), site("a").files["RTE/train.tsv"]);
    assert_eq!(web.parts().len(), 0);
}

#[test]
fn half_a_file_is_never_taken_for_whole() {
    let web = Web::with(site("a"));
    for (fault, problem) in [
        (Fault::Truncate, "does not say how long it is"),
        (Fault::Break(usize::MAX), "run the same command again to resume"),
    ] {
        web.hub.fail(fault);
        let message = web.fetch("rte").failure();
        assert!(message.contains(problem), "{message}");
        assert!(!web.folder().join("RTE/train.tsv").exists());
    }
    let [part] = web.parts().try_into().expect("one part");
    let there = fs::metadata(part).expect("a part").len();
    assert!(there > 0);
    web.hub.requests();
    web.hub.fail(Fault::None);
    web.fetch("rte").success();
    assert!(web.requests("RTE/train")[0].ends_with(&format!("bytes={there}-")));
    assert_eq!(web.file("RTE/train.tsv"), site("a").files["RTE/train.tsv"]);
}

/// A partial download of one version is not continued with another.
#[test]
fn a_file_that_has_changed_is_fetched_anew() {
    let web = Web::with(site("a"));
    web.hub.fail(Fault::Break(usize::MAX));
    web.fetch("rte").failure();
    assert_eq!(web.parts().len(), 1);
    web.hub.fail(Fault::None);
    web.hub.put("web/glue", site("b"));
    web.fetch("rte").success();
    assert_eq!(web.file("RTE/train.tsv"), site("b").files["RTE/train.tsv"]);
    assert_eq!(web.parts().len(), 0);
}

#[test]
fn who_is_killed_goes_on_where_it_stopped() {
    let web = Web::with(site("a"));
    web.hub.fail(Fault::Stall);
    let mut command = Command::new(PROGRAM);
    command.args(["data", "fetch", &web.address(), "--output", "GLUE", "--tasks", "rte"]);
    command.current_dir(web.user.home.path()).env("NO_PROXY", "127.0.0.1");
    let mut process =
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts");
    let length = || web.parts().first().and_then(|part| fs::metadata(part).ok()).map_or(0, |part| part.len());
    while length() < 1000 {
        assert!(process.try_wait().expect("the process's status").is_none(), "it ended");
        thread::sleep(Duration::from_millis(1));
    }
    process.kill().expect("the process is killed");
    process.wait().expect("the process's status");
    let there = length();
    web.hub.requests();
    web.hub.fail(Fault::None);
    web.fetch("rte").success();
    assert!(web.requests("RTE/train")[0].ends_with(&format!("bytes={there}-")));
    assert_eq!(web.file("RTE/train.tsv"), site("a").files["RTE/train.tsv"]);
}

/// A host answers with a page of its own and status 200.
#[test]
fn what_is_no_data_is_thrown_away() {
    let page = b"<!DOCTYPE html>\n<html><body>Quota exceeded</body></html>\n".to_vec();
    let header = b"index\tsentence1\tsentence2\tlabel\n".to_vec();
    let mut messages = String::new();
    for (name, content) in [
        ("RTE/train.tsv", page.clone()),
        ("RTE/dev.tsv", b"\n <HTML><head>".to_vec()),
        ("RTE/dev.tsv", b"{\"error\": \"unauthorized\"}\n".to_vec()),
        ("RTE/dev.tsv", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n".to_vec()),
        ("RTE/dev.tsv", header),
        ("RTE/dev.tsv", b"index\tsentence1\tsentence2\tlabel\n0\tx\n1\ty\n".to_vec()),
        ("RTE/dev.tsv", Vec::new()),
        ("cola/train-00000-of-00001.parquet", page.clone()),
        ("cola/train-00000-of-00001.parquet", b"Entry not found".to_vec()),
    ] {
        let mut site = site("a");
        site.files.insert(name.into(), content);
        let web = Web::with(site);
        let task = if name.starts_with("RTE") { "rte" } else { "cola" };
        let message = web.fetch(task).failure().replace(&web.hub.address, "SERVER");
        let errors = message.lines().filter(|line| line.starts_with("error"));
        messages.extend(errors.map(|line| format!("{line}\n")));
        assert!(!web.folder().join(name).exists(), "{name}");
        assert!(!web.folder().join("SHA256SUMS").exists());
        assert_eq!(web.parts().len(), 0);
    }
    insta::assert_snapshot!(messages);

    // A page in place of what may be missing counts as missing: the sums, and a test set.
    let mut site = site("a");
    site.files.insert("SHA256SUMS".into(), page.clone());
    site.files.insert("RTE/test.tsv".into(), page);
    let web = Web::with(site);
    assert_eq!(web.fetch("rte").success(), "2 files in GLUE, 2 of them fetched\nmissing: RTE test\n");
}

#[test]
fn only_what_was_fetched_is_replaced() {
    let mut site = site("a");
    site.files.insert("SHA256SUMS".into(), sums(&site));
    let web = Web::with(site.clone());
    fs::create_dir_all(web.folder().join("RTE")).expect("a directory");
    fs::write(web.folder().join("RTE/dev.tsv"), "mine").expect("written");
    let message = web.fetch("rte").failure();
    assert!(message.contains("RTE/dev.tsv is another file than the server's"), "{message}");
    assert_eq!(web.file("RTE/dev.tsv"), b"mine");
    fs::remove_file(web.folder().join("RTE/dev.tsv")).expect("removed");
    web.fetch("rte").success();

    web.hub.put("datasets/org/glue", dataset("a"));
    let train = web.folder().join("cola/train-00000-of-00001.parquet");
    fs::create_dir_all(train.parent().expect("a parent")).expect("a directory");
    fs::write(&train, "mine").expect("written");
    let fetch = ["data", "fetch", "hf:org/glue", "--output", "GLUE", "--tasks", "cola"];
    let message = web.user.call(&fetch).failure();
    assert!(message.contains("is another file than the server's"), "{message}");
    assert_eq!(fs::read(&train).expect("kept"), b"mine");
    fs::write(web.user.home.path().join("file"), "mine").expect("written");
    let message = web.user.call(&["data", "fetch", "hf:org/glue", "--output", "file"]).failure();
    assert!(message.contains("file exists and is not a directory"), "{message}");
}
