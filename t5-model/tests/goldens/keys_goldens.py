"""What transformers makes of the keys in a T5's files: `keys.json`, and a small vocabulary in `tokenizer/`.

    python keys_goldens.py --transformers-4 DIR     # DIR holds transformers 4, for the same torch

Everything is done with both releases. `keys.json` holds, for `config.json`, `generation_config.json` and
`tokenizer_config.json`,

- `known`: the keys that one of the releases reads, gathered from their source;
- `cases`: changes to a file, and what each release makes of them.

A case of `config.json` gives what the configuration then says (`effective`), and whether the model's logits and greedy
answers are still those of the model without the change (`logits`, `answers`; null where its weights no longer fit).
A case of `generation_config.json` gives the answers, with all tokens that `generate` returns. A case of a tokenizer
gives the ids of texts, and texts of ids. Where a release fails, the case says `error`.

The model is `v1_1` of the conformance suite.
"""

import argparse
import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODEL = HERE.parent.parent / "src/conformance/goldens/v1_1"
TOKENIZER = HERE / "tokenizer"

# Changes to config.json; null removes nothing, it is a value.
CONFIG = [
    *({"vocab_size": n} for n in (61, 70)),
    {"d_model": 40},
    {"hidden_size": 40},
    {"hidden_size": 20},
    {"d_kv": 4},
    {"head_dim": 4},
    {"d_ff": 30},
    {"num_heads": 5},
    {"num_attention_heads": 5},
    {"num_layers": 1},
    {"num_hidden_layers": 1},
    {"num_decoder_layers": None},
    {"num_decoder_layers": None, "num_hidden_layers": 1},
    {"num_decoder_layers": 1},
    {"relative_attention_num_buckets": 6},
    {"relative_attention_max_distance": 16},
    {"layer_norm_epsilon": 0.01},
    {"feed_forward_proj": "gated-gelu"},
    {"feed_forward_proj": "gated-gelu_new"},
    {"feed_forward_proj": "gated-gelu_pytorch_tanh"},
    {"feed_forward_proj": "gated-silu"},
    {"feed_forward_proj": "relu"},
    {"feed_forward_proj": "gelu_new"},
    {"feed_forward_proj": "gated-relu-too"},
    {"dense_act_fn": "gelu_new", "is_gated_act": True},
    {"dense_act_fn": "gelu_fast"},
    {"dense_act_fn": "gelu_accurate"},
    {"dense_act_fn": "gelu_pytorch_tanh"},
    {"dense_act_fn": "gelu_python_tanh"},
    {"dense_act_fn": "gelu"},
    {"dense_act_fn": "relu"},
    {"dense_act_fn": "silu"},
    {"dense_act_fn": "quick_gelu"},
    {"dense_act_fn": "gelu_10"},
    {"is_gated_act": True},
    {"is_gated_act": False},
    {"is_gated_act": False, "dense_act_fn": "relu"},
    {"feed_forward_proj": "relu", "is_gated_act": True, "dense_act_fn": "gelu_new"},
    {"tie_word_embeddings": False},
    {"scale_decoder_outputs": False},
    {"pad_token_id": 3},
    {"eos_token_id": 5},
    {"eos_token_id": [1, 5]},
    {"decoder_start_token_id": 4},
    {"bos_token_id": 4},
    {"model_type": "t5"},
    {"is_encoder_decoder": True},
    {"is_encoder_decoder": False},
    {"tie_encoder_decoder": True},
    {"tie_encoder_decoder": False},
    {"pruned_heads": {"0": [1]}},
    {"pruned_heads": {}},
    {"per_layer_config": {"0": {"d_ff": 10}}},
    {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
    {"configuration_files": ["config.4.0.0.json"]},
    {"architectures": ["T5Model"]},
    {"auto_map": {"AutoConfig": "configuration.Config"}},
    {"is_decoder": True},
    {"add_cross_attention": True},
    {"cross_attention_hidden_size": 7},
    {"dtype": "float32"},
    {"torch_dtype": "float32"},
    {"dropout_rate": 0.3},
    {"initializer_factor": 3.0},
    {"classifier_dropout": 0.3},
    {"gradient_checkpointing": True},
    {"num_labels": 3},
    {"id2label": {"0": "a", "1": "b", "2": "c"}},
    {"label2id": {"a": 0, "b": 1}},
    {"problem_type": "regression"},
    {"finetuning_task": "cola"},
    {"use_cache": False},
    {"chunk_size_feed_forward": 2},
    {"attn_implementation": "eager"},
    {"experts_implementation": "eager"},
    {"layer_types": None},
    {"mlp_layer_types": None},
    {"rope_scaling": None},
    {"rope_theta": 10000.0},
    {"tie_last_hidden_states": True},
    {"tf_legacy_loss": True},
    {"use_bfloat16": True},
    {"torchscript": False},
    {"return_dict": True},
    {"output_hidden_states": True},
    {"output_attentions": False},
    {"task_specific_params": {"summarization": {"num_beams": 4, "max_length": 3, "prefix": "summarize: "}}},
    {"prefix": "summarize: "},
    {"sep_token_id": 3},
    {"tokenizer_class": "T5Tokenizer"},
    {"_name_or_path": "elsewhere"},
    {"name_or_path": "elsewhere"},
    {"_commit_hash": "0123"},
    {"transformers_version": "3.0.0"},
]

# Settings for generation, in their own file and in config.json.
IDS = dict(decoder_start_token_id=0, eos_token_id=1, pad_token_id=0, max_new_tokens=12)
GENERATION = [
    {},
    {"decoder_start_token_id": 7},
    {"decoder_start_token_id": None, "bos_token_id": 7},
    {"bos_token_id": 7},
    {"eos_token_id": 30},
    {"eos_token_id": [30, 1]},
    {"pad_token_id": 3},
    {"max_new_tokens": 3},
    {"max_new_tokens": None, "max_length": 5},
    {"max_new_tokens": 6, "max_length": 3},
    {"min_new_tokens": 9, "max_new_tokens": 10},
    {"min_length": 8, "max_new_tokens": 10},
    {"forced_bos_token_id": 9},
    {"force_bos_token_to_be_generated": True},
    {"forced_eos_token_id": 1, "max_new_tokens": 4},
    {"forced_eos_token_id": [8, 9], "max_new_tokens": 4},
    {"suppress_tokens": "most frequent"},
    {"begin_suppress_tokens": "most frequent"},
    {"begin_suppress_tokens": "most frequent", "forced_bos_token_id": 9},
    {"bad_words_ids": "most frequent"},
    {"bad_words_ids": [[1]]},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.7},
    {"no_repeat_ngram_size": 1},
    {"no_repeat_ngram_size": 2},
    {"no_repeat_ngram_size": 2, "repetition_penalty": 0.6, "min_new_tokens": 9, "suppress_tokens": [3, 4, 5]},
    {"encoder_repetition_penalty": 1.5},
    {"encoder_no_repeat_ngram_size": 1},
    {"sequence_bias": [[[9], 3.0]]},
    {"exponential_decay_length_penalty": [2, 1.5]},
    {"guidance_scale": 1.0},
    {"token_healing": False},
    {"watermarking_config": {"bias": 3.0}},
    {"stop_strings": None},
    {"max_time": None},
    {"num_beams": 4},
    {"num_beam_groups": 1},
    {"penalty_alpha": None},
    {"dola_layers": None},
    {"constraints": None},
    {"force_words_ids": None},
    {"do_sample": True},
    {"num_return_sequences": 1},
    {"temperature": 0.3},
    {"top_k": 3},
    {"top_p": 0.3},
    {"min_p": 0.1},
    {"top_h": 0.5},
    {"typical_p": 0.3},
    {"epsilon_cutoff": 0.1},
    {"eta_cutoff": 0.1},
    {"length_penalty": 2.0},
    {"early_stopping": True},
    {"diversity_penalty": 0.0},
    {"renormalize_logits": True},
    {"remove_invalid_values": True},
    {"is_assistant": False},
    {"num_assistant_tokens": 5},
    {"num_assistant_tokens_schedule": "constant"},
    {"assistant_confidence_threshold": 0.2},
    {"assistant_early_exit": None},
    {"assistant_lookbehind": 5},
    {"assistant_ensemble_weight": None},
    {"target_lookbehind": 5},
    {"prompt_lookup_num_tokens": None},
    {"max_matching_ngram_size": 2},
    {"speculation_type": None},
    {"use_mtp": None},
    {"use_cache": False},
    {"cache_implementation": None},
    {"cache_config": None},
    {"max_cache_len": None},
    {"low_memory": None},
    {"prefill_chunk_size": None},
    {"compile_config": None},
    {"disable_compile": True},
    {"continuous_batching_config": None},
    {"return_legacy_cache": False},
    {"output_attentions": False},
    {"output_hidden_states": False},
    {"output_scores": False},
    {"output_logits": False},
    {"return_dict_in_generate": False},
    {"generation_kwargs": {}},
    {"_from_model_config": False},
    {"_commit_hash": "0123"},
    {"transformers_version": "4.0.0"},
]

