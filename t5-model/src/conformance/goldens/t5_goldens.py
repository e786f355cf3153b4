"""Tiny T5 checkpoints and what Hugging Face's T5 computes with them.

    python t5_goldens.py            # rewrites the four directories beside this file

Each directory is a checkpoint in Hugging Face layout (`config.json`, `model.safetensors`, f32) together with

- `reference.safetensors`: the batch `input_ids` i64 [3, 40], `attention_mask` i64 [3, 40], `labels` i64 [3, 21];
  and, computed in float64 and stored as f32, `logits` [3, 21, 61], `loss` [] (mean over the labels that are not
  -100) and `grad.<parameter>` for every tensor of `model.safetensors`;
- `generation.json`: greedy decoding of the same batch. `sequences` is the output of `generate` (start token first,
  padding after the end of sequence), `tokens` the same without the start token and from the end of sequence on,
  `smallest_margin` the least distance between the best and second best logit that any step decided by.

The four are {gated GELU, ReLU} x {untied head, tied head}: `v1_1` and `v1_0` are the published combinations,
`gated_tied` and `relu_untied` the others. What they exercise on purpose: heads * d_kv differs from d_model, unequal
depths, norm gains other than one, relative distances beyond `relative_attention_max_distance` in both stacks,
padding that holds tokens (only the mask tells), labels of three lengths, and rows that end before `max_new_tokens`.

Tied and untied heads. T5 scales the decoder's output by d_model^-1/2 when the head is tied. transformers 4 reads both
from `tie_word_embeddings`. transformers 5 always sets `tie_word_embeddings` to true, keeps the scaling in
`scale_decoder_outputs` (true unless the configuration said `tie_word_embeddings: false`), and unties a head only if
the file holds a `shared.weight` and a `lm_head.weight` that differ. The files written here mean the same to both.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import T5Config, T5ForConditionalGeneration
from transformers.utils import logging

HERE = Path(__file__).resolve().parent
VOCABULARY, PAD, EOS = 61, 0, 1
MAX_NEW_TOKENS = 12
DIMENSIONS = dict(d_model=20, d_kv=6, num_heads=3, d_ff=27, num_layers=2, num_decoder_layers=3)
VARIANTS = {
    "v1_1": dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "v1_0": dict(feed_forward_proj="relu", tie_word_embeddings=True),
    "gated_tied": dict(feed_forward_proj="gated-gelu", tie_word_embeddings=True),
    "relu_untied": dict(feed_forward_proj="relu", tie_word_embeddings=False),
}


def configuration(**fields):
    """The content of a `config.json` as published T5 checkpoints have it."""
    return dict(
        architectures=["T5ForConditionalGeneration"],
        model_type="t5",
        is_encoder_decoder=True,
        vocab_size=VOCABULARY,
        pad_token_id=PAD,
        eos_token_id=EOS,
        decoder_start_token_id=PAD,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=20,
        layer_norm_epsilon=1e-6,
        dropout_rate=0.0,
        initializer_factor=1.0,
        use_cache=True,
        **fields,
    )


def initialise(config, seed):
    """A randomly initialised T5 whose every parameter matters."""
    torch.manual_seed(seed)
    model = T5ForConditionalGeneration(T5Config(**config))
    if not config["tie_word_embeddings"]:
        # The constructor ties the head whatever the configuration says.
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.shared.weight) * config["d_model"] ** -0.5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layer_norm" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
            elif "relative_attention_bias" in name:
                parameter.normal_(0.0, 0.7)
            elif name.endswith(".q.weight"):
                parameter.mul_(2.0)  # sharper attention than at initialisation
        if config["tie_word_embeddings"]:
            # Embeddings as large as at initialisation would make a tied head repeat its input.
            model.shared.weight.mul_(0.3)
        model.lm_head.weight[EOS] *= 1.6  # so that some rows end
    return model


def write_checkpoint(directory, config, seed):
    model = initialise(config, seed)
    directory.mkdir(parents=True, exist_ok=True)
    weights = {name: parameter.detach().contiguous() for name, parameter in model.named_parameters()}
    assert ("lm_head.weight" in weights) == (not config["tie_word_embeddings"])
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def load(directory):
    """The checkpoint as transformers reads it, in float64."""
    model = T5ForConditionalGeneration.from_pretrained(directory, attn_implementation="eager").double().eval()
    config = json.loads((directory / "config.json").read_text())
    assert model.config.scale_decoder_outputs == config["tie_word_embeddings"]
    assert (model.lm_head.weight is model.shared.weight) == config["tie_word_embeddings"]
    return model


def batch(seed=7, input_lengths=(40, 33, 21), label_lengths=(21, 14, 5)):
    """A padded batch, as keyword arguments of the model."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(lengths):
        ids = torch.randint(2, VOCABULARY, (len(lengths), max(lengths)), generator=generator)
        for row, length in enumerate(lengths):
            ids[row, length - 1] = EOS
        return ids, torch.arange(max(lengths))[None, :] < torch.tensor(lengths)[:, None]

    input_ids, input_mask = tokens(input_lengths)
    # The last row's padding keeps its random tokens: the mask, not the id, says what is padding.
    input_ids[:-1] = input_ids[:-1].masked_fill(~input_mask[:-1], PAD)
    labels, label_mask = tokens(label_lengths)
    return dict(input_ids=input_ids, attention_mask=input_mask.long(), labels=labels.masked_fill(~label_mask, -100))


