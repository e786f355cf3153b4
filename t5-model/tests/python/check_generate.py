"""Compares the answers of `cargo xtask generate --json` with those of transformers, and runs a model card's Python.

    python check_generate.py --model DIR --answers FILE [--beams N --length-penalty P]
    python check_generate.py --model DIR --card

DIR is an exported model with a tokenizer; FILE holds its answers to some inputs, several in a row to each with --beams.
Text must be what transformers' tokenizer shows of the tokens, and the tokens, and with --beams the scores, those of its
`generate`; of a greedy answer the log probability must be that of transformers' logits. The card's code runs in the folder
that holds DIR, as a user would run it, with nobody there to answer questions. Exits with 1 if anything differs.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.utils import logging

MAX_NEW_TOKENS = 16


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path, metavar="DIR")
    parser.add_argument("--answers", type=Path, metavar="FILE")
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--length-penalty", type=float, default=1.0)
    parser.add_argument("--card", action="store_true")
    return parser.parse_args()


def run_card(directory):
    code = re.findall(r"^```python\n(.*?)^```", (directory / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    if len(code) != 1:
        yield f"the card of {directory} has {len(code)} blocks of Python"
    for block in code:
        ran = subprocess.run(
            [sys.executable, "-c", block], cwd=directory.parent, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if ran.returncode != 0 or "<extra_id_0>" not in ran.stdout and "<pad>" not in ran.stdout:
            yield f"the card of {directory} fails: {ran.stdout}\n{ran.stderr}"


def compare(options):
    model = AutoModelForSeq2SeqLM.from_pretrained(options.model, trust_remote_code=True).double().eval()
    tokenizer = AutoTokenizer.from_pretrained(options.model, trust_remote_code=True)
    answers = json.loads(options.answers.read_text())
    for at in range(0, len(answers), options.beams):
        said = answers[at : at + options.beams]
        inputs = tokenizer(said[0]["input"], return_tensors="pt")
        output = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=MAX_NEW_TOKENS,
            num_beams=options.beams,
            num_return_sequences=options.beams,
            length_penalty=options.length_penalty if options.beams > 1 else None,
            do_sample=False,
            output_scores=True,
            return_dict_in_generate=True,
        )
        special = {tokenizer.pad_token_id, tokenizer.eos_token_id}
        for row, answer in enumerate(said):
            sequence = output.sequences[row, 1:].tolist()
            ended = tokenizer.eos_token_id in sequence
            tokens = sequence[: sequence.index(tokenizer.eos_token_id)] if ended else sequence
            if answer["tokens"] != tokens:
                yield f"{answer['input']!r}: {answer['tokens']}, expected {tokens}"
                continue
            text = tokenizer.decode([token for token in tokens if token not in special])
            if answer["output"] != text:
                yield f"{answer['input']!r}: {answer['output']!r}, expected {text!r}"
            labels = torch.tensor([tokens + [tokenizer.eos_token_id] * ended])
            logits = model(**inputs, labels=labels).logits.log_softmax(-1)
            expected = logits.gather(-1, labels[..., None]).sum().item()
            if abs(answer["log_probability"] - expected) > 1e-3:
                yield f"{answer['input']!r}: log probability {answer['log_probability']}, expected {expected}"
            if options.beams > 1 and abs(answer["score"] - output.sequences_scores[row].item()) > 1e-4:
                yield f"{answer['input']!r}: score {answer['score']}, expected {output.sequences_scores[row].item()}"


def main():
    options = arguments()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    failures = list(run_card(options.model) if options.card else compare(options))
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