TEXTS = [
    "",
    "a bird carries water home",
    "  two  spaces,\ta tab\nand a line  ",
    "The <extra_id_0> walks in<extra_id_1> park </s> <pad>x",
    "<extra_id_7><sep> home <sep>water<s>",
    "old stones. isn't it ? yes , it 's",
    "ﬁne ½ ｆｕｌｌ e\u0301é \u200b\u00ad 日本 🙂 ▁ under",
]
SPECIAL = {"additional_special_tokens": ["<sep>"]}
TOKENIZERS = [
    *({"files": files} for files in (["spiece.model"], ["tokenizer.json"], ["spiece.model", "tokenizer.json"])),
    {"tokenizer_config.json": {"tokenizer_class": "T5Tokenizer"}},
    {"tokenizer_config.json": {"tokenizer_class": "T5TokenizerFast", "extra_ids": 100}},
    {"files": ["tokenizer.json"], "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"}},
    {"tokenizer_config.json": {"tokenizer_class": "T5Tokenizer", "extra_ids": 5}},
    {"tokenizer_config.json": {"tokenizer_class": "T5Tokenizer", "extra_ids": 0}},
    {"tokenizer_config.json": {"tokenizer_class": "T5Tokenizer", "eos_token": "water"}},
    {"tokenizer_config.json": {"tokenizer_class": "T5Tokenizer", "pad_token": "</s>"}},
    {"tokenizer_config.json": {"tokenizer_class": "T5Tokenizer", "bos_token": "<s>"}},
    *(
        {"files": ["tokenizer.json"], "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", **more}}
        for more in (
            {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"},
            {"eos_token": "</s>", "pad_token": "<pad>", "bos_token": "<s>", "sep_token": "<sep>"},
            {"eos_token": "</s>", "pad_token": "<pad>", "cls_token": "<cls>", "mask_token": "<sep>"},
            {"eos_token": {"content": "</s>", "lstrip": False, "rstrip": False}, "pad_token": "<pad>"},
            {"additional_special_tokens": ["<sep>", "<s>"]},
            {"extra_special_tokens": {"sep_token": "<sep>"}},
            {
                "added_tokens_decoder": {
                    "0": {"content": "<pad>", "special": True},
                    "331": {"content": "<sep>", "special": True, "lstrip": True, "rstrip": True},
                    "330": {"content": "home", "special": False, "normalized": False},
                }
            },
            {"split_special_tokens": True},
            {"clean_up_tokenization_spaces": True},
            {"clean_up_tokenization_spaces": False},
            {"add_eos_token": False, "add_bos_token": True},
            {"model_max_length": 4, "truncation_side": "left", "padding_side": "left"},
            {"legacy": False},
            {"add_prefix_space": True},
            {"sp_model_kwargs": {"alpha": 0.1}},
            {"do_lower_case": True},
        )
    ),
    {"files": ["tokenizer.json"], "special_tokens_map.json": SPECIAL},
    {"files": ["tokenizer.json"], "special_tokens_map.json": {"eos_token": {"content": "</s>"}, "sep_token": "<sep>"}},
    {
        "files": ["tokenizer.json"],
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"},
        "added_tokens.json": {"<sep>": 330, "home": 331},
    },
    {
        "files": ["tokenizer.json"],
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": {}},
        "special_tokens_map.json": SPECIAL,
    },
]


