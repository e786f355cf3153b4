"""Writes byt5.json: what transformers' ByT5Tokenizer makes of texts and ids.

    python byt5_goldens.py

Takes transformers (5). `folders` are tokenizers in folders of their own, as the files there say.
"""

import json
import tempfile
from pathlib import Path

from transformers import AutoTokenizer, ByT5Tokenizer

HERE = Path(__file__).resolve().parent
TEXTS = [
    "The quick brown fox.",
    "  two  spaces,\ta tab\nand a line  ",
    "Hé llo wörld: \u00e9 is e\u0301, \u6f22\u5b57, \U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\x00 \x01 \x7f \x80 \xff \ufeff \ufffd",
    "",
    " ",
    "a <extra_id_0> b<extra_id_1>c <extra_id_124>",
    "<extra_id_125> <extra_id_x>",
    "The </s> end</s>  of <pad> all <unk> texts",
    "</s>",
    " <pad> <extra_id_3> </s> ",
    "<extra_id_0><extra_id_1></s></s>",
    "[X] <X> [NLU] a",
]
IDS = [
    [198, 168], [198, 75], [75, 198], [233, 191, 75], [243, 162, 155, 75], [230, 131, 75], [195, 131, 75], [248, 75],
    [259, 75, 260], [198, 259, 172], [0, 75, 1], [2, 75], [3, 4, 5], [131, 203, 70, 258], [383, 75], [],
]  # fmt: skip
FOLDERS = {
    "class": {"tokenizer_config.json": {"tokenizer_class": "ByT5Tokenizer"}},
    "class of the model": {
        "tokenizer_config.json": {"extra_ids": 125},
        "config.json": {"model_type": "t5", "tokenizer_class": "ByT5Tokenizer"},
    },
    "only the model": {"config.json": {"model_type": "t5", "tokenizer_class": "ByT5Tokenizer"}},
    "few sentinels": {"tokenizer_config.json": {"tokenizer_class": "ByT5Tokenizer", "extra_ids": 10}},
    "tokens as objects": {
        "tokenizer_config.json": {
            "tokenizer_class": "ByT5Tokenizer",
            "eos_token": {
                "content": "</s>", "lstrip": False, "rstrip": False, "normalized": True, "single_word": False,
                "__type": "AddedToken",
            },
            "extra_ids": 0,
            "additional_special_tokens": [*(f"<extra_id_{i}>" for i in range(5)), "[X]"],
        }
    },
    "saved": None,
}  # fmt: skip


def write(folder, files):
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))


def encoded(tokenizer):
    return [tokenizer(text, add_special_tokens=False).input_ids for text in TEXTS]


def decoded(tokenizer):
    return [tokenizer.decode(ids, skip_special_tokens=True) for ids in IDS]


def folder(files):
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        if files is None:
            ByT5Tokenizer().save_pretrained(place)
            files = {file.name: json.loads(file.read_text()) for file in place.iterdir()}
        write(place, {"config.json": {"model_type": "t5"}} | files)
        tokenizer = AutoTokenizer.from_pretrained(place)
        assert type(tokenizer) is ByT5Tokenizer
        return dict(files=files, tokens=len(tokenizer), encoded=encoded(tokenizer))


tokenizer = ByT5Tokenizer()
goldens = dict(
    tokens=len(tokenizer),
    texts=TEXTS,
    encoded=encoded(tokenizer),
    ids=IDS,
    decoded=decoded(tokenizer),
    shown=[tokenizer.decode(ids) for ids in IDS],
    folders={name: folder(files) for name, files in FOLDERS.items()},
)
(HERE / "byt5.json").write_text(json.dumps(goldens) + "\n")
