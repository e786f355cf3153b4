//! Reads documents from every kind of file.

mod text_support;

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use insta::assert_snapshot;
use t5_model::text::{Corpus, Document, TextError};
use text_support::message;

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn read(path: &Path) -> Result<Vec<String>, TextError> {
    let corpus = Corpus::open(&[path.display().to_string()])?;
    let mut documents = Vec::new();
    for file in 0..corpus.file_count() {
        for document in corpus.documents(file, 0)?.unwrap() {
            documents.push(document?.into_text()?);
        }
    }
    Ok(documents)
}

const LINES: &str = "{\"text\": \"one\\n1\", \"url\": \"u\"}\r\n\n{\"timestamp\": 0, \"text\": \"two é\"}";

#[test]
fn every_kind_of_file() {
    let folder = tempfile::tempdir().unwrap();
    let two_members = [gzip(LINES.split_at(20).0.as_bytes()), gzip(LINES.split_at(20).1.as_bytes())].concat();
    let zstd = zstd::encode_all(LINES.as_bytes(), 1).unwrap();
    for (name, bytes) in [
        ("a.json", LINES.as_bytes()),
        ("a.jsonl", format!("\u{feff}{LINES}\n").as_bytes()),
        ("a.json.gz", &two_members),
        ("a.jsonl.zst", &zstd),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        assert_eq!(read(&path).unwrap(), ["one\n1", "two é"], "{name}");
    }
    for (name, bytes) in [
        ("b.txt", b"\n\none\n1\n \t\n\ntwo\r\n\r\nthree".to_vec()),
        ("b.txt.gz", gzip(b"one\n1\n\ntwo\n\nthree\n\n\n")),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        assert_eq!(read(&path).unwrap(), ["one\n1", "two", "three"], "{name}");
    }
}

#[test]
fn folders_and_globs_are_sorted_and_read_once() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["b.txt", "a.txt", "sub[1]/c.txt", "sub[1]/ignored.md"] {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }
    let names = |inputs: &[&str]| {
        let inputs: Vec<_> =
            inputs.iter().map(|input| folder.path().join(input).display().to_string()).collect();
        let names = Corpus::open(&inputs).unwrap().names();
        names.iter().map(|name| message(name, folder.path())).collect::<Vec<_>>()
    };
    assert_eq!(names(&[""]), ["a.txt", "b.txt", "sub[1]/c.txt"]);
    assert_eq!(names(&["sub[1]"]), ["sub[1]/c.txt"]);
    assert_eq!(names(&["b.txt", "*.txt"]), ["b.txt", "a.txt"]);
    assert_eq!(names(&["sub*"]), ["sub[1]/c.txt"]);
}

/// A folder's texts by name, and what was left out, relative to the folder.
fn found(folder: &Path, inputs: &[&str]) -> (Vec<String>, Vec<String>) {
    let inputs: Vec<_> = inputs.iter().map(|input| folder.join(input).display().to_string()).collect();
    let corpus = Corpus::open(&inputs).unwrap();
    let relative = |text: String| message(text, folder);
    let left_out = corpus.left_out().iter().map(ToString::to_string).map(relative).collect();
    (corpus.names().into_iter().map(relative).collect(), left_out)
}

fn fill(folder: &Path, names: &[&str]) {
    for name in names {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }
}

/// Copies and indexes of editors, notebooks, archivers and operating systems.
#[test]
fn what_programs_leave_behind_is_left_out_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let left = [
        ".DS_Store",
        ".ipynb_checkpoints/a-checkpoint.txt",
        ".a.txt.swp",
        "._a.txt",
        ".cache/deep/b.txt",
        "__MACOSX/._a.txt",
        "#a.txt#",
        "a.txt~",
        "a.txt.bak",
        "a.txt.part",
        "~$a.txt",
        "README.md",
    ];
    fill(folder, &left);
    fill(folder, &["a.txt", "deep/__init.txt", "deep/#1.txt", "z.txt"]);
    std::os::unix::fs::symlink("nobody@host.1", folder.join(".#a.txt")).unwrap();
    let (names, left_out) = found(folder, &[""]);
    assert_eq!(names, ["a.txt", "deep/#1.txt", "deep/__init.txt", "z.txt"]);
    assert_snapshot!(left_out.join("\n"));

    // As in a shell, and what is named itself is read.
    assert_eq!(found(folder, &["*.txt"]).0, ["a.txt", "z.txt"]);
    assert_eq!(found(folder, &["**/*.txt"]).0, ["a.txt", "deep/#1.txt", "deep/__init.txt", "z.txt"]);
    assert_eq!(found(folder, &["*/*.txt"]).0, ["deep/#1.txt", "deep/__init.txt"]);
    for (input, name) in [
        ("._a.txt", "._a.txt"),
        (".*.txt", "._a.txt"),
        (".cache", ".cache/deep/b.txt"),
        (".cache/**/*.txt", ".cache/deep/b.txt"),
        ("~$a.txt", "~$a.txt"),
    ] {
        assert_eq!(found(folder, &[input]).0, [name], "{input}");
    }
    let (_, left_out) = found(folder, &["*.txt"]);
    assert_eq!(left_out, [".#a.txt (hidden)", "._a.txt (hidden)", "~$a.txt (left by another program)"]);
}

