"""Writes objectives.json: what the T5 library's span corruption and prefix language modelling make of text.

    python objective_goldens.py

Takes numpy. The functions follow those of their names in t5/data/preprocessors.py (T5 0.9.4), with numpy in place of
TensorFlow. There, `random_spans_helper` may count no span at all where its mask has one (a mean span length of more
than twice the noise); here both count one, so that inputs are never longer than asked for.
"""

import json
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
# UL2's Table 1: R- and X-denoisers, as (mean span length, noise density).
UL2 = [(3.0, 0.15), (8.0, 0.15), (3.0, 0.5), (8.0, 0.5), (64.0, 0.15), (64.0, 0.5)]
T5, BYT5 = (3.0, 0.15), (20.0, 0.15)
OTHERS = [(1.0, 0.15), (2.0, 0.15), (5.0, 0.15), (10.0, 0.15), (3.0, 0.1), (3.0, 0.25), (1.0, 0.5), (3.8, 0.4), (12.0, 0.8)]
INPUT_LENGTHS = [32, 64, 100, 114, 128, 200, 256, 511, 512, 1024]
VOCABULARY = 1000  # sentinels descend from the last id
EOS = 1


def counts(tokens, mean_noise_span_length, noise_density):
    noise = min(max(int(round(tokens * noise_density)), 1), tokens - 1)
    spans = max(int(round(noise / mean_noise_span_length)), 1)
    return noise, spans


def random_spans_helper(inputs_length, mean_noise_span_length, noise_density):
    def lengths(tokens_length):
        noise, spans = counts(tokens_length, mean_noise_span_length, noise_density)
        return tokens_length - noise + spans + 1, noise + spans + 1

    tokens_length = inputs_length - 1
    while lengths(tokens_length + 1)[0] <= inputs_length:
        tokens_length += 1
    inputs, targets = lengths(tokens_length)
    if noise_density == 0.5 and targets > inputs:
        tokens_length -= 1
    return tokens_length


def random_spans_noise_mask(random, tokens, mean_noise_span_length, noise_density):
    noise, spans = counts(tokens, mean_noise_span_length, noise_density)

    def random_segmentation(items, segments):
        first_in_segment = np.pad(random.permutation(np.arange(items - 1) < segments - 1), [[1, 0]])
        return np.bincount(np.cumsum(first_in_segment), minlength=segments)

    noise_lengths = random_segmentation(noise, spans)
    nonnoise_lengths = random_segmentation(tokens - noise, spans)
    interleaved = np.stack([nonnoise_lengths, noise_lengths], axis=1).reshape(-1)
    starts = np.zeros(tokens, np.int64)
    starts[np.cumsum(interleaved)[:-1]] = 1
    return np.cumsum(starts) % 2 == 1


def noise_span_to_unique_sentinel(tokens, mask):
    before = np.pad(mask[:-1], [[1, 0]])
    first, later = mask & ~before, mask & before
    sentinel = VOCABULARY - np.cumsum(first)
    return np.where(first, sentinel, tokens)[~later]


def nonnoise_span_to_unique_sentinel(tokens, mask):
    return noise_span_to_unique_sentinel(tokens, ~mask)


def lengths():
    for length, density in [T5, BYT5, *UL2, *OTHERS]:
        for inputs_length in INPUT_LENGTHS:
            tokens = random_spans_helper(inputs_length, length, density)
            noise, spans = counts(tokens, length, density)
            if spans <= tokens - noise:
                yield dict(
                    input_length=inputs_length, mean_span_length=length, noise_density=density, tokens=tokens,
                    noise=noise, spans=spans, inputs=tokens - noise + spans + 1, targets=noise + spans + 1,
                )  # fmt: skip


def examples():
    random = np.random.default_rng(0)
    for length, density in [T5, BYT5, *UL2]:
        inputs_length = 64
        tokens = random_spans_helper(inputs_length, length, density)
        mask = random_spans_noise_mask(random, tokens, length, density)
        ids = np.arange(10, 10 + tokens)
        targets = nonnoise_span_to_unique_sentinel(ids, mask)
        yield dict(
            input_length=inputs_length, mean_span_length=length, noise_density=density,
            mask="".join("01"[noise] for noise in mask.astype(int)),
            inputs=[*noise_span_to_unique_sentinel(ids, mask).tolist(), EOS],
            targets=[*targets.tolist(), EOS],
        )  # fmt: skip


def prefixes():
    """The splits that `random_prefix_noise_mask` draws from, for chunks of `split_tokens_to_inputs_length`."""
    for inputs_length in INPUT_LENGTHS:
        tokens = inputs_length - 1
        most, fewest = tokens - 1, min(tokens - 1, 1)
        yield dict(input_length=inputs_length, tokens=tokens, fewest_inputs=fewest, most_inputs=most)


goldens = dict(lengths=list(lengths()), examples=list(examples()), prefixes=list(prefixes()))
(HERE / "objectives.json").write_text(json.dumps(goldens) + "\n")
