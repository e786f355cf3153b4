"""Parents to fuse, and the prediction their fusion must make: the mean of their logits (Deep Fusion, Section 3.1).

    python fusion_goldens.py        # rewrites fusion/ beside this file

`fusion/untied/` holds T5 1.1 checkpoints (gated GELU, untied head), `fusion/tied/` T5 1.0 ones (ReLU, tied head, output
scaled by d_model^-1/2). `parent_0`, `parent_1` and `parent_2` agree in every dimension; `parent_unequal` has other
widths, heads, d_kv, d_ff and fewer layers. Each directory has a `reference.safetensors`, computed by transformers in
float64 and stored as f32, with the batch `input_ids` i64 [3, 40], `attention_mask` i64 [3, 40], `labels` i64 [3, 21],
and `logits.<parent>+<parent>...` f32 [3, 21, 61], the mean of the named parents' logits, for one, two and three
parents. There is no fused model: whoever fuses the parents compares with these.
"""

from itertools import chain
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers.utils import logging

from t5_goldens import DIMENSIONS, VARIANTS, batch, configuration, load, write_checkpoint

HERE = Path(__file__).resolve().parent
UNEQUAL = dict(d_model=14, d_kv=4, num_heads=5, d_ff=19, num_layers=1, num_decoder_layers=2)
FAMILIES = {
    "untied": ("v1_1", ["parent_0", "parent_1", "parent_2", "parent_unequal"]),
    "tied": ("v1_0", ["parent_0", "parent_1", "parent_unequal"]),
}
ENSEMBLES = [
    ["parent_0", "parent_1"],
    ["parent_0", "parent_1", "parent_2"],
    ["parent_0", "parent_unequal"],
]


def main():
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    inputs = batch(seed=11)
    for family, (variant, parents) in FAMILIES.items():
        logits = {}
        for index, parent in enumerate(parents):
            directory = HERE / "fusion" / family / parent
            dimensions = UNEQUAL if parent == "parent_unequal" else DIMENSIONS
            write_checkpoint(directory, configuration(**dimensions, **VARIANTS[variant]), seed=100 + index)
            with torch.no_grad():
                logits[parent] = load(directory)(**inputs).logits
        tensors = dict(inputs)
        for ensemble in chain([[parent] for parent in parents], ENSEMBLES):
            if set(ensemble) <= set(parents):
                mean = torch.stack([logits[parent] for parent in ensemble]).mean(0)
                tensors["logits." + "+".join(ensemble)] = mean.float().contiguous()
        save_file(tensors, HERE / "fusion" / family / "reference.safetensors")
        apart = (logits["parent_0"] - logits["parent_1"]).abs().max()
        print(family, sorted(name for name in tensors if "logits" in name), f"parents differ by up to {apart:.2f}")


if __name__ == "__main__":
    main()
