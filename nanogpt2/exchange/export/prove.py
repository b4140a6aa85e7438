"""Proof that an export computes what the model does: read by the other side's library, compared."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nanogpt2.base.system.errors import CheckpointError, ExtraError
from nanogpt2.base.system.extras import import_extra
from nanogpt2.exchange.export.record import Proof
from nanogpt2.model.gpt import GPT
from nanogpt2.model.modes import evaluating
from nanogpt2.tokens.tokenizer import Tokenizer

# How far a logit may be off, as a share of the largest: sums of float32 in another order, in units
# of its epsilon.
EXACTNESS = 64 * torch.finfo(torch.float32).eps
MOST_GREEDY = 128  # tokens
SEED = 1337


def prove_huggingface(model: GPT, tokenizer: Tokenizer, folder: Path) -> Proof | None:
    """Return how near what transformers reads in `folder` is to `model`; None without transformers.

    CheckpointError where it cannot be read, computes something else, or cuts texts otherwise.
    """
    try:
        transformers = import_extra("transformers", extra="hf")
    except ExtraError:
        return None
    library = f"transformers {transformers.__version__}"
    with quiet(transformers), evaluating(model), torch.no_grad():
        theirs = load_model(transformers, folder)
        their_tokenizer = load(transformers.AutoTokenizer, folder)
        idx = random_tokens(tokenizer.size, model.config.block_size)
        ours = logits_of(model, idx)
        logits = theirs(idx).logits[0].float()
        difference, scale = compare_logits(ours, logits[:, : tokenizer.size], library)
        greedy = continue_greedily(theirs, idx[:, :1], model.config.block_size)
        ours = logits_of(model, greedy)[:-1, : tokenizer.size]
        never = theirs.generation_config.suppress_tokens or []
        ours[:, [token for token in never if token < tokenizer.size]] = -torch.inf
    equal = compare_choices(ours, greedy[0, 1:], 2 * EXACTNESS * scale, library)
    compare_texts(tokenizer, their_tokenizer, greedy[0, 1:].tolist(), library)
    return Proof(library, idx.numel(), difference, scale, len(ours), equal)


@contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """Let transformers show neither bars nor advice."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def load(auto: Any, folder: Path, **options: Any) -> Any:
    """Return what a class of transformers makes of `folder`, without network or code from there."""
    try:
        return auto.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **options
        )
    except Exception as error:  # transformers' own readers raise of many kinds
        reason = (str(error).splitlines() or [""])[0]
        raise CheckpointError(
            f"transformers cannot read the export: {type(error).__name__}: {reason}"
        ) from error


def load_model(transformers: Any, folder: Path) -> Any:
    """Return the model in `folder`; CheckpointError where some weights are left over or missing."""
    model, info = load(
        transformers.AutoModelForCausalLM, folder, output_loading_info=True, dtype=torch.float32
    )
    wrong = {kind: names for kind, names in info.items() if names}
    if wrong:
        raise CheckpointError(f"transformers reads the export otherwise: {wrong}")
    return model.eval()


def random_tokens(n_tokens: int, block_size: int) -> Tensor:
    """Return tokens (1, block_size), the same ones each time."""
    generator = torch.Generator().manual_seed(SEED)
    return torch.randint(n_tokens, (1, block_size), generator=generator)


def logits_of(model: GPT, idx: Tensor) -> Tensor:
    """Return our logits (T, V) on the CPU for `idx` (1, T)."""
    logits: Tensor = model(idx.to(model.wte.weight.device))[0]
    return logits.float().cpu()


def continue_greedily(theirs: Any, idx: Tensor, block_size: int) -> Tensor:
    """Return `idx` (1, 1) followed by the most likely tokens, up to the block's end."""
    new = min(MOST_GREEDY, block_size - idx.shape[1])
    if not new:
        return idx
    tokens: Tensor = theirs.generate(
        idx, attention_mask=torch.ones_like(idx), max_new_tokens=new, do_sample=False
    )
    return tokens


def compare_logits(ours: Tensor, theirs: Tensor, library: str) -> tuple[float, float]:
    """Return the largest difference and logit; CheckpointError where they differ by too much."""
    ours = ours[:, : theirs.shape[1]]
    difference, scale = (ours - theirs).abs().max().item(), ours.abs().max().item()
    if not difference <= EXACTNESS * scale:  # also where it is not a number
        raise CheckpointError(
            f"{library} computes something else: logits differ by {difference:.2g} of {scale:.2g}"
        )
    return difference, scale


def compare_choices(ours: Tensor, chosen: Tensor, allowed: float, library: str) -> int:
    """Return how many of the `chosen` tokens (T,) are ours too, by our logits (T, V).

    CheckpointError where one is less likely than ours by more than `allowed`.
    """
    if not len(chosen):
        return 0
    best, lost = ours.argmax(1), ours.amax(1) - ours.gather(1, chosen[:, None])[:, 0]
    if not lost.max() <= allowed:
        at = int(lost.gt(allowed).int().argmax())
        raise CheckpointError(f"{library} goes on with another text from its token {at + 1} on")
    return int((best == chosen).sum())


def compare_texts(tokenizer: Tokenizer, theirs: Any, tokens: list[int], library: str) -> None:
    """Raise CheckpointError where `theirs` cuts the text of `tokens` otherwise, or joins it."""
    text = tokenizer.decode(tokens)
    if theirs.decode(tokens) != text:
        raise CheckpointError(f"{library} makes another text of the tokens {tokens[:8]}...")
    if theirs(text)["input_ids"] != tokenizer.encode(text).tolist():
        raise CheckpointError(f"{library} makes other tokens of the text {text[:40]!r}...")
