//! Text in object stores, on the web and on the Hugging Face Hub, and text as tokens.

use std::fs::{self, File, FileTimes};
use std::time::{Duration, SystemTime};

use insta::assert_snapshot;
use serde_json::json;

use crate::hub_server::{Fault as HubFault, Hub, Model};
use crate::program::{Called, call_with, directory, text};
use crate::store_server::{Fault, Store};

/// Shard `number` of a text.
fn shard(number: usize) -> String {
    let words = ["river", "stone", "bridge", "water", "wheel", "boat", "wood", "forest", "market", "bread"];
    let document = |at: usize| {
        let words: Vec<_> =
            (0..20 + at % 9).map(|i| words[(at * 7 + i * i + number * i) % words.len()]).collect();
        json!({ "text": words.join(" ") }).to_string() + "\n"
    };
    (0..40).map(document).collect()
}

/// The arguments that print the first batches of some texts.
fn sample<'a>(texts: &[&'a str]) -> Vec<&'a str> {
    let options =
        ["--tokenizer", "words", "--held-out-every", "7", "--input-length", "24", "--batches", "30"];
    [&["data", "sample", "--text"], texts, &options, &["--json"]].concat()
}

/// A user of a store, with a folder of the same shards.
struct User {
    home: tempfile::TempDir,
    store: Store,
}

impl User {
    fn new() -> Self {
        let (home, store) = (directory(&[]), Store::start());
        fs::create_dir(home.path().join("here")).expect("a directory");
        for number in 0..3 {
            fs::write(home.path().join(format!("here/{number}.jsonl")), shard(number)).expect("a file");
            store.put(&format!("texts/shards/{number}.jsonl"), shard(number));
        }
        store.put("texts/shards/README.md", "no text");
        store.put("texts/shardsother/0.jsonl", "not meant");
        let user = User { home, store };
        user.call(&[
            "tokenizer",
            "train",
            "--text",
            "here",
            "--vocabulary",
            "120",
            "--sentinels",
            "30",
            "--output",
            "words",
        ])
        .success();
        user
    }

    fn call(&self, arguments: &[&str]) -> Called {
        self.call_with(arguments, &[])
    }

