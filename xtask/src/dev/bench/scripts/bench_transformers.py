"""Times training steps of Hugging Face's T5 in PyTorch, for comparison with another implementation.

    python bench_transformers.py --steps 20     # 20 steps, a line each, then a summary
    python bench_transformers.py                # driven through standard input

A step is forward, backward and AdamW on a random batch without padding; no dropout, no gradient clipping. Attention is
what transformers calls eager, or sdpa with --sdpa. Every line of standard output is a JSON object. Driven, it first
prints `{"ready": true, ...}`, and after that answers

    step N      ->  {"ms": [...]}               the milliseconds of each of N further steps
    quit (EOF)  ->  {"summary": true, ...}      and ends

so that another program, `cargo xtask bench train`, can run others' steps in turn with these, and a noisy machine
disturbs both alike. With --steps each step prints `{"ms": 604.1}`. The summary has the median, least and greatest time
of all steps but the warm-up's, the loss of the last one, the largest resident set of this process, and on CUDA the most
that tensors and PyTorch's allocator have taken of the GPU's memory.

On CUDA nothing waits for the GPU but the end of N steps, and a step's time is what passes between two CUDA events. With
--bf16 what remains in float32 may be computed in TF32.
"""

import argparse
import statistics
import sys
import time

import torch
from bench_worker import peak_memory, say
from transformers import T5Config, T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5Attention


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
    parser.add_argument("--sdpa", action="store_true", help="attention by scaled_dot_product_attention")
    parser.add_argument("--compiled", action="store_true", help="compute under torch.compile")
    parser.add_argument("--bf16", action="store_true", help="compute under bfloat16 autocast")
    parser.add_argument("--optimizer", choices=["default", "fused"], default="default", help="AdamW's implementation")
    return parser.parse_args()


def make_bias_contiguous():
    """Lays position biases out for PyTorch's fast attention on CUDA.

    Releases of transformers such as 5.17 hand over a transposed one, for which PyTorch falls back to plain operations.
    """
    compute = T5Attention.compute_bias
    T5Attention.compute_bias = lambda *args, **kwargs: compute(*args, **kwargs).contiguous()


def build_model(options):
    config = T5Config(
        vocab_size=options.vocabulary, d_model=options.d_model, d_kv=options.d_kv, num_heads=options.heads,
        d_ff=options.d_ff, num_layers=options.layers, num_decoder_layers=options.decoder_layers,
        dropout_rate=0.0, feed_forward_proj="gated-gelu", tie_word_embeddings=False,
        decoder_start_token_id=0, use_cache=False,
    )  # fmt: skip
    attention = "sdpa" if options.sdpa else "eager"
    model = T5ForConditionalGeneration._from_config(config, attn_implementation=attention).train()
    # The constructor ties the head; T5 1.1 does not.
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.shared.weight) * config.d_model**-0.5)
    return model.to(options.device)


class Training:
    def __init__(self, options):
        if options.sdpa:
            make_bias_contiguous()
        if options.bf16:
            torch.set_float32_matmul_precision("high")
        torch.manual_seed(0)
        self.device = torch.device(options.device)
        self.bf16 = options.bf16
        model = build_model(options)
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        kind = {"fused": True} if options.optimizer == "fused" else {}
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01, **kind)
        # No attention mask: there is no padding, and one of ones would cost transformers time.
        self.batch = {
            name: torch.randint(2, options.vocabulary, (options.batch, length)).to(self.device)
            for name, length in [("input_ids", options.input_length), ("labels", options.target_length)]
        }
        self.forward = torch.compile(model) if options.compiled else model
        self.loss = None  # of the last step

    def step(self):
        """Trains for one step. On CUDA it returns before it is done."""
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            loss = self.forward(**self.batch).loss
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def turn(self, steps):
        """The milliseconds of each of some steps."""
        return self.turn_on_cuda(steps) if self.device.type == "cuda" else self.turn_on_cpu(steps)

    def turn_on_cpu(self, steps):
        times = []
        for _ in range(steps):
            start = time.perf_counter()
            self.loss = self.step().item()
            times.append((time.perf_counter() - start) * 1e3)
        return times

    def turn_on_cuda(self, steps):
        torch.cuda.synchronize(self.device)
        with torch.cuda.device(self.device):
            events = [torch.cuda.Event(enable_timing=True) for _ in range(steps + 1)]
            events[0].record()
            for event in events[1:]:
                loss = self.step()
                event.record()
        torch.cuda.synchronize(self.device)
        if steps:
            self.loss = loss.item()
        return [start.elapsed_time(end) for start, end in zip(events, events[1:])]


def peak_device_memory(device):
    """The most bytes that tensors took of a GPU's memory, and that PyTorch's allocator did."""
    if device.type != "cuda":
        return {}
    return dict(
        peak_allocated_bytes=torch.cuda.max_memory_allocated(device),
        peak_reserved_bytes=torch.cuda.max_memory_reserved(device),
    )


def rounded(times):
    return [round(milliseconds, 3) for milliseconds in times]


def main():
    options = arguments()
    torch.set_num_threads(options.threads)
    training = Training(options)
    training.turn(options.warm_up)  # compiles, too
    times = []
    if options.steps is not None:
        together = max(options.steps, 1) if training.device.type == "cuda" else 1
        while len(times) < options.steps:
            of_turn = rounded(training.turn(together))
            times += of_turn
            for milliseconds in of_turn:
                say(ms=milliseconds)
    else:
        say(ready=True, parameters=training.parameters, threads=torch.get_num_threads(), torch=torch.__version__)
        for line in sys.stdin:
            command = line.split()
            if command == ["quit"]:
                break
            if len(command) != 2 or command[0] != "step" or not command[1].isdigit():
                say(error=f"expected 'step N' or 'quit', not {line.strip()!r}")
                continue
            of_turn = rounded(training.turn(int(command[1])))
            times += of_turn
            say(ms=of_turn)
    say(
        summary=True, steps=len(times), parameters=training.parameters, threads=torch.get_num_threads(),
        loss=training.loss, median_ms=statistics.median(times) if times else None, min_ms=min(times, default=None),
        max_ms=max(times, default=None), peak_rss_bytes=peak_memory(), **peak_device_memory(training.device),
    )  # fmt: skip


if __name__ == "__main__":
    main()
