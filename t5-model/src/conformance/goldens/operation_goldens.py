"""What each of T5's operations computes, in PyTorch and float64.

    python operation_goldens.py            # rewrites operations.safetensors beside this file

A case is a handful of tensors `<case>|<role>.<name>`, f32 or i64:

- `in.<name>`: what the operation is applied to; three dimensions for an activation, one or two for a parameter;
- `int.<name>`: token ids, buckets, masks;
- `out.y`: the result; `out.losses`, `out.correct`: the cross-entropy of predicting each of `int.labels` from `y` with the
  head `in.head`, and whether it was hit; zeros for labels that do not count;
- `grad.<name>` for every `in.<name>`: the gradient of `scale * sum(cross-entropy + z_loss * log(Z)^2)`, with scale 0.1 and
  z_loss 0.01.

So every case goes through the loss as well. The inputs are f32 numbers; all else is computed in float64 and then rounded.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent
VOCABULARY = 7
SCALE, Z_LOSS = 0.1, 0.01
# What the project's own draw keeps of 48 elements; the suite compares it with its `DropoutDraw`. Its rate is 1/4.
KEPT = "111100111011110101100001111101101011111011111111"


def random(*shape, scale=1.0):
    return (torch.randn(*shape, dtype=torch.float64) * scale).float()


def factors(*shape):
    kept = torch.tensor([float(bit) for bit in KEPT], dtype=torch.float64)
    return kept[: torch.Size(shape).numel()].view(*shape) / 0.75


def attention(q, k, v, heads, bias=None, causal=False, mask=None, dropout=None):
    (batch, query, inner), key = q.shape, k.shape[1]
    q, k, v = (x.view(batch, -1, heads, inner // heads).transpose(1, 2) for x in (q, k, v))
    scores = q @ k.transpose(2, 3)
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = scores.masked_fill(mask[:, None, None, :] == 0, float("-inf"))
    if causal:
        seen = torch.ones(query, key, dtype=torch.bool).tril(key - query)
        scores = scores.masked_fill(~seen, float("-inf"))
    probabilities = scores.softmax(-1)
    if dropout is not None:
        probabilities = probabilities * dropout
    return (probabilities @ v).transpose(1, 2).reshape(batch, query, inner)


def rms_norm(x, gain, groups):
    parts = [part / (part.square().mean(-1, keepdim=True) + 1e-6).sqrt() for part in x.split(groups, -1)]
    return torch.cat(parts, -1) * gain


def bias(table, buckets):
    return table[buckets].permute(2, 0, 1)


def cases():
    """Name, inputs, integers, and the function from both to the result."""
    x = random(2, 5, 6)
    yield "embedding", dict(table=random(11, 6)), dict(ids=torch.randint(0, 9, (2, 5))), lambda i, n: i["table"][n["ids"]]
    yield "embedding, length 1", dict(table=random(3, 5)), dict(ids=torch.tensor([[2]])), lambda i, n: i["table"][n["ids"]]

    def linear(i, n):
        return i["x"] @ i["w"].T

    yield "linear", dict(x=x, w=random(4, 6)), {}, linear
    yield "linear, length 1", dict(x=random(1, 1, 5), w=random(3, 5)), {}, linear
    yield "linear, odd sizes", dict(x=random(3, 11, 17), w=random(13, 17, scale=0.2)), {}, linear

    yield "rms norm", dict(x=x, gain=random(6)), {}, lambda i, n: rms_norm(i["x"], i["gain"], [6])
    yield "rms norm, groups", dict(x=x, gain=random(6)), {}, lambda i, n: rms_norm(i["x"], i["gain"], [1, 3, 2])
    small = dict(x=random(2, 3, 5, scale=1e-3), gain=random(5))
    yield "rms norm, near epsilon", small, {}, lambda i, n: rms_norm(i["x"], i["gain"], [5])

    def self_attention(i, n, **how):
        b = bias(i["table"], n["buckets"]) if "table" in i else None
        return attention(i["q"], i["k"], i["v"], 2, b, mask=n.get("mask"), **how)

    def projected(query, key, inner=6, batch=2):
        return dict(q=random(batch, query, inner), k=random(batch, key, inner), v=random(batch, key, inner))

    buckets = torch.randint(0, 5, (5, 5))  # of 6, one is never used
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 1, 1, 0, 0]])
    biased = dict(table=random(6, 2), **projected(5, 5))
    yield "attention", projected(5, 5), {}, self_attention
    yield "attention, bias", biased, dict(buckets=buckets), self_attention
    yield "attention, padding", biased, dict(buckets=buckets, mask=mask), self_attention
    yield "attention, causal", biased, dict(buckets=buckets), lambda i, n: self_attention(i, n, causal=True)
    continued = dict(table=random(6, 2), **projected(2, 5))
    yield "attention, causal, more keys", continued, dict(buckets=buckets[:2]), lambda i, n: self_attention(i, n, causal=True)
    yield "attention, cross", projected(3, 5), dict(mask=mask), self_attention
    yield "attention, length 1", projected(1, 1, batch=1), {}, self_attention
    yield "attention, sharp", dict(q=random(1, 3, 6, scale=8), k=random(1, 4, 6, scale=8), v=random(1, 4, 6)), {}, self_attention
    yield "attention, one operand", dict(x=x), {}, lambda i, n: attention(i["x"], i["x"], i["x"], 2)
    dropped = dict(table=random(6, 2), **projected(3, 4))
    some = torch.randint(0, 6, (3, 4))
    yield "attention, dropout", dropped, dict(buckets=some), lambda i, n: self_attention(i, n, dropout=factors(2, 2, 3, 4))

    def gated(i, n):
        return F.gelu(i["gate"], approximate="tanh") * i["value"]

    yield "gated GELU", dict(gate=random(2, 5, 6, scale=2), value=x), {}, gated
    yield "gated GELU, large", dict(gate=random(2, 5, 6, scale=20), value=x), {}, gated
    yield "gated GELU, one operand", dict(x=x), {}, lambda i, n: F.gelu(i["x"], approximate="tanh") * i["x"]
    yield "relu", dict(x=x), {}, lambda i, n: i["x"].relu()
    yield "add", dict(x=x, y=random(2, 5, 6)), {}, lambda i, n: i["x"] + i["y"]
    yield "add, one operand", dict(x=x), {}, lambda i, n: i["x"] + i["x"]
    yield "scale", dict(x=x), {}, lambda i, n: i["x"] * 0.375
    yield "dropout", dict(x=random(2, 4, 6)), {}, lambda i, n: i["x"] * factors(2, 4, 6)

    # The loss itself: labels that do not count, a vocabulary that is worked off in pieces, one label alone, tied weights.
    yield "cross-entropy", dict(x=x, head=random(VOCABULARY, 6)), dict(labels=torch.tensor([[3, -100, 0, 6, 6], [-100] * 4 + [1]])), None
    yield "cross-entropy, long", dict(x=random(2, 600, 3), head=random(41, 3)), dict(labels=torch.randint(-1, 41, (2, 600))), None
    yield "cross-entropy, length 1", dict(x=random(1, 1, 3), head=random(5, 3)), dict(labels=torch.tensor([[4]])), None
    far = dict(x=random(1, 4, 3, scale=30), head=random(5, 3, scale=3))
    yield "cross-entropy, large", far, dict(labels=torch.tensor([[4, 0, 1, 2]])), None
    table = dict(head=random(VOCABULARY, 6))
    yield "tied embedding", table, dict(ids=torch.randint(0, 5, (2, 3))), lambda i, n: i["head"][n["ids"]]


def main():
    torch.manual_seed(7)
    tensors = {}
    for name, inputs, integers, run in cases():
        inputs = {key: value.double().requires_grad_() for key, value in inputs.items()}
        y = inputs["x"] if run is None else run(inputs, integers)
        if "head" not in inputs:
            inputs["head"] = random(VOCABULARY, y.shape[-1]).double().requires_grad_()
        labels = integers.get("labels", torch.randint(0, VOCABULARY, y.shape[:2]))
        labels[labels < 0] = -100
        logits = y @ inputs["head"].T
        counts = labels >= 0
        each = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none", ignore_index=-100)
        z = logits.logsumexp(-1).square()[counts]
        gradients = torch.autograd.grad(SCALE * (each.sum() + Z_LOSS * z.sum()), list(inputs.values()))
        of = {f"in.{key}": value.detach() for key, value in inputs.items()}
        of |= {f"grad.{key}": gradient for key, gradient in zip(inputs, gradients)}
        of |= {f"int.{key}": value for key, value in (integers | dict(labels=labels)).items()}
        of |= {
            "out.y": y.detach(),
            "out.losses": each.detach(),
            "out.correct": ((logits.argmax(-1) == labels) & counts).flatten(),
        }
        for key, value in of.items():
            tensors[f"{name}|{key}"] = (value.float() if value.is_floating_point() else value.long()).contiguous().clone()
    save_file(tensors, HERE / "operations.safetensors")


if __name__ == "__main__":
    main()
