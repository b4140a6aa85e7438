"""What a plan decides, and what it takes as given: the values of a run in params.yaml."""

from dataclasses import dataclass
from typing import Any

# What all runs had that the laws were fitted to; whatever else says how a model is made is empty.
GIVEN: dict[str, Any] = {
    "architecture": "qwen3",
    **dict.fromkeys(("bias", "positions", "norm", "qk_norm", "mlp", "mlp_conv", "n_kv_head")),
    **dict.fromkeys(("tied_head", "zero_init", "logit_softcap", "attention_dropout", "precision")),
    "gradient_accumulation_steps": 1,
    "sampling": "epoch",
    "optimizer": "normuon",
    "mtp_weight": 0,
    "schedule": "cosine",
    "min_learning_rate_fraction": 0.0,
    "weight_decay": 0.1,
    "beta1": 0.9,
    "beta2": 0.99,
    "ema_decay": 0,
    "grad_clip": 1.0,
    "mixed_precision": True,
}
SIZES = (  # layers and width of the models that are considered
    *((2, 64), (2, 96), (3, 96), (2, 128), (3, 128), (4, 128), (3, 192), (4, 192), (3, 256)),
    *((4, 256), (6, 256), (6, 320), (6, 384), (8, 384), (8, 512), (12, 512)),
)
BLOCKS = 128, 256
TOKENS = 1024, 2048, 4096, 8192  # in a step
DROPOUTS = 0.0, 0.1, 0.2, 0.3, 0.4
VOCABULARIES = 512, 1024, 2048, 4096  # of bpe
BYTES_PER_TOKEN = 150  # of text at least, for each token of a bpe
LEAST_BATCH = 4
LEAST_STEPS = 200
LEARNING_RATE, MUON_LEARNING_RATE = 8e-3, 2e-2
WARMUP = 100  # steps, or a tenth of a run if that is less


@dataclass(frozen=True)
class Choice:
    """What a plan chooses of a run."""

    bpe: int  # tokens of a bpe; 0 takes characters
    width: int  # channels, n_embd
    layers: int
    block: int  # tokens of context
    batch: int  # windows
    steps: int
    dropout: float
    rate: float = 1.0  # what both learning rates are multiplied by

    @property
    def tokens(self) -> int:
        """Tokens that a step trains on."""
        return self.batch * self.block


def make_values(choice: Choice) -> dict[str, Any]:
    """Return the values of params.yaml that make up `choice`, but those of the tokenizer."""
    head = 32 if choice.width <= 256 else 64
    return {
        **GIVEN,
        "block_size": choice.block,
        "n_layer": choice.layers,
        "n_head": choice.width // head,
        "n_embd": choice.width,
        "dropout": choice.dropout,
        "batch_size": choice.batch,
        "max_iters": choice.steps,
        "warmup_iters": min(WARMUP, choice.steps // 10),
        "learning_rate": float(f"{LEARNING_RATE * choice.rate:.3g}"),
        "muon_learning_rate": float(f"{MUON_LEARNING_RATE * choice.rate:.3g}"),
    }


def count_flops(width: Any, layers: Any, block: Any, vocab_size: Any) -> Any:
    """Return the floating-point operations of training on one token; numbers or arrays."""
    matrices = 12 * layers * width**2 + width * vocab_size
    return 6 * matrices + 6 * layers * width * block


def describe(choice: Choice) -> str:
    """Return `choice` in words."""
    tokenizer = f"bpe of {choice.bpe:,}" if choice.bpe else "characters"
    return (
        f"{choice.layers} layers of {choice.width}, {choice.block} tokens of context ({tokenizer}),"
        f" {choice.steps:,} steps of {choice.batch} windows, dropout {choice.dropout:g}"
    )
