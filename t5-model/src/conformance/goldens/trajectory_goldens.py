"""Ten updates of a whole T5 by PyTorch's AdamW, in float64.

    python trajectory_goldens.py            # rewrites trajectory.safetensors beside this file

The model is `v1_1`, the batches are its reference's without row `update % 3` (updates count from 1), the loss is the mean
cross-entropy of the labels plus z_loss * log(Z)^2, gradients are clipped to a norm, and gains do not decay. Stored as f32:
`loss` [10] (before each update, without z-loss), `gradient_norm` [10] (before clipping), and `final.<parameter>`.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import T5Config, T5ForConditionalGeneration

HERE = Path(__file__).resolve().parent
UPDATES, RATE, EPSILON, DECAY, CLIP, Z_LOSS = 10, 3e-3, 1e-4, 0.01, 0.5, 1e-3


def main():
    weights = load_file(HERE / "v1_1/model.safetensors")
    model = T5ForConditionalGeneration(T5Config.from_pretrained(HERE / "v1_1")).double()
    model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
    parameters = dict(model.named_parameters())
    assert parameters.keys() == weights.keys(), parameters.keys() ^ weights.keys()
    with torch.no_grad():
        for name, weight in weights.items():
            parameters[name].copy_(weight)
    groups = {False: [], True: []}
    for name, parameter in parameters.items():
        groups[name.endswith("layer_norm.weight")].append(parameter)
    optimizer = torch.optim.AdamW(
        [dict(params=groups[False], weight_decay=DECAY), dict(params=groups[True], weight_decay=0.0)],
        lr=RATE, eps=EPSILON,
    )  # fmt: skip
    reference = load_file(HERE / "v1_1/reference.safetensors")
    losses, norms = [], []
    for update in range(1, UPDATES + 1):
        rows = [row for row in range(3) if row != update % 3]
        batch = {key: reference[key][rows] for key in ("input_ids", "attention_mask", "labels")}
        output = model(**batch)
        z = output.logits.logsumexp(-1)[batch["labels"] >= 0]
        optimizer.zero_grad()
        (output.loss + Z_LOSS * z.square().mean()).backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP).item())
        losses.append(output.loss.item())
        optimizer.step()
    result = {f"final.{name}": parameter.detach().float().contiguous() for name, parameter in parameters.items()}
    result |= dict(loss=torch.tensor(losses), gradient_norm=torch.tensor(norms))
    save_file(result, HERE / "trajectory.safetensors")


if __name__ == "__main__":
    main()