#[test]
fn a_file_is_read_once_under_whatever_names() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fill(folder, &["a/1.txt", "b/2.txt", "disk/3.txt", "disk/sub/4.txt"]);
    let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, folder.join(name)).unwrap();
    link("../a/1.txt", "b/linked.txt");
    link("../disk", "a/disk");
    link("../disk", "b/also");
    link("..", "b/up");
    fs::hard_link(folder.join("b/2.txt"), folder.join("b/hard.txt")).unwrap();
    let (names, left_out) = found(folder, &["a", "b"]);
    assert_eq!(names, ["a/1.txt", "a/disk/3.txt", "a/disk/sub/4.txt", "b/2.txt"]);
    assert_snapshot!(left_out.join("\n"));
    for inputs in
        [&["a", "a"][..], &["a", "a/"], &["a", "a/*.txt", "a/disk"], &["a", "b/../a"], &["a", "**/1.txt"]]
    {
        assert_eq!(found(folder, inputs).0, ["a/1.txt", "a/disk/3.txt", "a/disk/sub/4.txt"], "{inputs:?}");
    }
    // The order of inputs counts, that of the file system does not.
    // Folders that link to each other are entered once.
    for (one, other) in [("x", "y"), ("y", "z"), ("z", "x"), ("x", "z"), ("y", "x"), ("z", "y")] {
        fs::create_dir_all(folder.join("ring").join(one)).unwrap();
        link(&format!("../{other}"), &format!("ring/{one}/to {other}"));
    }
    fill(folder, &["ring/z/5.txt"]);
    let (names, left_out) = found(folder, &["ring"]);
    assert_eq!((names, left_out.len()), (vec!["ring/x/to y/to z/5.txt".to_owned()], 6));
    assert_eq!(found(folder, &["disk", "a"]).0, ["disk/3.txt", "disk/sub/4.txt", "a/1.txt"]);
    assert_eq!(found(folder, &["*/*.txt"]).0, ["a/1.txt", "b/2.txt", "disk/3.txt"]);
}

#[test]
fn names_need_not_be_utf8() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fill(folder, &["ünï [1] {x} *.txt", "a b/c?.txt"]);
    fs::write(folder.join(OsStr::from_bytes(b"caf\xe9.txt")), "latin").unwrap();
    fs::create_dir(folder.join(OsStr::from_bytes(b"d\xe9"))).unwrap();
    fs::write(folder.join(OsStr::from_bytes(b"d\xe9/e.txt")), "latin").unwrap();
    let all = ["a b/c?.txt", "caf\u{fffd}.txt", "d\u{fffd}/e.txt", "ünï [1] {x} *.txt"];
    assert_eq!(found(folder, &[""]).0, all);
    assert_eq!(found(folder, &["**/*.txt"]).0, all);
    assert_eq!(found(folder, &["caf*.txt"]).0, ["caf\u{fffd}.txt"]);
    assert_eq!(found(folder, &["ünï [1] {x} *.txt"]).0, ["ünï [1] {x} *.txt"]);
    // A name as messages show it.
    assert_eq!(read(&folder.join(OsStr::from_bytes(b"d\xe9"))).unwrap(), ["latin"]);
}