def reference(model, inputs):
    output = model(**inputs)
    output.loss.backward()
    tensors = dict(inputs, logits=output.logits.detach().float(), loss=output.loss.detach().float())
    for name, parameter in model.named_parameters():
        tensors["grad." + name] = parameter.grad.float()
    model.zero_grad(set_to_none=True)
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def greedy(model, inputs):
    output = model.generate(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        max_new_tokens=MAX_NEW_TOKENS,
        num_beams=1,
        do_sample=False,
        use_cache=False,  # transformers 5.23 sizes the cache by the encoder's depth and fails on a deeper decoder
        output_scores=True,
        return_dict_in_generate=True,
    )
    sequences = output.sequences.tolist()
    tokens = [row[1 : row.index(EOS) if EOS in row else None] for row in sequences]
    margins = []
    for step, scores in enumerate(output.scores):
        best, second = scores.topk(2).values.unbind(-1)
        margins += [(best - second)[row].item() for row in range(len(tokens)) if step <= len(tokens[row])]
    return dict(
        max_new_tokens=MAX_NEW_TOKENS, sequences=sequences, tokens=tokens, smallest_margin=round(min(margins), 6)
    )


def decides(generation):
    """Whether rounding cannot change the tokens, both ways of ending occur, and the rows say different things."""
    lengths = [len(row) for row in generation["tokens"]]
    varied = max(len(set(row)) for row in generation["tokens"]) >= 5
    return generation["smallest_margin"] > 0.002 and 1 <= min(lengths) < MAX_NEW_TOKENS == max(lengths) and varied


def main():
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    inputs = batch()
    for name, variant in VARIANTS.items():
        config = configuration(**DIMENSIONS, **variant)
        # The first seed whose greedy decoding is a useful test.
        seed = next(seed for seed in range(500) if decides(greedy(initialise(config, seed).eval(), inputs)))
        directory = HERE / name
        write_checkpoint(directory, config, seed)
        model = load(directory)
        generation = greedy(model, inputs)
        assert decides(generation)
        tensors = reference(model, inputs)
        save_file(tensors, directory / "reference.safetensors")
        (directory / "generation.json").write_text(json.dumps(generation) + "\n")
        unused = [key for key, value in tensors.items() if key.startswith("grad.") and not value.abs().max() > 0]
        assert not unused, unused
        biases = [value for key, value in tensors.items() if "relative_attention_bias" in key]
        # All of a bidirectional stack's buckets but one, "zero to the right", can occur.
        used = [int((value.abs().sum(1) > 0).sum()) for value in biases]
        print(name, f"seed {seed}", f"loss {tensors['loss']:.4f}", f"buckets used {used}", generation["tokens"])


if __name__ == "__main__":
    main()
