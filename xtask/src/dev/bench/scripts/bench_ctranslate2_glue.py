"""Times how fast CTranslate2 answers prompts with a T5, for comparison with another implementation.

    python bench_ctranslate2_glue.py --model DIR --tokenizer tokenizer.json --prompts prompts.json

bench_worker.py says what it reads and prints. The checkpoint is converted first, into a folder beside the prompts that
is gone once it is loaded, by a process of its own: neither PyTorch nor transformers counts among this one's memory.
Answers come from `translate_batch`, greedily, in float32 on the CPU.
"""

import multiprocessing
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import ctranslate2
from bench_worker import answer_glue, glue_parser


def convert(checkpoint, directory, counts):
    """Writes a T5 as CTranslate2 reads it, and sends how many weights it has and how many tokens it knows.

    Tokens are their ids as text, so that no tokenizer has a say in them.
    """
    from ctranslate2.converters.transformers import T5Loader
    from transformers import T5ForConditionalGeneration
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model = T5ForConditionalGeneration.from_pretrained(checkpoint).requires_grad_(False)
    config = model.config
    # transformers 5 calls every T5's embeddings tied, and says elsewhere what the loader wants to know by it.
    config.tie_word_embeddings = getattr(config, "scale_decoder_outputs", config.tie_word_embeddings)
    spec = T5Loader().get_model_spec(model)
    tokens = [str(token) for token in range(config.vocab_size)]
    spec.register_source_vocabulary(tokens)
    spec.register_target_vocabulary(tokens)
    spec.config.bos_token = spec.config.decoder_start_token = tokens[config.decoder_start_token_id]
    spec.config.eos_token = tokens[config.eos_token_id]
    spec.config.unk_token = tokens[2]
    spec.validate()
    spec.optimize(quantization="float32")
    spec.save(directory)
    counts.send((sum(parameter.numel() for parameter in model.parameters()), len(tokens)))


def convert_apart(checkpoint, directory):
    """Converts in another process; the counts."""
    processes = multiprocessing.get_context("spawn")
    receiver, sender = processes.Pipe(duplex=False)
    process = processes.Process(target=convert, args=(checkpoint, directory, sender))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        sys.exit(1)  # the other has said why
    finally:
        process.join()


def main():
    options = glue_parser(__doc__).parse_args()
    with TemporaryDirectory(dir=Path(options.prompts).parent) as directory:
        parameters, vocabulary = convert_apart(options.model, directory)
        translator = ctranslate2.Translator(
            directory, options.device, compute_type="float32", inter_threads=1, intra_threads=options.threads
        )
    names = [str(token) for token in range(vocabulary)]

    def generate(prompts, max_new_tokens):
        results = translator.translate_batch(
            [[names[token] for token in prompt] for prompt in prompts],
            beam_size=1, max_input_length=0, min_decoding_length=0, max_decoding_length=max_new_tokens,
        )  # fmt: skip
        return [[int(token) for token in result.hypotheses[0]] for result in results]

    answer_glue(options, parameters, generate)


if __name__ == "__main__":
    main()
