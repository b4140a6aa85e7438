"""What can be known to be wrong before a run starts: its parameters, text, device and folders."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nanogpt2.base import files
from nanogpt2.base.errors import ConfigError, DataError, NanoGPT2Error
from nanogpt2.config.config import Config, complete, read_values
from nanogpt2.config.schema import find_errors, load_schema, without
from nanogpt2.config.yaml12 import printable, show
from nanogpt2.device.device import check_driver
from nanogpt2.text import corpus

PEEK_BYTES = 2_000_000


def check_run(
    source: str | Path, *, built_in: str, checkpoint_dir: str, needs_all: bool = False
) -> None:
    """Raise ConfigError with one line for each thing in a preset or file that would stop a run.

    `built_in` is the corpus that a stage makes, so it need not be there yet. With `needs_all` a
    key that is left out is a mistake too: DVC reads the file itself and knows no defaults.
    """
    name, values = read_values(source)
    wrong = find_errors(values)
    config = complete(without(values, wrong))
    lines = [f"{key}: {text}" for key, text in wrong.items()]
    if needs_all:
        lines += _missing_keys(values, load_schema())
    for keys, check in list_checks(config, built_in=built_in, checkpoint_dir=checkpoint_dir):
        if not keys & wrong.keys():
            lines += _errors(check)
    if lines:
        # two checks may meet the same mistake
        raise ConfigError("\n".join(f"{name}: {printable(line)}" for line in dict.fromkeys(lines)))


def _missing_keys(
    values: Mapping[str, Any], schema: Mapping[str, Any], group: str = ""
) -> Iterator[str]:
    for key, rule in schema["properties"].items():
        if key not in values and "properties" not in rule:
            yield f"{group}{key}: missing; add its line, such as {key}: {show(rule['default'])}"
        elif "properties" in rule and isinstance(values.get(key, {}), Mapping):
            yield from _missing_keys(values.get(key, {}), rule, f"{key}.")


def list_checks(
    config: Config, *, built_in: str, checkpoint_dir: str
) -> list[tuple[set[str], Callable[[], object]]]:
    """Return each check with the keys on which it relies."""
    source, prompt_file = Path(config.corpus), Path(config.sample.prompt_file)
    checks: list[tuple[set[str], Callable[[], object]]] = [
        ({"device"}, lambda: check_driver(config.device)),
        ({"sample", "sample.prompt_file"}, lambda: check_prompt_file(prompt_file)),
        ({"checkpoint_dir"}, lambda: check_checkpoint_dir(config.checkpoint_dir, checkpoint_dir)),
    ]
    if source == Path(built_in) and not source.exists():
        return checks
    return [
        *checks,
        ({"corpus"}, lambda: corpus.find_text_files(source)),
        (
            {"corpus", "tokenizer", "block_size", "val_fraction", "test_fraction"},
            lambda: check_length(config),
        ),
        ({"corpus", "tokenizer", "vocab_size"}, lambda: check_characters(config)),
    ]


def _errors(check: Callable[[], object]) -> Iterator[str]:
    try:
        check()
    except NanoGPT2Error as error:
        yield str(error)


def check_prompt_file(path: Path) -> None:
    """Raise ConfigError where the prompt's file is missing or no text."""
    try:
        is_file = path.is_file()
    except OSError:  # such as a name that is too long
        is_file = False
    if not is_file:
        raise ConfigError(f"sample.prompt_file: {path} is no file; allowed: a UTF-8 text file")
    try:
        files.read_text(path)
    except DataError as error:
        raise ConfigError(f"sample.prompt_file: {error}; allowed: a UTF-8 text file") from error


def check_checkpoint_dir(found: str, constant: str) -> None:
    """Raise ConfigError where the pipeline's outputs would land in another folder."""
    if Path(found) != Path(constant):
        raise ConfigError(
            f"checkpoint_dir: found {found}; allowed: {constant} in the pipeline (it is free"
            " when a stage is run by hand with --config)"
        )


# --- The text: what is refused here is surely wrong, what passes `prepare` reads in full ---


def check_length(config: Config) -> None:
    """Raise NanoGPT2Error where a split is too short to be used."""
    window = config.block_size + 1
    for name, tokens in most_tokens(config).items():
        needed = 2 if name == "test" else window
        if tokens < needed:
            raise ConfigError(
                f"corpus: {config.corpus} gives the {name} split {tokens} tokens; allowed: at"
                f" least {needed} with block_size {config.block_size}; use more text, other"
                " fractions or a smaller block_size"
            )


def most_tokens(config: Config) -> dict[str, int]:
    """Return the number of tokens in each split, or, for 2 MB and more, an upper bound."""
    paths = corpus.find_text_files(Path(config.corpus))
    n_bytes = sum(path.stat().st_size for path in paths)
    fractions = {"val_fraction": config.val_fraction, "test_fraction": config.test_fraction}
    is_byte = config.tokenizer == "byte"
    if n_bytes < PEEK_BYTES:
        text, _ = corpus.read_corpus(Path(config.corpus))
        parts = corpus.split(text, **fractions)
        return {name: len(part.encode() if is_byte else part) for name, part in parts.items()}
    train = 1 - config.val_fraction - config.test_fraction
    most = n_bytes * (4 if is_byte else 1)  # a character is up to 4 bytes
    return {"train": int(most * train), "val": int(most * config.val_fraction)}


def check_characters(config: Config) -> None:
    """Raise NanoGPT2Error where the text's start has more characters than the model has rows."""
    characters = len(set(peek(corpus.find_text_files(Path(config.corpus)))))
    if config.tokenizer == "char" and characters > config.vocab_size:
        raise ConfigError(
            f"vocab_size: found {config.vocab_size}; allowed: at least {characters},"
            f" the different characters at the start of {config.corpus}"
        )


def peek(paths: list[Path]) -> str:
    """Return the normalised text of as many whole files as fit into 2 MB, or of the first's start.

    Raises DataError where a file is not text.
    """
    texts, size = [], 0
    for path in paths:
        size += path.stat().st_size
        if size > PEEK_BYTES:
            break
        texts.append(corpus.read_file(path)[0])
    return "".join(texts) or corpus.read_start(paths[0], PEEK_BYTES)
