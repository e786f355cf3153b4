"""Writes GLUE's layout on the Hugging Face hub (`nyu-mll/glue`) with pyarrow, on sentences of our own, into `parquet/`,
with what is in it in `parquet/examples.json`; and files that are wrong, into `bad_parquet/`.

    pip install pyarrow
    python parquet.py
"""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent
TEXT, CLASS, SCORE, INDEX = pa.string(), pa.int64(), pa.float32(), pa.int32()
ENGLISH = ["A cat sat.", "Two dogs, three \"cats\".", "tab\there", "", "Snow falls in the Höfe – softly.", "A cat sat."]


def table(fields, labels, label_type, texts_type=TEXT, first=0, nullable=True):
    columns = {}
    for number, field in enumerate(fields):
        texts = [ENGLISH[(first + row + number) % len(ENGLISH)] for row in range(len(labels))]
        columns[field] = pa.array(texts, texts_type)
    columns["label"] = pa.array(labels, label_type)
    columns["idx"] = pa.array(range(first, first + len(labels)), INDEX)
    schema = pa.schema([pa.field(name, column.type, nullable=nullable) for name, column in columns.items()])
    return pa.table(columns, schema)


# Files and how they differ: classes and scores, integers and floats of two widths, columns that can be null or cannot,
# compressions, pages of both versions, row groups, shards, dictionaries.
FILES = {
    "cola/train-00000-of-00001": (table(["sentence"], [1, 0, 1], CLASS), {"compression": "snappy"}),
    "cola/validation-00000-of-00001": (table(["sentence"], [0, 1], CLASS, nullable=False), {"compression": "zstd"}),
    "cola/test-00000-of-00001": (table(["sentence"], [-1, -1], CLASS), {"compression": "none"}),
    "sst2/train-00000-of-00003": (table(["sentence"], [1, 0], CLASS), {}),
    "sst2/train-00001-of-00003": (table(["sentence"], [0], CLASS, first=2), {}),
    "sst2/train-00002-of-00003": (table(["sentence"], [1, 1], CLASS, first=3), {}),
    "sst2/validation-00000-of-00001": (table(["sentence"], [1], CLASS), {}),
    "mrpc/train-00000-of-00001": (
        table(["sentence1", "sentence2"], [1, 0, 1, 1, 0], CLASS, first=7),
        {"row_group_size": 2, "data_page_version": "2.0"},
    ),
    "mrpc/validation-00000-of-00001": (
        table(["sentence1", "sentence2"], [0, 1], CLASS),
        {"use_dictionary": False, "column_encoding": {"sentence1": "DELTA_LENGTH_BYTE_ARRAY"}},
    ),
    "stsb/train-00000-of-00001": (table(["sentence1", "sentence2"], [0.0, 4.25, 5.0], SCORE), {}),
    "stsb/validation-00000-of-00001": (table(["sentence1", "sentence2"], [2.5], pa.float64()), {}),
    "stsb/test-00000-of-00001": (table(["sentence1", "sentence2"], [-1.0], SCORE), {}),
    "qqp/train-00000-of-00001": (table(["question1", "question2"], [1, 0], pa.int32()), {}),
    "qqp/validation-00000-of-00001": (table(["question1", "question2"], [0], pa.int8(), pa.large_string()), {}),
    "mnli/train-00000-of-00001": (table(["premise", "hypothesis"], [0, 1, 2], CLASS), {}),
    "mnli/validation_matched-00000-of-00001": (table(["premise", "hypothesis"], [2, 1], CLASS), {}),
    "mnli/validation_mismatched-00000-of-00001": (table(["premise", "hypothesis"], [0], CLASS), {}),
    "mnli/test_matched-00000-of-00001": (table(["premise", "hypothesis"], [-1], CLASS), {}),
    "mnli/test_mismatched-00000-of-00001": (table(["premise", "hypothesis"], [-1, -1], CLASS), {}),
    "qnli/train-00000-of-00001": (table(["question", "sentence"], [1, 0], CLASS), {}),
    "qnli/validation-00000-of-00001": (table(["question", "sentence"], [1], CLASS), {}),
    # The number of a row stands in for the index that is not there.
    "rte/train-00000-of-00002": (table(["sentence1", "sentence2"], [1, 0], CLASS).drop_columns("idx"), {}),
    "rte/train-00001-of-00002": (table(["sentence1", "sentence2"], [1], CLASS, first=2).drop_columns("idx"), {}),
    "rte/validation-00000-of-00001": (table(["sentence1", "sentence2"], [0], CLASS), {}),
}


def column(table, name, values, type):
    return table.set_column(table.column_names.index(name), name, pa.array(values, type))


SOUND = table(["sentence"], [1, 0, 1], CLASS)
BAD = {
    "null": column(SOUND, "sentence", ["A cat sat.", None, "A dog."], TEXT),
    "utf8": column(SOUND, "sentence", [b"A cat sat.", b"A d\xe9g.", b"A dog."], pa.binary()),
    "class": column(SOUND, "label", [1, 0, 2], CLASS),
    "unlabelled": column(SOUND, "label", [-1, -1, -1], CLASS),
    "words": column(SOUND, "label", ["acceptable", "unacceptable", "acceptable"], TEXT),
    "lists": column(SOUND, "sentence", [["A"], ["cat", "sat"], []], pa.list_(TEXT)),
    "columns": SOUND.rename_columns({"sentence": "text"}),
    "index": column(SOUND, "idx", [0, -1, 2], INDEX),
    "empty": SOUND.slice(0, 0),
}


def main():
    for folder in ["parquet", "bad_parquet"]:
        shutil.rmtree(HERE / folder, ignore_errors=True)
        (HERE / folder).mkdir()
    examples = {}
    for name, (content, options) in FILES.items():
        path = HERE / "parquet" / f"{name}.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(content, path, **options)
        split, (number, _) = name[: name.index("-")], name[name.index("-") + 1 :].split("-of-")
        rows = content.to_pylist()
        known = examples.setdefault(split, [])
        for row in rows:
            index = row.pop("idx", len(known))
            label = row.pop("label")
            known.append({"index": index, "label": label, "texts": row})
    text = json.dumps(examples, indent=1, ensure_ascii=False)
    (HERE / "parquet" / "examples.json").write_text(text + "\n")
    for name, content in BAD.items():
        pq.write_table(content, HERE / "bad_parquet" / f"{name}.parquet")


if __name__ == "__main__":
    main()