def vocabulary():
    """Trains a small SentencePiece model with T5's layout, and converts it."""
    import sentencepiece
    import transformers

    words = (
        "the river moved past old stones while a quiet bird watched children carry water home before evening came "
        "again and it is fine to walk under trees in a park yes no carries isn't don't two spaces tab line"
    ).split()
    ends = ["", "s", "ed", "ing", "er", "ly", "est", "ness", ".", ",", "?", "!"]
    word = lambda n: words[n % len(words)] + ends[(n // 3) % len(ends)]
    lines = [" ".join(word(i * k) for i in range(1, 30)) for k in range(1, 200)]
    TOKENIZER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text"
        text.write_text("\n".join(lines))
        sentencepiece.SentencePieceTrainer.train(
            input=str(text), model_prefix=f"{folder}/spiece", vocab_size=230, model_type="unigram", pad_id=0, eos_id=1,
            unk_id=2, bos_id=-1, num_threads=1, hard_vocab_limit=False, minloglevel=2, normalization_rule_name="identity",
        )  # fmt: skip
        shutil.copy(f"{folder}/spiece.model", TOKENIZER)
        (TOKENIZER / "tokenizer.json").unlink(missing_ok=True)
        transformers.T5Tokenizer.from_pretrained(str(TOKENIZER)).save_pretrained(folder)
        shutil.copy(f"{folder}/tokenizer.json", TOKENIZER)


def read_keys(folder):
    """Names of keys that a release's source reads, from its syntax trees."""

    def tree(path):
        return ast.parse((folder / path).read_text())

    def class_of(path, name):
        return next(node for node in ast.walk(tree(path)) if isinstance(node, ast.ClassDef) and node.name == name)

    def read(node):
        keys = set()
        for call in ast.walk(node):
            method = isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr
            first = call.args[0] if method and call.args else None
            owner = isinstance(getattr(call, "func", None), ast.Attribute) and ast.unparse(call.func.value)
            if method in ("pop", "get", "setdefault") and owner in ("kwargs", "init_kwargs", "local_kwargs"):
                if isinstance(first, ast.Constant) and isinstance(first.value, str):
                    keys.add(first.value)
        return keys

    def arguments(function):
        names = [a.arg for a in function.args.args + function.args.kwonlyargs]
        return {name for name in names if name not in ("self", "cls")}

    def methods(node, *names):
        return [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name in names]

    def fields(node):
        annotated = [n for n in node.body if isinstance(n, ast.AnnAssign)]
        return {n.target.id for n in annotated if "ClassVar" not in ast.unparse(n.annotation)}

    source = (folder / "configuration_utils.py").read_text()
    base = "PreTrainedConfig" if "class PreTrainedConfig" in source else "PretrainedConfig"  # a dataclass in 5
    t5, pretrained = class_of("models/t5/configuration_t5.py", "T5Config"), class_of("configuration_utils.py", base)
    config = set()
    for node in (t5, pretrained):
        config |= fields(node) if base == "PreTrainedConfig" else set()
        for method in methods(node, "__init__", "__post_init__"):
            config |= arguments(method) | read(method)
    for statement in t5.body:
        if isinstance(statement, ast.Assign) and statement.targets[0].id == "attribute_map":
            config |= set(ast.literal_eval(statement.value))
    settings = class_of("generation/configuration_utils.py", "GenerationConfig")
    generation = set().union(*(read(method) for method in methods(settings, "__init__")))
    tokenizer = set()
    for path, name in (
        ("models/t5/tokenization_t5.py", "T5Tokenizer"),
        ("models/t5/tokenization_t5_fast.py", "T5TokenizerFast"),
        ("tokenization_utils_tokenizers.py", "TokenizersBackend"),
        ("tokenization_utils_fast.py", "PreTrainedTokenizerFast"),
        ("tokenization_utils_base.py", "PreTrainedTokenizerBase"),
    ):
        if (folder / path).is_file():
            for method in methods(class_of(path, name), "__init__", "_from_pretrained"):
                tokenizer |= read(method) | (arguments(method) if method.name == "__init__" else set())
    ids = {"eos_token_id", "pad_token_id", "decoder_start_token_id", "bos_token_id"}
    return {"config": config - generation | ids, "generation": generation, "tokenizer": tokenizer}


class Release:
    """The transformers of this process."""

    def __init__(self):
        import torch
        import transformers
        from safetensors.torch import load_file

        transformers.logging.set_verbosity_error()
        self.torch, self.transformers = torch, transformers
        batch = load_file(str(MODEL / "reference.safetensors"))
        self.batch = {name: batch[name].long() for name in ("input_ids", "attention_mask", "labels")}
        self.base = json.loads((MODEL / "config.json").read_text())
        self.ordinary = self.config({})

    def directory(self, folder, config):
        (Path(folder) / "config.json").write_text(json.dumps(config))
        shutil.copy(MODEL / "model.safetensors", folder)
        return str(folder)

    def run(self, folder):
        model = self.transformers.T5ForConditionalGeneration.from_pretrained(folder, dtype=self.torch.float32).eval()
        with self.torch.no_grad():
            logits = model(**self.batch).logits
        return logits, model

    def answers(self, model, **settings):
        inputs = {name: self.batch[name] for name in ("input_ids", "attention_mask")}
        # Its cache has as many layers as the encoder, in some releases of transformers 5.
        output = model.generate(**inputs, **settings, use_cache=False)
        return getattr(output, "sequences", output).tolist()

    def config(self, change):
        transformers = self.transformers
        with tempfile.TemporaryDirectory() as folder:
            path = self.directory(folder, {**self.base, **change})
            sizes = (
                "vocab_size", "d_model", "d_kv", "d_ff", "num_heads", "num_layers", "num_decoder_layers",
                "relative_attention_num_buckets", "relative_attention_max_distance", "layer_norm_epsilon",
                "pad_token_id", "eos_token_id", "decoder_start_token_id", "dense_act_fn", "is_gated_act",
            )  # fmt: skip
            try:
                config = transformers.AutoConfig.from_pretrained(path)
                effective = {key: getattr(config, key) for key in sizes}
            except Exception:
                return {"error": True}
            effective["scaled"] = getattr(config, "scale_decoder_outputs", config.tie_word_embeddings)
            try:
                logits, model = self.run(path)
            except RuntimeError as error:  # sizes
                return {"effective": effective, "logits": None if "size" in str(error) else "error", "answers": None}
            except Exception:
                return {"effective": effective, "logits": "error", "answers": "error"}
            try:
                answers = self.answers(model, max_new_tokens=12)
            except Exception:
                answers = "error"
            if not hasattr(self, "logits"):
                self.logits, self.greedy = logits, answers
            scale = self.logits.abs().max()
            same = logits.shape == self.logits.shape and (logits - self.logits).abs().max() <= 2e-6 * scale
            own = "error" if answers == "error" else "same" if answers == self.greedy else "other"
            return {"effective": effective, "logits": "same" if same else "other", "answers": own}

    def frequent(self):
        tokens = [token for row in self.greedy for token in row[1:] if token not in (0, 1)]
        return max(sorted(set(tokens)), key=tokens.count)

    def generation(self, change, place):
        change = {k: (self.frequent() if v == "most frequent" else v) for k, v in change.items()}
        for key in ("suppress_tokens", "begin_suppress_tokens"):
            if isinstance(change.get(key), int):
                change[key] = [change[key]]
        if isinstance(change.get("bad_words_ids"), int):
            frequent = change["bad_words_ids"]
            rows = [row[1:] for row in self.greedy]
            pair = next(row[i : i + 2] for row in rows for i in range(len(row) - 1) if row[i] > 1 and row[i + 1] > 1)
            change["bad_words_ids"] = [[frequent], pair]
        settings = {key: value for key, value in {**IDS, **change}.items()}
        with tempfile.TemporaryDirectory() as folder:
            config = dict(self.base, **(settings if place == "config" else {}))
            path = self.directory(folder, config)
            if place == "own":
                (Path(folder) / "generation_config.json").write_text(json.dumps(settings))
            self.torch.manual_seed(0)
            try:
                _, model = self.run(path)
                answers = self.answers(model)
            except Exception:
                answers = "error"
        return settings, answers

    def tokenizer(self, case):
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            for name in case.get("files", ["spiece.model"]):
                shutil.copy(TOKENIZER / name, folder)
            for name, content in case.items():
                if name != "files":
                    (folder / name).write_text(json.dumps(content))
            (folder / "config.json").write_text(json.dumps(self.base))
            try:
                tokenizer = self.transformers.AutoTokenizer.from_pretrained(str(folder))
                ids = [tokenizer(text).input_ids for text in TEXTS]
                ordinary = self.transformers.AutoTokenizer.from_pretrained(str(folder)).convert_tokens_to_ids
                return {
                    "ids": ids,
                    "texts": [tokenizer.decode(row, skip_special_tokens=True) for row in ids],
                    "size": len(tokenizer),
                    "eos": tokenizer.eos_token_id,
                    "pad": tokenizer.pad_token_id,
                    "sentinel": ordinary("<extra_id_0>"),
                }
            except Exception as error:
                return {"error": str(error).splitlines()[0]}


def measure():
    release = Release()
    generation = []
    for place, changes in (("own", GENERATION), ("config", GENERATION[:5] + GENERATION[12:18])):
        for change in changes:
            settings, answers = release.generation(change, place)
            generation.append({"keys": sorted(change), "place": place, "settings": settings, "answers": answers})
    return {
        "version": release.transformers.__version__,
        "known": {file: sorted(keys) for file, keys in read_keys(Path(release.transformers.__file__).parent).items()},
        "ordinary": release.ordinary["effective"],
        "config": [{"change": change, **release.config(change)} for change in CONFIG],
        "generation": generation,
        "tokenizer": [{"case": case, **release.tokenizer(case)} for case in TOKENIZERS],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transformers-4", metavar="DIR")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    if arguments.measure:
        print("\n" + json.dumps(measure()))
        return
    vocabulary()
    releases = {}
    for name, path in (("5", None), ("4", arguments.transformers_4)):
        environment = dict(os.environ, **({"PYTHONPATH": path} if path else {}))
        command = [sys.executable, __file__, "--measure"]
        output = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
        releases[name] = json.loads(output.splitlines()[-1])
        assert releases[name]["version"].startswith(name), "that is another release"
    goldens = {"texts": TEXTS, "ordinary": releases["5"]["ordinary"], "known": {}}
    for file in ("config", "generation", "tokenizer"):
        both = [releases[name]["known"][file] for name in releases]
        goldens["known"][file] = sorted(set().union(*both))
    for file in ("config", "generation", "tokenizer"):
        goldens[file] = []
        for five, four in zip(releases["5"][file], releases["4"][file]):
            shared = {key: five.pop(key) for key in ("change", "case", "keys", "place", "settings") if key in five}
            [four.pop(key) for key in shared]
            goldens[file].append({**shared, "5": five, "4": four})
    text = json.dumps(goldens, ensure_ascii=False, indent=1)
    text = re.sub(r"\[\s+((?:-?\d+,?\s+)*-?\d+)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m.group(1)) + "]", text)
    (HERE / "keys.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
