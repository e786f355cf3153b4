"""Loads models that were fused under the fusion property and exported as their users load them: with transformers' Auto
classes and the code that lies beside the weights. Compares them with their parents and with this project's own results.

    python check_export.py --goldens DIR --work DIR [--saved-only] CASE...

A CASE is `FAMILY/PARENT+PARENT`: parents of `goldens/FAMILY`, whose fusion is in `work/CASE`:

    fused/               as fused
    exported/            as exported
    forward.safetensors  `cargo xtask forward --grad` of it on `goldens/FAMILY/reference.safetensors`
    saved-*/             as saved by a release of transformers; this script writes that of its own

The models' predictions must be the mean of their parents', which transformers' stock T5 computes, token by token in
greedy decoding too. With --saved-only, only the `saved-*` are loaded and compared. Exits with 1 if anything differs.
"""

import argparse
import contextlib
import io
import logging as python_logging
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, AutoModelForTextEncoding, T5ForConditionalGeneration
from transformers.utils import logging

from check_transformers import batch, compare, reference, relative_error

MAX_NEW_TOKENS = 10
CODE = ["configuration_deep_fusion_t5.py", "modeling_deep_fusion_t5.py"]


def load(directory, auto=AutoModelForSeq2SeqLM, **options):
    model = auto.from_pretrained(directory, trust_remote_code=True, attn_implementation="eager", **options)
    return model.eval()  # no dropout


class Case:
    def __init__(self, options, name):
        family, parents = name.split("/")
        self.parents = [options.goldens / family / parent for parent in parents.split("+")]
        self.reference = options.goldens / family / "reference.safetensors"
        self.ensemble = load_file(self.reference)["logits." + parents]
        self.inputs = batch(self.reference)
        self.directory = options.work / name
        self.exported = self.directory / "exported"
        self.saved = self.directory / f"saved-{transformers.__version__}"

    def is_protected(self):
        """Code that does not know the groups must not take the model for a stock T5."""
        for directory in [self.directory / "fused", self.exported]:
            for auto in [AutoConfig, AutoModelForSeq2SeqLM]:
                try:
                    auto.from_pretrained(directory, trust_remote_code=False)
                except ValueError:
                    continue
                yield f"{auto.__name__} loads {directory} without its code"
            with warnings() as said:
                T5ForConditionalGeneration.from_pretrained(directory)
            if "deep_fusion_t5" not in said.getvalue():
                yield f"T5ForConditionalGeneration loads {directory} without a warning"

    def computes_what_we_do(self):
        """Logits, loss and gradients."""
        expected = reference(load(self.exported).double(), self.inputs)
        yield from compare(load_file(self.directory / "forward.safetensors"), expected, 2e-5, 2e-4)

    def is_the_ensemble(self):
        logits = load(self.exported).double()(**self.inputs).logits
        yield from differs("the ensemble's logits", logits, self.ensemble, 2e-6)

    def decodes_as_the_ensemble(self):
        """Greedily, with and without a cache."""
        parents = [T5ForConditionalGeneration.from_pretrained(parent).double().eval() for parent in self.parents]
        expected = greedy(parents, self.inputs)
        model = load(self.exported).double()
        for use_cache in [False, True]:
            found = model.generate(
                input_ids=self.inputs["input_ids"],
                attention_mask=self.inputs["attention_mask"],
                max_new_tokens=MAX_NEW_TOKENS,
                do_sample=False,
                use_cache=use_cache,
            )
            if found.tolist() != expected.tolist():
                yield f"generate(use_cache={use_cache}): {found.tolist()}, expected {expected.tolist()}"

    def survives_saving(self):
        model = load(self.exported)
        model.save_pretrained(self.saved)
        for name in CODE:
            if (self.saved / name).read_bytes() != (self.exported / name).read_bytes():
                yield f"{name} is not saved as it was"
        again = load(self.saved)
        if type(again).__name__ != type(model).__name__:
            yield f"saved as {type(again).__name__}"
        for (name, tensor), other in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
            if not torch.equal(tensor, other):
                yield f"{name} is saved with other values"

    def was_saved(self):
        """By this or another release."""
        for saved in sorted(self.directory.glob("saved-*")):
            logits = load(saved).double()(**self.inputs).logits
            yield from differs(f"the ensemble's logits, {saved.name}", logits, self.ensemble, 2e-6)

    def works_in_bfloat16(self):
        model = load(self.exported, torch_dtype=torch.bfloat16)
        logits = model(**self.inputs).logits
        if logits.dtype != torch.bfloat16:
            yield f"logits of type {logits.dtype}"
        yield from differs("logits in bfloat16", logits, self.ensemble, 5e-2)

    def compiles(self):
        model = load(self.exported)
        norms = [module for module in model.modules() if hasattr(module, "groups")]
        layers = sum("layer_norm" in name for name, _ in model.named_parameters())
        if len(norms) != layers:
            yield f"{len(norms)} of {layers} normalisations have groups"
        features = torch.randn(3, 5, model.config.d_model)
        compiled = torch.compile(norms[0], backend="aot_eager", fullgraph=True)
        yield from differs("a compiled normalisation", compiled(features), norms[0](features), 1e-6)
        compiled = torch.compile(model, backend="aot_eager")
        yield from differs("logits of the compiled model", compiled(**self.inputs).logits, self.ensemble, 2e-5)

    def trains_with_gradient_checkpointing(self):
        expected = reference(load(self.exported).double(), self.inputs)
        model = load(self.exported).double().train()
        model.gradient_checkpointing_enable()
        found = reference(model, self.inputs)
        for name in expected:
            yield from differs(f"{name} with gradient checkpointing", found[name], expected[name], 1e-9)

    def has_an_encoder(self):
        inputs = {name: self.inputs[name] for name in ("input_ids", "attention_mask")}
        expected = load(self.exported).encoder(**inputs).last_hidden_state
        model, encoder = load(self.exported, AutoModel), load(self.exported, AutoModelForTextEncoding)
        yield from differs("AutoModel", model.encoder(**inputs).last_hidden_state, expected, 0.0)
        yield from differs("AutoModelForTextEncoding", encoder(**inputs).last_hidden_state, expected, 0.0)


