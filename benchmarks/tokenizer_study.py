"""Tokenizers beside one another on a text: bits per byte at equal seconds, for several seeds.

What `python -m nanogpt2 tokenizer` compares once. With --processor the seconds are those of the
processor, which other programs on the machine change least; give it OMP_NUM_THREADS=1.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from nanogpt2.config.config import get_config
from nanogpt2.experiments.candidates import SIZES, list_candidates, read_texts, try_tokenizer


def main() -> None:
    """Print a row for each tokenizer, with the bits per byte of each seed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--params", default="params.yaml", help="a file or a preset")
    parser.add_argument("--corpus", default="data/shakespeare")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--processor", action="store_true", help="seconds of the processor")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    options = parser.parse_args()
    config = get_config(options.params, corpus=str(options.corpus), device=options.device)
    train, val = read_texts(config)
    clock = time.process_time if options.processor else time.perf_counter
    print(
        f"{Path(options.corpus)}: {config.n_layer} layers of {config.n_embd}, {options.seconds:g} s"
    )
    print("| tokenizer | rows | bytes a token | steps | nats a token | bits a byte | each seed |")
    print("|---" * 7 + "|")
    for tokenizer in list_candidates(train, val, options.sizes):
        found = [
            try_tokenizer(
                replace(config, seed=seed),
                tokenizer,
                train,
                val,
                seconds=options.seconds,
                clock=clock,
            )
            for seed in options.seeds
        ]
        bits = [outcome.bits_per_byte for outcome in found]
        print(
            f"| {found[0].tokenizer} | {found[0].vocab_size:,} | {found[0].bytes_per_token:.3f} |"
            f" {fmean(outcome.steps for outcome in found):,.0f} |"
            f" {fmean(outcome.loss for outcome in found):.4f} | {fmean(bits):.4f} |"
            f" {', '.join(f'{each:.4f}' for each in bits)} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
