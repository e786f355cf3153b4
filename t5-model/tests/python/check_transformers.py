"""Compares the output of `cargo xtask forward --grad` with what Hugging Face's T5 computes.

    python check_transformers.py --model DIR --input IN.safetensors --output OUT.safetensors

DIR is read by the stock `T5ForConditionalGeneration.from_pretrained`. IN holds `input_ids` [batch, input], `labels`
[batch, target] and optionally `attention_mask` [batch, input] (without it, every token is attended to); OUT holds
`logits`, `loss` and, unless --no-grad, `grad.<parameter>` for every parameter, a shared one once.

The error of a tensor is max|a - b| / max|b|, where b is the reference: one number for each tensor, relative to its
largest entry (absolute where the reference is all zero). The reference is computed in float64 unless --dtype says
otherwise. Exits with 1 if an error is above its threshold, is not a number, or if tensors are missing, superfluous or
of another shape.
"""

import argparse
import json
import sys

import torch
from safetensors.torch import load_file
from transformers import T5ForConditionalGeneration
from transformers.utils import logging


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, metavar="DIR", help="checkpoint in Hugging Face layout")
    parser.add_argument("--input", required=True, metavar="IN", help="the batch")
    parser.add_argument("--output", required=True, metavar="OUT", help="what is to be checked")
    parser.add_argument("--no-grad", action="store_true", help="OUT has no gradients")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float64", help="precision of the reference")
    parser.add_argument(
        "--logits-tolerance", type=float, default=2e-5, help="for logits and loss (default: %(default)s)"
    )
    parser.add_argument("--grad-tolerance", type=float, default=2e-4, help="default: %(default)s")
    return parser.parse_args()


def batch(path):
    """A file's batch, as keyword arguments of the model."""
    inputs = load_file(path)
    return {name: inputs[name].long() for name in ("input_ids", "attention_mask", "labels") if name in inputs}


def reference(model, inputs, grad=True):
    output = model(**inputs)
    tensors = {"logits": output.logits.detach(), "loss": output.loss.detach()}
    if grad:
        output.loss.backward()
        tensors |= {"grad." + name: parameter.grad for name, parameter in model.named_parameters()}
    return tensors


def relative_error(actual, expected):
    scale = expected.abs().max().item()
    difference = (actual.double() - expected.double()).abs().max().item()
    return difference / scale if scale > 0.0 else difference


def compare(actual, expected, logits_tolerance, grad_tolerance):
    """Prints every tensor's error; what is wrong, as a list of lines."""
    failures = [f"{name}: not expected" for name in sorted(actual.keys() - expected.keys())]
    for name, tensor in expected.items():
        if name not in actual:
            failures.append(f"{name}: missing")
        elif actual[name].shape != tensor.shape:
            failures.append(f"{name}: shape {list(actual[name].shape)}, expected {list(tensor.shape)}")
        else:
            error = relative_error(actual[name], tensor)
            tolerance = grad_tolerance if name.startswith("grad.") else logits_tolerance
            print(f"{error:9.2e}  {name}")
            if not error <= tolerance:  # also catches NaN
                failures.append(f"{name}: relative error {error:.2e} is above {tolerance:.0e}")
    return failures


def main():
    options = arguments()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model = T5ForConditionalGeneration.from_pretrained(options.model, attn_implementation="eager")
    model = model.to(getattr(torch, options.dtype)).eval()  # eval: no dropout
    expected = reference(model, batch(options.input), grad=not options.no_grad)
    failures = compare(load_file(options.output), expected, options.logits_tolerance, options.grad_tolerance)
    print(json.dumps(dict(tensors=len(expected), failures=len(failures), loss=expected["loss"].item())))
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
