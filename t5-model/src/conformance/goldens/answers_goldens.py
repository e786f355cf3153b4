"""Writes what transformers' beam search answers, beside the checkpoints of t5_goldens.py, and the distributions that its
samplers draw from.

    python answers_goldens.py

`VARIANT/beams.json` holds searches with different numbers of beams, length penalties and ends, for the batch in
`VARIANT/reference.safetensors`: each with the tokens and scores of its answers, best first. Searches that rounding could
decide another way are left out: the tokens must be the same with noise of 1e-3 on all logits.
`sampling.json` holds logits and, for different settings, the tokens that transformers' warpers leave, with their
probabilities.
"""

import itertools
import json

import torch
from safetensors.torch import load_file
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.utils import logging

from t5_goldens import EOS, HERE, VARIANTS, load

NOISE = 1e-3


class Noise(LogitsProcessor):
    """Stands for another order of additions."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, input_ids, scores):
        return scores + NOISE * torch.randn(scores.shape, generator=self.generator)


def search(model, inputs, how, processors=()):
    output = model.generate(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        max_new_tokens=how["max_new_tokens"],
        num_beams=how["beams"],
        num_return_sequences=how["answers"],
        length_penalty=how["length_penalty"],
        early_stopping=how["early_stopping"],
        do_sample=False,
        use_cache=False,  # see t5_goldens.py
        output_scores=True,
        return_dict_in_generate=True,
        logits_processor=LogitsProcessorList(processors),
    )
    sequences = [row[1:] + [EOS] for row in output.sequences.tolist()]
    tokens = [row[: row.index(EOS)][: how["max_new_tokens"]] for row in sequences]
    scores = [round(score, 6) for score in output.sequences_scores.tolist()]
    by_row = lambda values: [values[at : at + how["answers"]] for at in range(0, len(values), how["answers"])]
    return dict(tokens=by_row(tokens), scores=by_row(scores))


def searches(model, inputs):
    settings = itertools.product([2, 5], [1.0, 2.0, -1.0], [False, True], [3, 12])
    for beams, length_penalty, early_stopping, max_new_tokens in settings:
        how = dict(
            beams=beams,
            answers=beams,
            length_penalty=length_penalty,
            early_stopping=early_stopping,
            max_new_tokens=max_new_tokens,
        )
        found = search(model, inputs, how)
        if all(search(model, inputs, how, [Noise(seed)])["tokens"] == found["tokens"] for seed in range(4)):
            yield dict(how=how, **found)


def distributions():
    generator = torch.Generator().manual_seed(1)
    rows = [
        (3.0 * torch.randn(40, generator=generator)).round(decimals=4),
        torch.linspace(-4.0, 4.0, 17),
        torch.tensor([1.0, 2.0, 2.0, 2.0, 0.0]),  # several that are equally likely
        torch.tensor([0.0, 50.0, -50.0]),
    ]
    for logits in rows:
        for temperature, top_k, top_p, min_p in itertools.product(
            [1.0, 0.3, 2.5], [None, 2, 10, 100], [None, 0.1, 0.9], [None, 0.05]
        ):
            warpers = [TemperatureLogitsWarper(temperature)]
            warpers += [TopKLogitsWarper(top_k)] if top_k else []
            warpers += [TopPLogitsWarper(top_p)] if top_p else []
            warpers += [MinPLogitsWarper(min_p)] if min_p else []
            scores = LogitsProcessorList(warpers)(None, logits.double()[None])
            equal = len(set(logits.tolist())) < len(logits)
            if equal and top_p:
                continue  # which of equals top-p leaves out is the sorting's choice
            settings = dict(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
            probabilities = enumerate(scores.softmax(-1)[0].tolist())
            left = [[token, round(probability, 9)] for token, probability in probabilities if probability > 0.0]
            yield dict(logits=[round(logit, 6) for logit in logits.tolist()], settings=settings, left=left)


def main():
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    for name in VARIANTS:
        inputs = load_file(HERE / name / "reference.safetensors")
        found = list(searches(load(HERE / name), inputs))
        assert len(found) >= 8, f"{name}: only {len(found)} searches are certain"
        lines = ",\n".join(json.dumps(each) for each in found)
        (HERE / name / "beams.json").write_text(f"[\n{lines}\n]\n")
        print(name, f"{len(found)} searches")
    lines = ",\n".join(json.dumps(each) for each in distributions())
    (HERE / "sampling.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