    fn call_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Called {
        let own = [
            ("XDG_CACHE_HOME", text(self.home.path())),
            ("DEEP_FUSION_CACHE", ""),
            ("DEEP_FUSION_RETRIES", "1"),
            ("AWS_ENDPOINT_URL", self.store.address.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            // Google's stores speak S3's language.
            ("GOOGLE_BASE_URL", self.store.address.as_str()),
            ("GOOGLE_ALLOW_HTTP", "true"),
            ("HOME", text(self.home.path())),
            ("NO_PROXY", "127.0.0.1"),
        ];
        call_with(self.home.path(), arguments, &[&own, environment].concat())
    }

    fn sample(&self, text: &str) -> Called {
        self.call(&sample(&[text]))
    }

    /// An error without what differs from test to test.
    fn refusal(&self, text: &str) -> String {
        let said = self.sample(text).failure().replace(&self.store.address, "STORE");
        let without_times = said.split(" in ").map(|part| match part.split_once("s - Server") {
            Some((_, rest)) => format!(" - Server{rest}"),
            None => format!(" in {part}"),
        });
        without_times.collect::<String>().trim_start_matches(" in ").to_owned()
    }

    fn forget(&self) {
        fs::remove_dir_all(self.home.path().join("deep-fusion")).expect("a cache");
    }
}

#[test]
fn text_in_an_object_store_reads_as_on_disk() {
    let user = User::new();
    let expected = user.sample("here").success();
    for place in ["s3://texts/shards", "s3://texts/shards/", "s3://texts/shards/*.jsonl"] {
        assert_eq!(user.sample(place).success(), expected, "{place}");
    }
    // Each shard was fetched once, whatever named it.
    let mut reads = user.store.reads();
    reads.sort();
    assert_eq!(reads, ["texts/shards/0.jsonl", "texts/shards/1.jsonl", "texts/shards/2.jsonl"]);

    // Without credentials, a bucket is read as a public one.
    assert_eq!(user.sample("gs://texts/shards").success(), expected);
    assert_eq!(user.store.reads().len(), 3);

    // A new version is fetched anew.
    user.store.put("texts/shards/1.jsonl", shard(7));
    assert_ne!(user.sample("s3://texts/shards").success(), expected);
    assert_eq!(user.store.reads(), ["texts/shards/1.jsonl"]);

    // Several inputs, some of them here.
    user.store.put("texts/shards/1.jsonl", shard(1));
    let mixed = user.call(&sample(&["here/0.jsonl", "s3://texts/shards/1.jsonl", "here/2.jsonl"]));
    assert_eq!(mixed.success(), expected);
}

#[test]
fn broken_downloads_go_on_where_they_stopped() {
    let user = User::new();
    let expected = user.sample("here").success();
    user.store.fail(Fault::Break(2));
    assert_eq!(user.sample("s3://texts/shards").success(), expected);
    let mut reads = user.store.reads();
    assert_eq!(reads.len(), 5, "{reads:?}");
    reads.retain(|read| read.contains("bytes="));
    assert_eq!(reads.len(), 2, "{reads:?}");

    // Tags that only promise the same meaning cannot be asked for.
    user.forget();
    user.store.reads();
    user.store.fail(Fault::WeakTags);
    assert_eq!(user.sample("s3://texts/shards").success(), expected);

    user.forget();
    user.store.fail(Fault::BareTags);
    assert_eq!(user.sample("s3://texts/shards").success(), expected);

    // A web server without ranges has to send everything again.
    user.forget();
    user.store.reads();
    user.store.fail(Fault::NoRanges);
    let address = format!("{}/texts/shards/0.jsonl", user.store.address);
    assert_eq!(user.sample(&address).success(), user.sample("here/0.jsonl").success());
    assert!(user.store.reads().len() > 2);
}

#[test]
fn a_shard_that_cannot_be_fetched_is_named() {
    let user = User::new();
    let first = "s3://texts/shards/0.jsonl";
    user.store.fail(Fault::Dead);
    assert_snapshot!(user.refusal(first), @r#"
error: s3://texts/shards/0.jsonl cannot be fetched: 0 of 6237 bytes have arrived, and 2 tries brought no more
  because: Generic S3 error: HTTP error: request or response body error
  because: error reading a body from connection
  because: end of file before message length reached
"#);
    user.store.fail(Fault::Status(403));
    assert_snapshot!(user.refusal(first), @"error: s3://texts/shards/0.jsonl cannot be fetched: The operation lacked the necessary privileges to complete for path shards/0.jsonl: Error performing GET STORE/texts/shards/0.jsonl - Server returned non-2xx status code: 403 Forbidden:");
    user.store.fail(Fault::None);
    assert_snapshot!(user.refusal("s3://texts/nothing"), @r#"
error: the text cannot be read
  because: there is nothing at s3://texts/nothing
"#);
    assert_snapshot!(user.refusal("s3://texts/shards/README.md"), @r#"
error: the text cannot be read
  because: s3://texts/shards/README.md
  because: its name does not end as that of a text does
"#);
    assert_snapshot!(user.refusal("ftp://texts/shards"), @r#"
error: the text cannot be read
  because: ftp://texts/shards: texts are read from s3://, s3a://, gs://, az://, abfs://, abfss://, https://, http://
"#);
    assert_snapshot!(user.refusal("s3:///shards"), @r#"
error: the text cannot be read
  because: s3:///shards names no bucket
"#);
    assert_snapshot!(user.refusal(&format!("{}/texts/*.jsonl", user.store.address)), @r#"
error: the text cannot be read
  because: STORE/texts/*.jsonl: nothing can be listed on the web; name every file
"#);
    assert_snapshot!(user.refusal(&format!("{}/texts/none.jsonl", user.store.address)), @r#"
error: the text cannot be read
  because: cannot look at STORE/texts/none.jsonl
  because: Object at location texts/none.jsonl not found: Error performing HEAD STORE/texts/none.jsonl - Server returned non-2xx status code: 404 Not Found:
"#);
    user.store.fail(Fault::Changed);
    assert_snapshot!(user.refusal(first), @"error: s3://texts/shards/0.jsonl cannot be fetched: it was changed while it was being read");
    user.store.fail(Fault::None);
    let broken = user.call_with(
        &["tokenizer", "train", "--text", first, "--output", "other"],
        &[("DEEP_FUSION_CACHE_SIZE", "much")],
    );
    assert_snapshot!(broken.failure(), @r#"
error: the text cannot be read
  because: DEEP_FUSION_CACHE_SIZE=much is no size such as 200GB
"#);
}

#[test]
fn the_cache_keeps_to_its_size() {
    let user = User::new();
    user.sample("s3://texts/shards").success();
    let folder = user.home.path().join("deep-fusion/text/s3/texts/shards");
    let there = || fs::read_dir(&folder).expect("a folder").count();
    assert_eq!(there(), 3);
    for entry in fs::read_dir(&folder).expect("a folder") {
        let file = File::open(entry.expect("an entry").path()).expect("a file");
        let long_ago = SystemTime::now() - Duration::from_secs(3600);
        file.set_times(FileTimes::new().set_modified(long_ago)).expect("times");
    }
    // Of the same age, but somebody's own.
    let own = folder.join("notes.txt");
    fs::write(&own, "mine").expect("a file");
    let long_ago = SystemTime::now() - Duration::from_secs(7200);
    let times = FileTimes::new().set_modified(long_ago);
    File::open(&own).and_then(|file| file.set_times(times)).expect("times");
    user.store.put("texts/shards/4.jsonl", shard(4));
    let size = (2 * shard(4).len() + 500).to_string();
    let sample = [
        "data",
        "sample",
        "--text",
        "s3://texts/shards/4.jsonl",
        "--tokenizer",
        "words",
        "--input-length",
        "24",
    ];
    user.call_with(&sample, &[("DEEP_FUSION_CACHE_SIZE", &size)]).success();
    assert_eq!(there(), 3);
    assert!(own.exists());
}

#[test]
fn tokens_stand_for_their_text() {
    let user = User::new();
    let tokenize =
        ["data", "tokenize", "--text", "s3://texts/shards", "--tokenizer", "words", "--output", "tokens"];
    assert_snapshot!(user.call(&tokenize).success(), @"tokens: 3 files, 120 documents, 13,699 tokens, 30,000 bytes");
    user.store.reads();
    let expected = user.sample("here").success();
    assert_eq!(user.sample("tokens").success(), expected);
    assert_eq!(user.store.reads(), [""; 0]);

    // The same once more finds everything, also what one of two processes has to do.
    let modified = |name: &str| {
        fs::metadata(user.home.path().join("tokens").join(name)).and_then(|it| it.modified()).expect("a file")
    };
    let before = modified("00001.tokens");
    user.call(&tokenize).success();
    assert_eq!(modified("00001.tokens"), before);
    for rank in ["0", "1"] {
        let mut shared = tokenize.to_vec();
        shared[7] = "shared";
        let own = [
            ("RANK", rank),
            ("WORLD_SIZE", "2"),
            ("LOCAL_RANK", rank),
            ("LOCAL_WORLD_SIZE", "2"),
            ("MASTER_ADDR", "127.0.0.1"),
            ("MASTER_PORT", "1"),
        ];
        user.call_with(&shared, &own).success();
    }
    assert_eq!(user.sample("shared").success(), expected);

    // The tokenizer lies beside them; another does not fit, and text is not there.
    let with = |tokenizer: &str| {
        user.call(&[
            "data",
            "sample",
            "--text",
            "tokens",
            "--tokenizer",
            tokenizer,
            "--held-out-every",
            "7",
            "--input-length",
            "24",
        ])
    };
    with("tokens").success();
    user.call(&[
        "tokenizer",
        "train",
        "--text",
        "here",
        "--vocabulary",
        "120",
        "--sentinels",
        "20",
        "--output",
        "others",
    ])
    .success();
    let refused = with("others").failure().replace(text(user.home.path()), "HOME");
    assert_snapshot!(refused, @"error: HOME/tokens/00002.tokens: these tokens are of another vocabulary than the tokenizer's");
    let elsewhere = fs::read(user.home.path().join("tokens/00000.tokens")).expect("tokens");
    user.store.put("texts/0.tokens", elsewhere);
    let mut wrong = sample(&["s3://texts/0.tokens"]);
    wrong[5] = "others";
    let refused = user.call(&wrong).failure();
    assert!(refused.contains("these tokens are of another vocabulary"), "{refused}");
    let train = ["tokenizer", "train", "--text", "tokens", "--output", "third"];
    assert_snapshot!(user.call(&train).failure(), @"error: tokens cannot be read as text: name the text that they were made of");
    let mut other = tokenize;
    other[5] = "others";
    assert_snapshot!(user.call(&other).failure(), @"error: the tokens in tokens were made with another tokenizer; --overwrite replaces what this program wrote into it");
    let overwrite = [&other[..], &["--overwrite"]].concat();
    user.call(&overwrite).success();
    with("others").success();

    // A training reads them, and goes on where it stopped.
    let train = |text: &str, output: &str, steps: &str| {
        let arguments = [
            "pretrain",
            "--text",
            text,
            "--held-out-every",
            "7",
            "--tokenizer",
            "words",
            "--input-length",
            "24",
            "--d-model",
            "8",
            "--num-heads",
            "2",
            "--d-kv",
            "4",
            "--d-ff",
            "16",
            "--num-layers",
            "1",
            "--schedule",
            "constant",
            "--steps",
            steps,
            "--batch-size",
            "4",
            "--output",
            output,
        ];
        user.call(&arguments).success();
        fs::read(user.home.path().join(output).join("model/model.safetensors")).expect("weights")
    };
    let weights = train("here", "of-text", "6");
    assert_eq!(train("shared", "of-tokens", "6"), weights);
}

#[test]
fn datasets_on_the_hub() {
    let hub = Hub::start();
    let user = User::new();
    let mut files = Model { commit: "a".repeat(40), ..Model::default() };
    for number in 0..3 {
        files.files.insert(format!("en/texts-train.{number}.jsonl"), shard(number).into());
        files.files.insert(format!("de/texts-train.{number}.jsonl"), shard(number + 5).into());
    }
    files.files.insert("en/texts-validation.jsonl".into(), shard(9).into());
    files.files.insert("README.md".into(), b"about".to_vec());
    hub.put("datasets/org/texts", files);
    let call = |arguments: &[&str], offline: &str| {
        let own = [
            ("HF_HOME", text(user.home.path())),
            ("HF_ENDPOINT", hub.address.as_str()),
            ("HF_HUB_OFFLINE", offline),
            ("HF_TOKEN", ""),
        ];
        user.call_with(arguments, &own)
    };
    let sample = |name: &str, offline: &str| call(&sample(&[name]), offline);
    let expected = user.sample("here").success();
    assert_snapshot!(sample("hf:org/texts", "").failure(), @r#"
error: the text cannot be read
  because: hf:org/texts
  because: its texts lie in 2 folders, of which one must be named behind a slash: de, en
"#);
    for name in ["hf:org/texts/en", "hf:org/texts@main/en/texts-train.*.jsonl"] {
        assert_eq!(sample(name, "").success(), expected, "{name}");
    }
    hub.requests();
    assert_eq!(sample("hf:org/texts/en", "1").success(), expected);
    assert_eq!(hub.requests(), [""; 0]);
    assert_snapshot!(sample("hf:org/texts/fr", "").failure(), @r#"
error: the text cannot be read
  because: hf:org/texts/fr holds no text; of its 8 files, the first are: README.md, de/texts-train.0.jsonl, de/texts-train.1.jsonl, de/texts-train.2.jsonl, en/texts-train.0.jsonl
"#);
    assert_snapshot!(sample("hf:org/none", "").failure().replace(&hub.address, "HUB"), @r#"
error: the text cannot be read
  because: hf:org/none does not exist, or is private or gated: a token in HF_TOKEN or from `huggingface-cli login` shows that you may read it
"#);
    assert_snapshot!(sample("hf:org/te xts/en", "").failure(), @r#"
error: the text cannot be read
  because: "hf:org/te xts/en" is not of the form hf:ORG/NAME[@REVISION][/PATH], where PATH may have wildcards
"#);

    // Several processes that want the same file fetch it once.
    fs::remove_dir_all(user.home.path().join("hub")).expect("the cache");
    hub.fail(HubFault::None);
    hub.requests();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| assert_eq!(sample("hf:org/texts/en", "").success(), expected));
        }
    });
    let whole = hub
        .requests()
        .into_iter()
        .filter(|request| request.contains("texts-train.1") && !request.ends_with("-0"));
    assert_eq!(whole.count(), 1);
}

#[test]
fn a_recipe_reads_text_elsewhere() {
    let user = User::new();
    let recipe = concat!(
        small_model!(),
        r#"
[pretraining]
steps = 3
batch_size = 4

[stages.words]
kind = "tokenizer"
vocabulary = 120
sentinels = 30

[stages.first]
kind = "pretrain"
model = "small"
"#
    )
    .replace("a.txt", "s3://texts/shards/*.jsonl");
    let path = user.home.path().join("recipe.toml");
    fs::write(&path, recipe).expect("a recipe");
    user.call(&["run", "recipe.toml", "--dry-run"]).success();
    assert_eq!(user.store.reads(), [""; 0]);
    user.call(&["run", "recipe.toml", "--output", "run"]).success();
    let texts = fs::read_to_string(user.home.path().join("run/first/texts.json")).expect("texts");
    assert!(texts.contains("s3://texts/shards/2.jsonl"), "{texts}");

    // No text at all is an error, here as on disk.
    let empty = fs::read_to_string(&path).expect("the recipe").replace("\"s3://texts/shards/*.jsonl\"", "[]");
    fs::write(&path, empty).expect("a recipe");
    let refused = user.call(&["run", "recipe.toml", "--output", "none"]).failure();
    assert!(refused.contains("no text: the list of inputs is empty"), "{refused}");
}
