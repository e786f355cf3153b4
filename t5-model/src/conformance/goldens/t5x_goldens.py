"""The T5s of `v1_1` and `v1_0` as T5X keeps them, and as PyTorch does.

    python t5x_goldens.py            # rewrites t5x/ beside this file
    python t5x_goldens.py FILE       # prints the hash of a T5X checkpoint's weights by Hugging Face's names

`t5x/v1_1.checkpoint` and `t5x/v1_0.checkpoint` are made as T5X's legacy checkpoints are: Flax's MessagePack of the
optimiser's moments and the parameters, matrices as [in, out], position biases as [heads, buckets]. Converted, they must be
`v1_1/model.safetensors` and `v1_0/model.safetensors` again, which transformers wrote. `t5x/v1_1.bin` is a state dict with
the embedding's aliases. The hash is that of `fusion-core/tests/python/checkpoint_hash.py`; names and transposes are
those of transformers' `convert_t5x_checkpoint_to_pytorch.py`.
"""

import re
import sys
from pathlib import Path

import msgpack
import numpy as np
from blake3 import blake3
from safetensors.numpy import load_file

HERE = Path(__file__).resolve().parent
PROJECTIONS = dict(q="query", k="key", v="value", o="out")


def t5x_name(name):
    """T5X's path of a parameter, and whether it is transposed."""
    if name == "shared.weight":
        return "token_embedder/embedding", False
    if name == "lm_head.weight":
        return "decoder/logits_dense/kernel", True
    stack, rest = name.removesuffix(".weight").split(".", 1)
    if rest == "final_layer_norm":
        return f"{stack}/{stack}_norm/scale", False
    if rest.endswith("relative_attention_bias"):
        return f"{stack}/relpos_bias/rel_embedding", True
    block, layer, module = re.fullmatch(r"block\.(\d+)\.layer\.(\d)\.(.*)", rest).groups()
    mlp = "1" if stack == "encoder" else "2"
    attention = {"encoder0": "attention", "decoder0": "self_attention", "decoder1": "encoder_decoder_attention"}
    if module == "layer_norm":
        norm = {"encoder0": "attention", "decoder0": "self_attention", "decoder1": "cross_attention"}
        kind = "mlp" if layer == mlp else norm[stack + layer]
        return f"{stack}/layers_{block}/pre_{kind}_layer_norm/scale", False
    kind, projection = module.split(".")
    if kind == "DenseReluDense":
        return f"{stack}/layers_{block}/mlp/{projection}/kernel", True
    return f"{stack}/layers_{block}/{attention[stack + layer]}/{PROJECTIONS[projection]}/kernel", True


def array(value):
    """Flax's extension type 1."""
    value = np.asarray(value, order="C")
    return msgpack.ExtType(1, msgpack.packb((value.shape, value.dtype.name, value.tobytes("C"))))


def put(tree, path, leaf):
    *maps, last = path.split("/")
    for key in maps:
        tree = tree.setdefault(key, {})
    tree[last] = leaf


def write_t5x(name):
    target, moments = {}, {}
    for parameter, tensor in sorted(load_file(HERE / name / "model.safetensors").items()):
        path, transposed = t5x_name(parameter)
        put(target, path, array(tensor.T if transposed else tensor))
        put(moments, path, {"v": array(np.zeros(1, np.float32)), "m": None})
    state = {"step": array(np.int32(7)), "param_states": moments}
    checkpoint = {"version": 3, "optimizer": {"state": state, "target": target}}
    (HERE / "t5x" / f"{name}.checkpoint").write_bytes(msgpack.packb(checkpoint))


def write_state_dict():
    import torch

    state = {name: torch.from_numpy(tensor) for name, tensor in load_file(HERE / "v1_1/model.safetensors").items()}
    state["encoder.embed_tokens.weight"] = state["decoder.embed_tokens.weight"] = state["shared.weight"]
    torch.save(state, HERE / "t5x" / "v1_1.bin")


def hash_of(path):
    def unpack(code, data):
        shape, dtype, values = msgpack.unpackb(data)
        return np.frombuffer(values, dtype).reshape(shape)

    target = msgpack.unpackb(path.read_bytes(), ext_hook=unpack)["optimizer"]["target"]

    def leaf(path):
        tree = target
        for key in path.split("/"):
            tree = tree[key]
        return tree

    layers = {stack: sum(key.startswith("layers_") for key in target[stack]) for stack in ["encoder", "decoder"]}
    names = ["shared.weight", "lm_head.weight"]
    for stack, attentions in dict(encoder=["SelfAttention"], decoder=["SelfAttention", "EncDecAttention"]).items():
        names += [f"{stack}.final_layer_norm.weight"]
        names += [f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
        for block in range(layers[stack]):
            for layer, attention in enumerate(attentions):
                prefix = f"{stack}.block.{block}.layer.{layer}"
                names += [f"{prefix}.layer_norm.weight"] + [f"{prefix}.{attention}.{p}.weight" for p in PROJECTIONS]
            prefix = f"{stack}.block.{block}.layer.{len(attentions)}"
            names += [f"{prefix}.layer_norm.weight"]
            names += [f"{prefix}.DenseReluDense.{p}.weight" for p in ["wi_0", "wi_1", "wo"]]
    total = blake3()
    for name in sorted(names):
        path, transposed = t5x_name(name)
        tensor = leaf(path).T if transposed else leaf(path)
        assert tensor.dtype == np.float32
        total.update(f'"{name}"\nF32\n{",".join(map(str, tensor.shape))}\n'.encode())
        total.update(blake3(tensor.tobytes("C")).digest())
    return total.hexdigest()


def main():
    if len(sys.argv) > 1:
        print(hash_of(Path(sys.argv[1])))
        return
    (HERE / "t5x").mkdir(exist_ok=True)
    write_t5x("v1_1")
    write_t5x("v1_0")
    write_state_dict()


if __name__ == "__main__":
    main()
