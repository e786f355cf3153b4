//! Reads documents from every kind of file.

mod text_support;

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use insta::assert_snapshot;
use t5_model::text::{Corpus, TextError};
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
            documents.push(document?);
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

#[test]
fn reading_goes_on_at_a_document() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.json"), LINES).unwrap();
    fs::write(folder.path().join("b.txt"), "one\n1\n\n\ntwo é\n").unwrap();
    let corpus = Corpus::open(&[folder.path().display().to_string()]).unwrap();
    let memory = Corpus::from_documents("sample", vec!["one\n1".to_owned(), "two é".to_owned()]);
    for (corpus, file) in [(&corpus, 0), (&corpus, 1), (&memory, 0)] {
        let from =
            |first| corpus.documents(file, first).unwrap().unwrap().map(Result::unwrap).collect::<Vec<_>>();
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
    assert_snapshot!(fails("c.json", b"[\n  {\"text\": \"one\"}\n]\n"), @"c.json:1: expected one JSON object a line with a string field `text`: EOF while parsing a list at column 1");
    assert_snapshot!(fails("d.txt", b"one\n\ntwo \xff\n"), @"d.txt:3: expected UTF-8 text");
    assert_snapshot!(fails("e.parquet", b"PAR1"), @"cannot read `e.parquet` as text: its name must end in .json, .jsonl, .txt, or one of these with .gz or .zst");
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
    assert_snapshot!(opens(&["empty"]), @"no text: folder `empty` holds no file that ends in .json, .jsonl, .txt, or one of these with .gz or .zst");
}
