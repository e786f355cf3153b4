"""Prints the hash of a checkpoint's weights, computed from its definition (`Checkpoint::blake3`).

    pip install blake3
    python fusion-core/tests/python/checkpoint_hash.py model.safetensors…
"""

import json
import struct
import sys

from blake3 import blake3


def tensors(path):
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        for name, info in header.items():
            start, end = info["data_offsets"]
            file.seek(8 + length + start)
            yield name, info["dtype"], info["shape"], file.read(end - start)


def main(paths):
    total = blake3()
    every = (tensor for path in paths for tensor in tensors(path))
    for name, dtype, shape, data in sorted(every):
        sizes = ",".join(map(str, shape))
        total.update(f"{json.dumps(name, ensure_ascii=False)}\n{dtype}\n{sizes}\n".encode())
        total.update(blake3(data).digest())
    print(total.hexdigest())


main(sys.argv[1:])