#[test]
fn what_is_no_text_is_not_read_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let page = b"\n<!DOCTYPE html>\n<html><body>Quota exceeded</body></html>\n";
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    let mut messages = String::new();
    for (name, content) in [
        ("page.txt", page.to_vec()),
        ("page.jsonl", page.to_vec()),
        ("page.jsonl.gz", page.to_vec()),
        ("page.txt.zst", page.to_vec()),
        ("packed.txt.gz", gzip(page)),
        ("pointer.txt", pointer.to_vec()),
        ("pointer.jsonl.zst", pointer.to_vec()),
        ("annex.jsonl.gz", b"/annex/objects/SHA256E-s1--0.jsonl.gz\n".to_vec()),
        ("store.txt", b"<?xml version=\"1.0\"?>\n<Error><Code>AccessDenied</Code></Error>".to_vec()),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        messages += &format!("{}\n", message(read(&path).unwrap_err(), folder.path()));
    }
    assert_snapshot!(messages);
    fs::write(folder.path().join("tags.txt"), "<br> is a tag, <html> another").unwrap();
    assert_eq!(read(&folder.path().join("tags.txt")).unwrap().len(), 1);
    std::os::unix::fs::symlink("nowhere.txt", folder.path().join("broken.txt")).unwrap();
    assert!(Corpus::open(&[folder.path().join("t*.txt").display().to_string()]).is_ok());
    for input in ["", "b*.txt"] {
        let error = Corpus::open(&[folder.path().join(input).display().to_string()]).unwrap_err();
        assert_eq!(message(error, folder.path()), "broken.txt is a link to a file that does not exist");
    }
}

/// What gzip and zstd read, this program reads.
#[test]
fn compressed_files_in_several_parts() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = LINES.split_at(20);
    let zst = |text: &str| {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    // A skippable frame of 4 bytes, as pzstd and seekable formats write.
    let skippable: &[u8] = &[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4];
    // A window of 2 GiB in the header of the frame: behind the magic number and the descriptor.
    let mut wide = zst(LINES);
    assert_eq!(wide[4] & 0x20, 0, "not a single segment");
    wide[5] = (31 - 10) << 3;
    let gz = |text: &str| gzip(text.as_bytes());
    for (name, bytes) in [
        ("empty member.json.gz", [gz(first), gz(""), gz(second)].concat()),
        ("padded.json.gz", [gz(LINES), vec![0; 512]].concat()),
        ("padded between.json.gz", [gz(first), vec![0; 70_000], gz(second), vec![0]].concat()),
        ("frames.json.zst", [zst(first), zst(""), zst(second)].concat()),
        ("skippable.json.zst", [skippable, &zst(first), skippable, &zst(second), skippable].concat()),
        ("wide.json.zst", wide),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        assert_eq!(read(&path).unwrap(), ["one\n1", "two é"], "{name}");
    }
    let mut messages = String::new();
    for (name, bytes) in [
        ("garbage.json.gz", [gz(LINES), b"garbage".to_vec()].concat()),
        ("empty.json.gz", Vec::new()),
        ("cut between.json.gz", [gz(first), gz(second)[..5].to_vec()].concat()),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        messages += &format!("{}\n", message(read(&path).unwrap_err(), folder.path()));
    }
    assert_snapshot!(messages);
}

#[test]
fn reading_goes_on_at_a_document() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.json"), LINES).unwrap();
    fs::write(folder.path().join("b.txt"), "one\n1\n\n\ntwo é\n").unwrap();
    let corpus = Corpus::open(&[folder.path().display().to_string()]).unwrap();
    let memory = Corpus::from_documents("sample", vec!["one\n1".to_owned(), "two é".to_owned()]);
    for (corpus, file) in [(&corpus, 0), (&corpus, 1), (&memory, 0)] {
        let from = |first| -> Vec<String> {
            let documents = corpus.documents(file, first).unwrap().unwrap();
            documents.map(|document| document.unwrap().into_text().unwrap()).collect()
        };
        assert_eq!(from(0), ["one\n1", "two é"]);
        assert_eq!(from(1), ["two é"]);
        assert!(from(2).is_empty());
    }
    assert!(corpus.documents(2, 0).unwrap().is_none());
    assert_snapshot!(memory.documents(0, 3).err().unwrap(), @"cannot resume the text at document 3 of sample: it has 2 documents; has the data or an option changed?");
}

