//! Models from the Hugging Face Hub, played by a server on this machine.

use std::fs;
use std::path::{Path, PathBuf};

use crate::hub_server::{Fault, Hub, Model};
use crate::program::{Called, call_with, directory, golden, text};

/// Runs the program with its own cache.
pub struct User {
    pub home: tempfile::TempDir,
    address: String,
}

impl User {
    pub fn of(hub: &Hub) -> Self {
        User { home: directory(&[]), address: hub.address.clone() }
    }

    pub fn call(&self, arguments: &[&str]) -> Called {
        self.call_with(arguments, &[])
    }

    pub fn call_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Called {
        let own = [
            ("HF_HOME", text(self.home.path())),
            ("HF_ENDPOINT", self.address.as_str()),
            ("HF_HUB_OFFLINE", ""),
            ("HF_TOKEN", ""),
            ("NO_PROXY", "127.0.0.1"),
        ];
        call_with(self.home.path(), arguments, &[&own, environment].concat())
    }

    /// The hash of a model's weights.
    fn hash(&self, model: &str) -> String {
        hash(&self.call(&["inspect", model, "--json"]).success())
    }

    fn snapshot(&self, commit: &str) -> PathBuf {
        self.home.path().join("hub/models--org--small/snapshots").join(commit.repeat(40))
    }
}

fn hash(inspected: &str) -> String {
    let inspected: serde_json::Value = serde_json::from_str(inspected).expect("JSON");
    inspected["blake3"].as_str().expect("a hash").to_owned()
}

fn hash_of(model: &Path) -> String {
    hash(&crate::program::call(&["inspect", text(model), "--json"]).success())
}

/// Transformers' small T5 at a commit, with an extra tokenizer file.
fn small(commit: &str) -> Model {
    let mut model = Model::of(&golden("v1_1"), commit);
    model.files.insert("tokenizer_config.json".into(), b"{}".into());
    model
}

#[test]
fn a_model_is_fetched_once() {
    let hub = Hub::start();
    let user = User::of(&hub);
    hub.put("org/small", small("a"));
    let expected = hash_of(&golden("v1_1"));
    assert_eq!(user.hash("hf:org/small"), expected);
    assert!(hub.requests().iter().any(|request| request.contains("model.safetensors")));

    // Neither the newer model nor the hub is queried.
    hub.put("org/small", Model { refused: Some(500), ..small("b") });
    assert_eq!(user.hash("hf:org/small"), expected);
    assert_eq!(user.hash(&format!("hf:org/small@{}", "a".repeat(40))), expected);
    let offline = user.call_with(&["inspect", "hf:org/small", "--json"], &[("HF_HUB_OFFLINE", "1")]);
    assert_eq!(hash(&offline.success()), expected);
    assert_eq!(hub.requests(), [""; 0]);
}

#[test]
fn weights_are_chosen_as_in_directories() {
    let hub = Hub::start();
    let user = User::of(&hub);
    let weights = |model: &Model| model.files["model.safetensors"].clone();
    let mut both = small("a");
    both.files.insert("pytorch_model.bin".into(), b"not looked at".into());
    hub.put("org/both", both.clone());
    assert_eq!(user.hash("hf:org/both"), hash_of(&golden("v1_1")));
    assert!(hub.requests().iter().all(|request| !request.contains("pytorch_model.bin")));

    both.files.insert("pytorch_model.bin".into(), weights(&both));
    both.files.remove("model.safetensors");
    hub.put("org/bin", both);
    assert_eq!(user.hash("hf:org/bin"), hash_of(&golden("v1_1")));

    let (whole, shards) = (golden("v1_1"), user.home.path().join("shards"));
    let export = ["export", text(&whole), "--output", text(&shards), "--max-shard-size", "20kB"];
    user.call(&export).success();
    hub.put("org/shards", Model::of(&shards, "c"));
    assert_eq!(user.hash("hf:org/shards"), hash_of(&shards));
    assert!(hub.requests().iter().any(|request| request.contains("model-00002-of-")));
}

#[test]
fn a_broken_connection_is_taken_up_again() {
    let hub = Hub::start();
    let user = User::of(&hub);
    hub.put("org/small", small("a"));
    hub.fail(Fault::Break(2));
    assert_eq!(user.hash("hf:org/small"), hash_of(&golden("v1_1")));
    let downloads: Vec<String> = hub
        .requests()
        .into_iter()
        .filter(|request| request.contains("cdn") && request.ends_with('-'))
        .collect();
    assert_eq!(downloads.len(), 3, "{downloads:?}");
    assert!(downloads[0].ends_with("bytes=0-"), "{downloads:?}");
    assert!(!downloads[1].ends_with("bytes=0-"), "{downloads:?}");
}

