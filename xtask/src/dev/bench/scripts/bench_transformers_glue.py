"""Times how fast Hugging Face's T5 answers prompts in PyTorch, for comparison with another implementation.

    python bench_transformers_glue.py --model DIR --tokenizer tokenizer.json --prompts prompts.json

bench_worker.py says what it reads and prints. Answers come from `generate`, greedily, with cached keys and values,
under `torch.inference_mode`; a batch is padded to its longest prompt. With --unsorted it takes prompts as they come.
"""

import torch
from bench_worker import answer_glue, glue_parser
from transformers import T5ForConditionalGeneration
from transformers.utils import logging


def arguments():
    parser = glue_parser(__doc__)
    parser.add_argument("--bf16", action="store_true", help="compute under bfloat16 autocast")
    parser.add_argument("--unsorted", action="store_true", help="take prompts as they come")
    return parser.parse_args()


def main():
    options = arguments()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    model = T5ForConditionalGeneration.from_pretrained(options.model).to(device).eval()
    pad, eos = model.config.pad_token_id, model.config.eos_token_id

    @torch.inference_mode()
    def generate(prompts, max_new_tokens):
        longest = max(map(len, prompts))
        ids = torch.tensor([prompt + [pad] * (longest - len(prompt)) for prompt in prompts])
        mask = torch.tensor([[1] * len(prompt) + [0] * (longest - len(prompt)) for prompt in prompts])
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=options.bf16):
            output = model.generate(
                input_ids=ids.to(device), attention_mask=mask.to(device), max_new_tokens=max_new_tokens,
                num_beams=1, do_sample=False, use_cache=True,
            )  # fmt: skip
        return [row[1 : row.index(eos, 1) if eos in row[1:] else None] for row in output.tolist()]

    parameters = sum(parameter.numel() for parameter in model.parameters())
    answer_glue(options, parameters, generate, by_length=not options.unsorted)


if __name__ == "__main__":
    main()