#[test]
fn errors_name_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let fails = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        message(read(&path).unwrap_err(), folder.path())
    };
    assert_snapshot!(fails("a.json", b"{\"text\": \"one\"}\n\n{\"text\": 2}\n"), @"a.json:3: expected one JSON object a line with a string field `text`: invalid type: integer `2`, expected a string at column 10");
    assert_snapshot!(fails("b.jsonl", b"{\"text\": \"one\"}\n{\"body\": \"two\"}\n"), @"b.jsonl:2: expected one JSON object a line with a string field `text`: missing field `text` at column 15");
    assert_snapshot!(fails("c.json", b"[\n  {\"text\": \"one\"}\n]\n"), @"c.json:1: expected one JSON object a line with a string field `text`: invalid type: sequence, expected an object at column 0");
    assert_snapshot!(fails("d.txt", b"one\n\ntwo \xff\n"), @"d.txt:3: expected UTF-8 text");
    assert_snapshot!(fails("e.md", b"one"), @"cannot read `e.md` as text: its name must end in .json, .jsonl, .txt, .csv, .tsv, one of these with .gz or .zst, .parquet, or .tokens");
    // The decompressor's own message does not matter.
    let gzip_fails =
        |name, bytes: &[u8]| fails(name, bytes).rsplit_once(": ").map(|(ours, _)| ours.to_owned()).unwrap();
    assert_snapshot!(gzip_fails("f.json.gz", b"{\"text\": \"one\"}\n"), @"f.json.gz:1: cannot read on (is the file whole?)");
    let compressed = gzip(LINES.as_bytes());
    assert_snapshot!(gzip_fails("g.json.gz", &compressed[..compressed.len() - 9]), @"g.json.gz:3: cannot read on (is the file whole?)");
    let compressed = zstd::encode_all(LINES.as_bytes(), 1).unwrap();
    assert_snapshot!(fails("h.json.zst", &compressed[..compressed.len() - 3]), @"h.json.zst:3: cannot read on (is the file whole?): incomplete frame");
    // 65 MiB of zeros in a few kilobytes.
    assert_snapshot!(fails("i.txt.gz", &gzip(&vec![0; 65 << 20])), @"i.txt.gz:1: a document of more than 67108864 bytes; blank lines separate documents in .txt files, line ends in JSON lines");
    let opens = |inputs: &[&str]| {
        let inputs: Vec<_> =
            inputs.iter().map(|input| folder.path().join(input).display().to_string()).collect();
        message(Corpus::open(&inputs).unwrap_err(), folder.path())
    };
    fs::create_dir(folder.path().join("empty")).unwrap();
    assert_snapshot!(opens(&[]), @"no text: the list of inputs is empty");
    assert_snapshot!(opens(&["none.json"]), @"no text: `none.json` matches no file");
    assert_snapshot!(opens(&["*.csv"]), @"no text: `*.csv` matches no file");
    assert_snapshot!(Corpus::open(&["***"]).unwrap_err(), @"`***` is not a valid glob pattern: Pattern syntax error near position 2: wildcards are either regular `*` or recursive `**`");
    assert_snapshot!(opens(&["empty"]), @"no text: folder `empty` holds no file that ends in .json, .jsonl, .txt, .csv, .tsv, one of these with .gz or .zst, .parquet, or .tokens");
}

fn read_field(path: &Path, field: &str) -> Result<Vec<String>, TextError> {
    let corpus = Corpus::open(&[path.display().to_string()])?.with_field(field);
    corpus.documents(0, 0)?.unwrap().map(|document| document?.into_text()).collect()
}

const TABLE: &str = "id,text,\"the body\"\n1,one,\"1, one\"\n2,\"two\nlines, \"\"quoted\"\"\",2\n3,,3\n";