#[test]
fn half_a_file_is_never_taken_for_whole() {
    let hub = Hub::start();
    let user = User::of(&hub);
    hub.put("org/small", small("a"));
    for (fault, problem) in [
        (Fault::Break(usize::MAX), "cannot fetch model.safetensors"),
        (Fault::Truncate, "bytes arrived, but the hub announced"),
        (Fault::Garble, "its hash is"),
    ] {
        hub.fail(fault);
        let message = user.call(&["inspect", "hf:org/small"]).failure();
        assert!(message.contains(problem), "{message}");
        assert!(!user.snapshot("a").join("model.safetensors").exists());
        let offline = user.call_with(&["inspect", "hf:org/small"], &[("HF_HUB_OFFLINE", "1")]).failure();
        assert!(offline.contains("not in the cache"), "{offline}");
    }
    hub.fail(Fault::None);
    assert_eq!(user.hash("hf:org/small"), hash_of(&golden("v1_1")));
}

#[test]
fn what_cannot_be_fetched_says_why() {
    let hub = Hub::start();
    let user = User::of(&hub);
    let without = |name: &str| {
        let mut model = small("a");
        model.files.remove(name);
        model
    };
    hub.put("org/small", small("a"));
    hub.put("org/gated", Model { refused: Some(403), ..small("a") });
    hub.put("org/broken", Model { refused: Some(503), ..small("a") });
    hub.put("org/configless", without("config.json"));
    hub.put("org/weightless", without("model.safetensors"));
    let mut messages = String::new();
    for model in ["absent", "gated", "broken", "configless", "weightless", "small@v2"] {
        messages += &user.call(&["inspect", &format!("hf:org/{model}")]).failure();
    }
    messages += &user.call_with(&["inspect", "hf:org/small"], &[("HF_HUB_OFFLINE", "1")]).failure();
    let nobody = "http://127.0.0.1:1";
    messages += &user.call_with(&["inspect", "hf:org/small"], &[("HF_ENDPOINT", nobody)]).failure();
    insta::assert_snapshot!(messages.replace(text(user.home.path()), "HOME"));

    let misspelt = user.call(&["inspect", "hf:org/small/x"]);
    assert_eq!(misspelt.code, Some(2));
    assert!(misspelt.stderr.contains("hf:ORG/NAME[@REVISION]"), "{}", misspelt.stderr);
}

/// A stage counts as finished for the weights that were fetched, not for their name.
#[test]
fn recipes_take_them() {
    let hub = Hub::start();
    let user = User::of(&hub);
    let parent = |name: &str, commit: &str| Model::of(&golden(&format!("fusion/untied/{name}")), commit);
    hub.put("org/small", parent("parent_0", "a"));
    hub.put("org/other", parent("parent_1", "a"));
    let recipe = "[stages.fused]\nkind = \"fuse\"\nparents = [\"hf:org/small\", \"hf:org/other\"]\n";
    fs::write(user.home.path().join("recipe.toml"), recipe).expect("written");
    let run = |more: &[&str]| user.call(&[&["run", "recipe.toml", "--output", "out"], more].concat());
    run(&[]).success();
    let child = user.home.path().join("out/fused/model");
    let (small, other) = ("hf:org/small", "hf:org/other");
    user.call(&["fuse", small, other, "--output", "fused"]).success();
    assert_eq!(hash_of(&child), hash_of(&user.home.path().join("fused")));
    user.call(&["verify", text(&child), small, other]).success();
    assert!(run(&[]).stderr.contains("fused: finished before"));

    fs::remove_dir_all(user.home.path().join("hub/models--org--small")).expect("removed");
    hub.put("org/small", parent("parent_1", "b"));
    let changed = run(&[]).failure();
    assert!(changed.contains("its input \"hf:org/small\" is another"), "{changed}");

    let misspelt = recipe.replace("org/other", "org//other");
    fs::write(user.home.path().join("recipe.toml"), misspelt).expect("written");
    let message = run(&[]).failure();
    assert!(message.contains("recipe.toml:3:28") && message.contains("hf:ORG/NAME[@REVISION]"), "{message}");
}

/// A model in a cache as huggingface_hub writes one: blobs, and links to them from snapshots.
fn cache(folder: &Path, model: &Path) {
    let repository = folder.join("models--org--tiny");
    let snapshot = repository.join("snapshots").join("0123".repeat(10));
    for folder in [repository.join("blobs"), repository.join("refs"), snapshot.clone()] {
        fs::create_dir_all(folder).expect("a directory");
    }
    for name in ["config.json", "model.safetensors"] {
        fs::copy(model.join(name), repository.join("blobs").join(name)).expect("copied");
        std::os::unix::fs::symlink(Path::new("../../blobs").join(name), snapshot.join(name)).expect("a link");
    }
    // Other programs may end the line.
    fs::write(repository.join("refs/main"), format!("{}\n", "0123".repeat(10))).expect("written");
    fs::create_dir(repository.join("refs/refs")).expect("a directory");
    fs::write(repository.join("refs/refs/pr"), "0123".repeat(10)).expect("written");
}

