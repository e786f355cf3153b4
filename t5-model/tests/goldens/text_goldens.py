"""Writes text.parquet, as pyarrow writes the text of a dataset, and text.json with what is in it.

    python text_goldens.py

Takes pyarrow. The file has several row groups, a dictionary-encoded and a plain column of text, one with a null, a nested
one, and columns that hold no text.
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent
ROWS = 700

texts = [f"document {row}: " + "ä word and a\nline, " * (row % 7) for row in range(ROWS)]
kinds = ["news" if row % 3 else "prose" for row in range(ROWS)]
nested = [{"body": text[::-1]} for text in texts]
gaps = [None if row == 300 else text for row, text in enumerate(texts)]

table = pa.table(
    {
        "id": pa.array(range(ROWS), pa.int64()),
        "text": pa.array(texts, pa.string()),
        "kind": pa.array(kinds, pa.string()),
        "meta": pa.array(nested, pa.struct([("body", pa.string())])),
        "gaps": pa.array(gaps, pa.large_string()),
        "tags": pa.array([["a", "b"]] * ROWS, pa.list_(pa.string())),
    }
)
pq.write_table(table, HERE / "text.parquet", row_group_size=300, compression="zstd", use_dictionary=["kind"])
(HERE / "text.json").write_text(json.dumps({"text": texts[::100], "kind": kinds[::100], "every": 100}) + "\n")
