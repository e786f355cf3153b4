"""State dicts as PyTorch saves them, and the same tensors as safetensors.

    python pytorch_goldens.py        # rewrites pytorch/ beside this file

`archive.bin` is today's format and `legacy.bin` that of PyTorch before 1.6; `protocol4.bin` is an archive with another
pickle protocol, `parameters.bin` holds Parameters instead of tensors. `expected.safetensors` has what all of them hold.
`transposed.bin` has a tensor whose elements do not lie in a row, `module.bin` a whole module, which needs code to load.
"""

from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent / "pytorch"


def main():
    HERE.mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(7)
    normal = lambda *shape: torch.randn(*shape, generator=generator)
    whole = normal(5, 6)
    module = torch.nn.Module()
    module.shared = torch.nn.Embedding(3, 4)
    module.tied = torch.nn.Linear(4, 3, bias=False)
    module.tied.weight = module.shared.weight
    state = module.state_dict()  # an OrderedDict with `_metadata`
    state["half"] = normal(2, 3).half()
    state["bfloat"] = normal(2, 3).bfloat16()
    state["double"] = normal(4).double()
    state["scalar"] = torch.tensor(2.5)
    state["empty"] = torch.zeros(0, 3)
    state["rows"] = whole[2:4]  # a view that begins inside of its storage
    state["column"] = whole[:1, 1:3]  # strides of a dimension of size 1 do not matter
    for name, kind in dict(i64=torch.int64, i32=torch.int32, i16=torch.int16, i8=torch.int8, u8=torch.uint8).items():
        state[name] = torch.arange(3).to(kind)
    state["bool"] = torch.tensor([True, False])
    expected = {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}
    save_file(expected, HERE / "expected.safetensors")
    torch.save(state, HERE / "archive.bin")
    torch.save(state, HERE / "protocol4.bin", pickle_protocol=4)
    torch.save(state, HERE / "legacy.bin", _use_new_zipfile_serialization=False)
    parameters = {
        name: torch.nn.Parameter(tensor, requires_grad=tensor.is_floating_point()) for name, tensor in state.items()
    }
    torch.save(parameters, HERE / "parameters.bin")
    torch.save({"weight": whole.T}, HERE / "transposed.bin")
    torch.save(module, HERE / "module.bin")
    torch.save(OrderedDict(step=3), HERE / "number.bin")


if __name__ == "__main__":
    main()