#[test]
fn caches_are_found_where_hugging_faces_libraries_have_them() {
    let hub = Hub::start();
    let user = User::of(&hub);
    let disk = user.home.path().join("big disk");
    cache(&disk, &golden("v1_1"));
    cache(&user.home.path().join("elsewhere/hub"), &golden("v1_0"));
    let (big, other) = (hash_of(&golden("v1_1")), hash_of(&golden("v1_0")));
    let elsewhere = user.home.path().join("elsewhere");
    let (disk, elsewhere, home) = (text(&disk), text(&elsewhere), text(user.home.path()));
    let nowhere = ("HUGGINGFACE_HUB_CACHE", "/nowhere");
    for (environment, expected) in [
        (vec![("HF_HUB_CACHE", disk)], &big),
        (vec![("HF_HUB_CACHE", disk), nowhere], &big),
        (vec![("HUGGINGFACE_HUB_CACHE", disk)], &big),
        (vec![("HF_HUB_CACHE", "~/big disk"), ("HOME", home)], &big),
        (vec![("HF_HUB_CACHE", "$DISK/big disk\n"), ("DISK", home)], &big),
        (vec![("HF_HOME", elsewhere)], &other),
        (vec![("HF_HOME", elsewhere), ("HF_HUB_CACHE", disk)], &big),
    ] {
        for offline in ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"] {
            let environment = [&environment[..], &[(offline, "1")]].concat();
            for revision in ["", "@main", "@refs/pr", &format!("@{}", "0123".repeat(10))] {
                let name = format!("hf:org/tiny{revision}");
                let inspected = user.call_with(&["inspect", &name, "--json"], &environment).success();
                assert_eq!(&hash(&inspected), expected, "{environment:?} {name}");
            }
        }
    }
    let absent = [("HF_HUB_CACHE", disk), ("HF_HUB_OFFLINE", "1")];
    for name in ["hf:org/tiny@v2", "hf:org/none"] {
        let message = user.call_with(&["inspect", name], &absent).failure();
        assert!(message.contains(&format!("{name} is not in the cache at {disk}")), "{message}");
    }
    assert_eq!(hub.requests(), [""; 0]);

    // Online, it is asked for a tokenizer, unless it is known that there is none.
    let environment = [("HF_HUB_CACHE", disk)];
    user.call_with(&["inspect", "hf:org/tiny"], &environment).success();
    assert_ne!(hub.requests(), [""; 0]);
    let known = Path::new(disk).join("models--org--tiny/.no_exist").join("0123".repeat(10));
    fs::create_dir_all(&known).expect("a directory");
    for name in ["tokenizer.json", "spiece.model"] {
        fs::write(known.join(name), "").expect("written");
    }
    user.call_with(&["inspect", "hf:org/tiny"], &environment).success();
    assert_eq!(hub.requests(), [""; 0]);
}

#[test]
fn tokens_arrive_clean_and_are_never_shown() {
    let hub = Hub::start();
    let user = User::of(&hub);
    hub.put("org/small", small("a"));
    let file = user.home.path().join("secret");
    fs::write(&file, "  hf_file\r\n").expect("written");
    let none = ("HF_TOKEN", "");
    for (environment, expected) in [
        (vec![none], ""),
        (vec![("HF_TOKEN", "hf_one\n")], "Bearer hf_one"),
        (vec![("HF_TOKEN", " hf_\r\none ")], "Bearer hf_one"),
        (vec![("HF_TOKEN", "hf_one"), ("HUGGING_FACE_HUB_TOKEN", "hf_old")], "Bearer hf_one"),
        (vec![none, ("HUGGING_FACE_HUB_TOKEN", "hf_old\n")], "Bearer hf_old"),
        (vec![none, ("HF_TOKEN_PATH", text(&file))], "Bearer hf_file"),
        (vec![("HF_TOKEN", "hf_one"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")], ""),
        (vec![none, ("HF_TOKEN_PATH", text(&file)), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "TRUE")], ""),
    ] {
        user.call_with(&["inspect", "hf:org/absent"], &environment).failure();
        assert_eq!(hub.tokens(), [expected], "{environment:?}");
    }
    fs::write(user.home.path().join("token"), "hf_home\n").expect("written");
    user.call(&["inspect", "hf:org/absent"]).failure();
    assert_eq!(hub.tokens(), ["Bearer hf_home"]);
    for token in ["hf_sec ret", "hf_secrét", "hf_sec\tret"] {
        let message = user.call_with(&["inspect", "hf:org/small"], &[("HF_TOKEN", token)]).failure();
        assert!(message.contains("what is in HF_TOKEN is no token"), "{message}");
        assert!(!message.contains("hf_sec"), "{message}");
    }

    let slash = format!("{}/\n", hub.address);
    hub.requests();
    user.call_with(&["inspect", "hf:org/small"], &[("HF_ENDPOINT", &slash)]).success();
    assert!(hub.requests().iter().all(|request| !request.starts_with("//")));
    let message = user.call_with(&["inspect", "hf:org/none"], &[("HF_ENDPOINT", "mirror")]).failure();
    assert!(message.contains("HF_ENDPOINT is \"mirror\", which does not begin with https://"), "{message}");
}
