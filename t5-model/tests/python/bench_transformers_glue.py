"""Times how fast Hugging Face's T5 answers prompts in PyTorch, for comparison with another implementation.

    python bench_transformers_glue.py --model DIR --tokenizer tokenizer.json --prompts prompts.json

PROMPTS is a JSON list of sets, `{"max_new_tokens": 16, "prompts": [[13, 8, 1], ...]}` with token ids. Answers come from
`generate`, greedily, with cached keys and values, under `torch.inference_mode`; a batch is padded to its longest prompt.
Prompts are sorted by length, the longest first, so that little is padded, unless --unsorted says to take them as they
come. Driven through standard input; every line of standard output is a JSON object. First it prints
`{"ready": true, ...}`, and after that answers

    answer N    ->  {"seconds": ..., "answers": [{"tokens": [...], "text": "..."}, ...]}    of the set N, in its order
    quit (EOF)  ->  {"peak_rss_bytes": ...}                                                 and ends

The time goes from lists of token ids to texts; tokens stand up to and without the end of sequence.
"""

import argparse
import json
import sys
import time

import torch
from bench_transformers import peak_memory, say
from tokenizers import Tokenizer
from transformers import T5ForConditionalGeneration
from transformers.utils import logging


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, metavar="DIR", help="checkpoint in Hugging Face layout")
    parser.add_argument("--tokenizer", required=True, metavar="FILE", help="its tokenizer.json")
    parser.add_argument("--prompts", required=True, metavar="FILE", help="the sets")
    parser.add_argument("--batch-size", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:0; default: %(default)s")
    parser.add_argument("--bf16", action="store_true", help="compute under bfloat16 autocast")
    parser.add_argument("--unsorted", action="store_true", help="take prompts as they come")
    return parser.parse_args()


@torch.inference_mode()
def answer(model, tokenizer, options, max_new_tokens, prompts):
    """The seconds it took, and each prompt's answer."""
    pad, eos = model.config.pad_token_id, model.config.eos_token_id
    device = torch.device(options.device)
    start = time.perf_counter()
    order = list(range(len(prompts)))
    if not options.unsorted:
        order.sort(key=lambda row: -len(prompts[row]))
    answers = [None] * len(prompts)
    for first in range(0, len(order), options.batch_size):
        rows = order[first : first + options.batch_size]
        longest = max(len(prompts[row]) for row in rows)
        ids = torch.tensor([prompts[row] + [pad] * (longest - len(prompts[row])) for row in rows])
        mask = torch.tensor([[1] * len(prompts[row]) + [0] * (longest - len(prompts[row])) for row in rows])
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=options.bf16):
            output = model.generate(
                input_ids=ids.to(device), attention_mask=mask.to(device), max_new_tokens=max_new_tokens,
                num_beams=1, do_sample=False, use_cache=True,
            )  # fmt: skip
        sequences = [row[1 : row.index(eos, 1) if eos in row[1:] else None] for row in output.tolist()]
        for row, tokens, text in zip(rows, sequences, tokenizer.decode_batch(sequences)):
            answers[row] = dict(tokens=tokens, text=text)
    return time.perf_counter() - start, answers


def main():
    options = arguments()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(options.threads)
    with open(options.prompts) as file:
        sets = json.load(file)
    tokenizer = Tokenizer.from_file(options.tokenizer)
    model = T5ForConditionalGeneration.from_pretrained(options.model).to(options.device).eval()
    answer(model, tokenizer, options, **sets[0])  # warms up
    say(ready=True, parameters=sum(parameter.numel() for parameter in model.parameters()))
    for line in sys.stdin:
        command = line.split()
        if command == ["quit"]:
            break
        if len(command) != 2 or command[0] != "answer" or not command[1].isdigit() or int(command[1]) >= len(sets):
            say(error=f"expected 'answer N' or 'quit', not {line.strip()!r}")
            continue
        seconds, answers = answer(model, tokenizer, options, **sets[int(command[1])])
        say(seconds=seconds, answers=answers)
    say(peak_rss_bytes=peak_memory())


if __name__ == "__main__":
    main()
