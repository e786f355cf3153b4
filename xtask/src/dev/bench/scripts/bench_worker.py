"""What the benches' workers share: they are driven through standard input and answer in JSON, a line each.

A worker of `cargo xtask bench glue` takes PROMPTS, a JSON list of sets, `{"max_new_tokens": 16, "prompts": [[13, 8, 1],
...]}` with token ids. First it prints `{"ready": true, ...}`, and after that answers

    answer N    ->  {"seconds": ..., "answers": [{"tokens": [...], "text": "..."}, ...]}    of the set N, in its order
    quit (EOF)  ->  {"peak_rss_bytes": ...}                                                 and ends

The time goes from lists of token ids to texts; tokens stand up to and without the end of sequence. Prompts are answered
in batches, sorted by length, the longest first, so that little is padded.
"""

import argparse
import json
import resource
import sys
import time

from tokenizers import Tokenizer


def say(**fields):
    print(json.dumps(fields), flush=True)


def peak_memory():
    """The process's largest resident set in bytes. getrusage, where there is no /proc, also counts who started it."""
    try:
        with open("/proc/self/status") as status:
            return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    except OSError:
        # Linux would count kibibytes; macOS, where this is for, counts bytes.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def glue_parser(description):
    """The options that all workers of `bench glue` have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, metavar="DIR", help="checkpoint in Hugging Face layout")
    parser.add_argument("--tokenizer", required=True, metavar="FILE", help="its tokenizer.json")
    parser.add_argument("--prompts", required=True, metavar="FILE", help="the sets")
    parser.add_argument("--batch-size", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:0; default: %(default)s")
    return parser


def answer_glue(options, parameters, generate, by_length=True):
    """Answers what standard input asks for.

    `generate` takes a batch of prompts and the number of new tokens, and gives a list of tokens for each prompt.
    """
    with open(options.prompts) as file:
        sets = json.load(file)
    tokenizer = Tokenizer.from_file(options.tokenizer)

    def answer(max_new_tokens, prompts):
        start = time.perf_counter()
        order = list(range(len(prompts)))
        if by_length:
            order.sort(key=lambda row: -len(prompts[row]))
        answers = [None] * len(prompts)
        for first in range(0, len(order), options.batch_size):
            rows = order[first : first + options.batch_size]
            sequences = generate([prompts[row] for row in rows], max_new_tokens)
            for row, tokens, text in zip(rows, sequences, tokenizer.decode_batch(sequences)):
                answers[row] = dict(tokens=tokens, text=text)
        return dict(seconds=time.perf_counter() - start, answers=answers)

    answer(**sets[0])  # warms up
    say(ready=True, parameters=parameters)
    for line in sys.stdin:
        command = line.split()
        if command == ["quit"]:
            break
        if len(command) != 2 or command[0] != "answer" or not command[1].isdigit() or int(command[1]) >= len(sets):
            say(error=f"expected 'answer N' or 'quit', not {line.strip()!r}")
            continue
        say(**answer(**sets[int(command[1])]))
    say(peak_rss_bytes=peak_memory())
