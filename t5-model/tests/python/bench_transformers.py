"""Times training steps of Hugging Face's T5 in PyTorch, for comparison with another implementation.

    python bench_transformers.py --steps 20     # 20 steps, a line each, then a summary
    python bench_transformers.py                # driven through standard input

A step is forward, backward and AdamW on a random batch without padding; no dropout, no gradient clipping. Every line of
standard output is a JSON object. Driven, it first prints `{"ready": true, ...}`, and after that answers

    step N      ->  {"ms": [...]}               the milliseconds of each of N further steps
    quit (EOF)  ->  {"summary": true, ...}      and ends

so that another program, `cargo xtask bench train`, can run others' steps in turn with these, and a noisy machine
disturbs both alike. With --steps each step prints `{"ms": 604.1}`. The summary has the median, least and greatest time
of all steps but the warm-up's, the loss of the last one, and the largest resident set of this process.
"""

import argparse
import json
import resource
import statistics
import sys
import time

import torch
from transformers import T5Config, T5ForConditionalGeneration


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag, default in [
        ("d-model", 256), ("d-kv", 64), ("heads", 4), ("d-ff", 512), ("layers", 4), ("decoder-layers", None),
        ("vocabulary", 8192), ("batch", 16), ("input-length", 128), ("target-length", 32), ("threads", 2),
        ("warm-up", 3),
    ]:  # fmt: skip
        parser.add_argument("--" + flag, type=int, default=default, help="default: %(default)s")
    parser.add_argument("--steps", type=int, help="run this many steps and stop; without it, read standard input")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:0; default: %(default)s")
    parser.add_argument("--compile", action="store_true", help="compute under torch.compile")
    parser.add_argument("--bf16", action="store_true", help="compute under bfloat16 autocast")
    parser.add_argument("--optimizer", choices=["default", "fused"], default="default", help="AdamW's implementation")
    return parser.parse_args()


def stepper(options):
    """A function that trains for one step and returns its milliseconds and loss."""
    torch.manual_seed(0)
    device = torch.device(options.device)
    config = T5Config(
        vocab_size=options.vocabulary, d_model=options.d_model, d_kv=options.d_kv, num_heads=options.heads,
        d_ff=options.d_ff, num_layers=options.layers, num_decoder_layers=options.decoder_layers,
        dropout_rate=0.0, feed_forward_proj="gated-gelu", tie_word_embeddings=False,
        decoder_start_token_id=0, use_cache=False,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config).train()
    # The constructor ties the head; T5 1.1 does not.
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.shared.weight) * config.d_model**-0.5)
    model.to(device)
    kind = {"fused": True} if options.optimizer == "fused" else {}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01, **kind)
    batch = dict(
        input_ids=torch.randint(2, options.vocabulary, (options.batch, options.input_length), device=device),
        attention_mask=torch.ones(options.batch, options.input_length, dtype=torch.long, device=device),
        labels=torch.randint(2, options.vocabulary, (options.batch, options.target_length), device=device),
    )
    forward = torch.compile(model) if options.compile else model
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None

    def step():
        synchronize()
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=options.bf16):
            loss = forward(**batch).loss
        loss.backward()
        optimizer.step()
        loss = loss.item()
        synchronize()
        return round((time.perf_counter() - start) * 1e3, 2), loss

    return step, sum(parameter.numel() for parameter in model.parameters())


def peak_memory():
    """The process's largest resident set in bytes. getrusage, where there is no /proc, also counts who started it."""
    try:
        with open("/proc/self/status") as status:
            return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    except OSError:
        # Linux would count kibibytes; macOS, where this is for, counts bytes.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def say(**fields):
    print(json.dumps(fields), flush=True)


def main():
    options = arguments()
    torch.set_num_threads(options.threads)
    step, parameters = stepper(options)
    for _ in range(options.warm_up):
        step()
    times, loss = [], None
    if options.steps is not None:
        for _ in range(options.steps):
            milliseconds, loss = step()
            times.append(milliseconds)
            say(ms=milliseconds)
    else:
        say(ready=True, parameters=parameters, threads=torch.get_num_threads(), torch=torch.__version__)
        for line in sys.stdin:
            command = line.split()
            if command == ["quit"]:
                break
            if len(command) != 2 or command[0] != "step" or not command[1].isdigit():
                say(error=f"expected 'step N' or 'quit', not {line.strip()!r}")
                continue
            round_times = []
            for _ in range(int(command[1])):
                milliseconds, loss = step()
                round_times.append(milliseconds)
            times += round_times
            say(ms=round_times)
    say(
        summary=True, steps=len(times), parameters=parameters, threads=torch.get_num_threads(), loss=loss,
        median_ms=statistics.median(times) if times else None, min_ms=min(times, default=None),
        max_ms=max(times, default=None),
        peak_rss_bytes=peak_memory(),
    )  # fmt: skip


if __name__ == "__main__":
    main()
