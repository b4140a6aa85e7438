"""Which weights a run trains, and how quickly: frozen layers, LoRA, layer-wise learning rates."""

from nanogpt2.config.config import Config
from nanogpt2.model.gpt import GPT
from nanogpt2.train.finetune.lora import add_lora
from nanogpt2.train.finetune.start import trainable_names


def choose_trainable(model: GPT, config: Config) -> None:
    """Let no gradient reach what `freeze` names, and with lora_rank none but the changes' own.

    ConfigError where `freeze` names no weight, or leaves none.
    """
    names = [name for name, _ in model.named_parameters()]
    if config.lora_rank:
        add_lora(model, config)
    elif config.freeze:
        trained = set(trainable_names(names, config.freeze))
        for name, weight in model.named_parameters():
            weight.requires_grad_(name in trained)


def rate_factor(name: str, config: Config) -> float:
    """Return the learning rate of the weight `name` as a fraction of the last block's.

    Each block has layer_decay times the rate of the next; embeddings come before the first block,
    and the last norm and the head have the full rate (Howard & Ruder 2018).
    """
    part, _, rest = name.partition(".")
    if part == "h":
        return config.layer_decay ** (config.n_layer - 1 - int(rest.partition(".")[0]))
    return config.layer_decay**config.n_layer if part in ("wte", "wpe") else 1.0
