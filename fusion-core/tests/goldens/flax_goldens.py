"""A checkpoint as T5X keeps it: Flax's MessagePack.

    python flax_goldens.py           # rewrites flax/checkpoint beside this file

Arrays are extensions of type 1 that hold `[shape, type, bytes]`, as `flax.serialization.msgpack_serialize` writes them.
"""

from pathlib import Path

import msgpack

HERE = Path(__file__).resolve().parent / "flax"


def array(shape, dtype, values):
    return msgpack.ExtType(1, msgpack.packb((shape, dtype, values)))


def main():
    HERE.mkdir(exist_ok=True)
    target = {
        "kernel": array((2, 3), "float32", bytes(range(24))),
        "norm": {"scale": array((2,), "bfloat16", bytes(range(4)))},
    }
    state = {"step": array((), "int32", bytes([7, 0, 0, 0])), "m": None, "rate": 0.5, "name": "adafactor"}
    checkpoint = {"version": 3, "optimizer": {"state": state, "target": target}}
    (HERE / "checkpoint").write_bytes(msgpack.packb(checkpoint))


if __name__ == "__main__":
    main()