CHECKS = [
    Case.is_protected,
    Case.computes_what_we_do,
    Case.is_the_ensemble,
    Case.decodes_as_the_ensemble,
    Case.survives_saving,
    Case.was_saved,
]
# What takes long and depends on the code, not on the weights: of the last case.
CODE_CHECKS = [
    Case.works_in_bfloat16,
    Case.compiles,
    Case.trains_with_gradient_checkpointing,
    Case.has_an_encoder,
]


def differs(what, found, expected, tolerance):
    error = relative_error(found.detach(), expected.detach())
    if not error <= tolerance:  # also catches NaN
        yield f"{what}: relative error {error:.2e} is above {tolerance:.0e}"


@contextlib.contextmanager
def warnings():
    """What transformers warns about."""
    said, logger = io.StringIO(), python_logging.getLogger("transformers")
    handler, level = python_logging.StreamHandler(said), logger.level
    logger.addHandler(handler)
    logger.setLevel(python_logging.WARNING)
    try:
        yield said
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def greedy(models, inputs):
    """Greedy decoding from the models' mean logits."""
    config = models[0].config
    inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    rows = len(inputs["input_ids"])
    tokens = torch.full((rows, 1), config.decoder_start_token_id)
    ended = torch.zeros(rows, dtype=torch.bool)
    while tokens.shape[1] <= MAX_NEW_TOKENS and not ended.all():
        logits = [model(**inputs, decoder_input_ids=tokens).logits[:, -1] for model in models]
        best = torch.stack(logits).mean(0).argmax(-1).masked_fill(ended, config.pad_token_id)
        tokens = torch.cat([tokens, best[:, None]], dim=1)
        ended |= best == config.eos_token_id
    return tokens


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--goldens", type=Path, required=True, metavar="DIR", help="the parents' families")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="the fusions")
    parser.add_argument("--saved-only", action="store_true", help="check what was saved and nothing else")
    parser.add_argument("cases", nargs="+", metavar="CASE")
    options = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)  # the models are tiny
    failures = 0
    for name in options.cases:
        case = Case(options, name)
        checks = CHECKS + CODE_CHECKS if name == options.cases[-1] else CHECKS
        for check in [Case.was_saved] if options.saved_only else checks:
            found = list(check(case))
            print(f"transformers {transformers.__version__}  {name}  {check.__name__}: {'failed' if found else 'ok'}")
            for failure in found:
                print(f"  {failure}", file=sys.stderr)
            failures += len(found)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