#[test]
fn fields_and_columns_have_names() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let json = write("a.jsonl", b"{\"body\": \"one\", \"text\": 1}\n{\"body\": \"two\"}\n");
    assert_eq!(read_field(&json, "body").unwrap(), ["one", "two"]);
    let tabs = TABLE.replace(',', "\t");
    for (path, separator) in [
        (write("a.csv", TABLE.as_bytes()), ','),
        (
            write(
                "b.csv",
                format!("\u{feff}{}", TABLE.replace('\n', "\r\n").replace("two\r\n", "two\n")).as_bytes(),
            ),
            ',',
        ),
        (write("a.csv.gz", &gzip(TABLE.as_bytes())), ','),
        (write("a.tsv", tabs.as_bytes()), '\t'),
        (write("a.tsv.zst", &zstd::encode_all(tabs.as_bytes(), 1).unwrap()), '\t'),
    ] {
        let two = format!("two\nlines{separator} \"quoted\"");
        assert_eq!(read_field(&path, "text").unwrap(), ["one", &two, ""], "{path:?}");
        assert_eq!(read_field(&path, "the body").unwrap()[0], format!("1{separator} one"));
        let corpus = Corpus::open(&[path.display().to_string()]).unwrap();
        let rest: Vec<_> = corpus.documents(0, 1).unwrap().unwrap().map(Result::unwrap).collect();
        assert_eq!(rest, [two.as_str(), ""].map(|text| Document::Text(text.to_owned())));
    }
    let fails = |path: &Path, field: &str| message(read_field(path, field).unwrap_err(), folder.path());
    assert_snapshot!(fails(&json, "title"), @"a.jsonl:1: expected one JSON object a line with a string field `title`: missing field `title` at column 26");
    assert_snapshot!(fails(&write("c.csv", TABLE.as_bytes()), "title"), @r#"c.csv: there is no column "title"; there are: id, text, the body"#);
    assert_snapshot!(fails(&write("d.csv", b"id,text\n1,one\n2\n"), "text"), @"d.csv:3: the row has 1 fields, but the header 2");
    assert_snapshot!(fails(&write("e.csv", b"id,text\n1,one\n2,\xff\n"), "text"), @"e.csv:3: expected UTF-8 text");
    assert_snapshot!(fails(&write("f.csv", b""), "text"), @r#"f.csv: there is no column "text"; there are: "#);
    let unclosed = [b"text\n\"".to_vec(), vec![b'x'; 65 << 20]].concat();
    let unclosed = fails(&write("g.csv.gz", &gzip(&unclosed)), "text");
    assert!(unclosed.contains("a row of more than 67108864 bytes; is a quote not closed?"), "{unclosed}");
}

/// Tables beside text are left alone: they may hold anything.
#[test]
fn tables_in_folders() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.csv"), "text\none\n").unwrap();
    fs::write(folder.path().join("b.tsv"), "text\ntwo\n").unwrap();
    let names = || {
        let names = Corpus::open(&[folder.path().display().to_string()]).unwrap().names();
        names.iter().map(|name| message(name, folder.path())).collect::<Vec<_>>()
    };
    assert_eq!(names(), ["a.csv", "b.tsv"]);
    fs::write(folder.path().join("c.txt"), "three").unwrap();
    assert_eq!(names(), ["c.txt"]);
}

/// Written by pyarrow: `goldens/text_goldens.py`.
#[cfg(feature = "parquet")]
#[test]
fn columns_of_parquet_files() {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
    let known = fs::read_to_string(goldens.join("text.json")).unwrap();
    let known: serde_json::Value = serde_json::from_str(&known).unwrap();
    let path = goldens.join("text.parquet");
    let every = known["every"].as_u64().unwrap() as usize;
    for column in ["text", "kind"] {
        let found = read_field(&path, column).unwrap();
        assert_eq!(found.len(), 700);
        let expected = known[column].as_array().unwrap().iter().map(|text| text.as_str().unwrap());
        assert!(found.iter().step_by(every).map(String::as_str).eq(expected), "{column}");
    }
    let all = read_field(&path, "text").unwrap();
    let reversed: Vec<String> = all.iter().map(|text| text.chars().rev().collect()).collect();
    assert_eq!(read_field(&path, "meta.body").unwrap(), reversed);
    // Within a row group, at its end, and beyond.
    let corpus = Corpus::open(&[path.display().to_string()]).unwrap();
    for first in [1, 255, 256, 299, 300, 301, 600, 699, 700] {
        let rest = corpus.documents(0, first as u64).unwrap().unwrap();
        let rest = rest.map(|document| document?.into_text()).collect::<Result<Vec<_>, _>>();
        assert_eq!(rest.unwrap(), all[first..], "{first}");
    }
    let fails = |column: &str| message(read_field(&path, column).unwrap_err(), &goldens);
    assert_snapshot!(corpus.documents(0, 701).err().unwrap().to_string().rsplit('/').next().unwrap(), @"text.parquet: it has 700 documents; has the data or an option changed?");
    assert_snapshot!(fails("title"), @r#"text.parquet: there is no column "title"; there are: id, text, kind, meta.body, gaps, tags.list.element"#);
    assert_snapshot!(fails("id"), @r#"text.parquet: column "id" holds INT64, not text"#);
    assert_snapshot!(fails("gaps"), @r#"text.parquet, row 301: column "gaps" is null"#);
    let folder = tempfile::tempdir().unwrap();
    let bytes = fs::read(&path).unwrap();
    for (name, bytes) in [("a.parquet", &bytes[..bytes.len() - 9]), ("b.parquet", b"PAR1")] {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let refused = message(read_field(&path, "text").unwrap_err(), folder.path());
        assert!(refused.starts_with(&format!("{name}: not a readable Parquet file: ")), "{refused}");
    }
}
