"""What can be known to be wrong before a run starts: its parameters, text, device and folders."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanogpt2.base.system.errors import ConfigError, DataError, NanoGPT2Error
from nanogpt2.config.config import Config, complete, read_values
from nanogpt2.config.schema import find_errors, load_schema, without
from nanogpt2.config.yaml12 import printable, show
from nanogpt2.device.device import check_driver
from nanogpt2.text.reading import corpus, plain, shakespeare
from nanogpt2.tokens.normal import normalise

if TYPE_CHECKING:  # it imports numpy, and every run looks here first
    from nanogpt2.tokens.tokenizer import Tokenizer

PEEK_BYTES = 2_000_000
MOST_BYTES = 12  # of UTF-8 that make one character of the normalised text, and some more
LENGTH_BYTES = 32_000_000  # what is read at most to know whether every split is long enough


Check = tuple[set[str], Callable[[Config], object]]  # the keys on which it relies, and what it does


def check_run(
    source: str | Path,
    *,
    built_in: str,
    checkpoint_dir: str,
    needs_all: bool = False,
    also: Sequence[Check] = (),
) -> None:
    """Raise ConfigError with one line for each thing in a preset or file that would stop a run.

    `built_in` is the corpus that a stage makes, so it need not be there yet. With `needs_all` a
    key that is left out is a mistake too: DVC reads the file itself and knows no defaults. `also`
    are checks of other rooms.
    """
    name, values = read_values(source)
    wrong = find_errors(values)
    config = complete(without(values, wrong))
    lines = [f"{key}: {text}" for key, text in wrong.items()]
    if needs_all:
        lines += _missing_keys(values, load_schema())
    checks = list_checks(config, built_in=built_in, checkpoint_dir=checkpoint_dir)
    checks += [(keys, partial(check, config)) for keys, check in also]
    for keys, run_check in checks:
        if not keys & wrong.keys():
            lines += _errors(run_check)
    if lines:
        # two checks may meet the same mistake
        raise ConfigError("\n".join(f"{name}: {printable(line)}" for line in dict.fromkeys(lines)))


def check_copy(source: str | Path, project: Path) -> None:
    """Raise ConfigError where a text that `project` has is missing in this copy of it."""
    name, values = read_values(source)
    config = complete(without(values, find_errors(values)))
    texts = [
        ("corpus", config.corpus),
        ("init_from", config.init_from),
        ("sample.prompt_file", config.sample.prompt_file),
        *(("teachers", path) for path in config.teachers),
    ]
    lines = [
        f"{name}: {key}: {path} is not in the copy of the project in which DVC runs an experiment,"
        f" since git does not know of it: {_track(path, project)}"
        for key, path in texts
        if (project / path).exists() and not _is_tracked(Path(path))
    ]
    if lines:
        raise ConfigError("\n".join(map(printable, lines)))


def _is_tracked(path: Path) -> bool:
    """Return whether `path` is in this copy, or will be: DVC brings what a stage reads."""
    return path.exists() or any(Path(f"{part}.dvc").exists() for part in (path, *path.parents))


def _track(path: str, project: Path) -> str:
    """Return the commands with which git and DVC take `path` along."""
    if (project / path).is_dir():
        return f"dvc add {path} && git add {path}.dvc {Path(path).parent / '.gitignore'}"
    if Path(path).suffix == ".pt":
        return f"dvc add {path} && git add {Path(path).parent}"
    return f"git add {path}"


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
        ({"sample", "sample.stop"}, lambda: check_stop(config.sample.stop)),
        ({"sampling", "separator"}, lambda: check_sampling(config)),
        ({"checkpoint_dir"}, lambda: check_checkpoint_dir(config.checkpoint_dir, checkpoint_dir)),
    ]
    sizes = {"corpus", "tokenizer", "block_size", "val_fraction", "test_fraction"}
    if source == Path(built_in) and not source.exists():
        return [*checks, (sizes, lambda: check_built_in(config))]
    return [
        *checks,
        ({"corpus"}, lambda: check_corpus(source)),
        (sizes, lambda: check_length(config)),
        ({"corpus", "tokenizer", "vocab_size"}, lambda: check_characters(config)),
        (
            {"corpus", "tokenizer", "sample", "sample.prompt", "sample.prompt_file"},
            lambda: check_prompt(config),
        ),
    ]


def _errors(check: Callable[[], object]) -> Iterator[str]:
    try:
        check()
    except NanoGPT2Error as error:
        yield from str(error).splitlines()


def check_prompt_file(path: Path) -> None:
    """Raise ConfigError where the prompt's file is missing or no text."""
    try:
        is_file = path.is_file()
    except OSError:  # such as a name that is too long
        is_file = False
    if not is_file:
        raise ConfigError(f"sample.prompt_file: {path} is no file; allowed: a UTF-8 text file")
    try:
        plain.read_text(path)
    except DataError as error:
        raise ConfigError(f"sample.prompt_file: {error}; allowed: a UTF-8 text file") from error


def check_stop(texts: Sequence[str]) -> None:
    """Raise ConfigError where one of the texts that end a sample is nothing once normalised."""
    for number, text in enumerate(texts):
        if text and not normalise(text):
            raise ConfigError(f"sample.stop.{number}: found {show(text)}; allowed: a text")


def check_sampling(config: Config) -> None:
    """Raise ConfigError where windows are to follow documents that nothing marks."""
    if config.sampling == "documents" and config.separator in ("", "\n"):
        raise ConfigError(
            f"sampling: found documents with separator {show(config.separator)}, which lines have"
            " too; allowed: epoch or random, or a separator that documents alone have"
        )


def check_checkpoint_dir(found: str, constant: str) -> None:
    """Raise ConfigError where the pipeline's outputs would land in another folder."""
    if Path(found) != Path(constant):
        raise ConfigError(
            f"checkpoint_dir: found {found}; allowed: {constant} in the pipeline (it is free"
            " when a stage is run by hand with --config)"
        )


# --- The text: what is refused here is surely wrong, what passes `prepare` reads in full ---


def check_built_in(config: Config) -> None:
    """Raise DataError where a split of the built-in text, not yet there, will be too short."""
    n_characters = shakespeare.CHARACTERS  # each a byte, and so a token of either tokenizer
    sizes = corpus.split_sizes(n_characters, **_fractions(config))
    corpus.check_sizes(sizes, config.block_size, corpus=Path(config.corpus))


def check_corpus(source: Path) -> None:
    """Raise NanoGPT2Error where the corpus is not there, or is what no stage can depend on."""
    if corpus.is_glob(source):
        raise ConfigError(
            f"corpus: {source} is a pattern, which DVC does not follow; allowed in the pipeline:"
            f" a file or folder, such as {corpus.root_of(source)} (a pattern is free when a stage"
            " is run by hand with --config)"
        )
    corpus.find_text_files(source)


def check_length(config: Config) -> None:
    """Raise DataError where a split is too short to be used.

    No more is read than it takes to know that all are long enough, nor of a large corpus.
    """
    source = Path(config.corpus)
    held_out = [fraction for fraction in _fractions(config).values() if fraction]
    enough = MOST_BYTES * (config.block_size + 2) / min(*held_out, 1 - sum(held_out))
    text, whole = peek(config, max(PEEK_BYTES, int(min(enough, LENGTH_BYTES))))
    if whole and not text.strip():
        raise DataError(f"corpus: {source} holds no text; put some into its files")
    if not whole or config.tokenizer not in ("char", "byte"):  # `prepare` counts tokens of others
        return
    parts = corpus.split(text, **_fractions(config))
    is_byte = config.tokenizer == "byte"
    sizes = {name: len(part.encode() if is_byte else part) for name, part in parts.items()}
    corpus.check_sizes(sizes, config.block_size, corpus=source)


def _fractions(config: Config) -> dict[str, float]:
    return {"val_fraction": config.val_fraction, "test_fraction": config.test_fraction}


def check_characters(config: Config) -> None:
    """Raise NanoGPT2Error where the text's start has more characters than the model has rows."""
    characters = len(set(peek(config)[0]))
    if config.tokenizer == "char" and characters > config.vocab_size:
        raise ConfigError(
            f"vocab_size: found {config.vocab_size}; allowed: at least {characters},"
            f" the different characters at the start of {config.corpus};"
            " tokenizer: bpe fits any text, with a vocab_size such as 2048"
        )


def check_prompt(config: Config) -> None:
    """Raise ConfigError where the prompt has a character that the corpus lacks, if that is small.

    Then the `char` tokenizer will not know it, and sampling would fail after all that training.
    """
    if config.tokenizer != "char":
        return
    with suppress(DataError):  # which the other checks say
        text, whole = peek(config)
        allowed = f"the characters of {config.corpus}, or any with tokenizer: byte"
        if whole and (lines := _strange(*_prompt(config), text, "found", allowed)):
            raise ConfigError(*lines)


def check_tokens(config: Config, tokenizer: "Tokenizer") -> None:
    """Raise ConfigError where the text's start or the prompt has what `tokenizer` lacks."""
    from nanogpt2.tokens.tokenizer import CharTokenizer

    if not isinstance(tokenizer, CharTokenizer):  # others know every byte
        return
    lines: list[str] = []
    known, problem = tokenizer.characters, "the tokenizer of init_from does not know"
    with suppress(DataError):  # which the other checks say
        text = peek(config)[0]
        lines += _strange("tokenizer", text, known, problem, f"byte for {config.corpus}")
    with suppress(DataError):
        lines += _strange(*_prompt(config), known, problem, "what init_from knows")
    if lines:
        raise ConfigError("\n".join(lines))


def _prompt(config: Config) -> tuple[str, str]:
    """Return the key of the prompt and its text."""
    knobs = config.sample
    key = "sample.prompt_file" if knobs.prompt is None else "sample.prompt"
    return key, plain.read_prompt(knobs.prompt, Path(knobs.prompt_file))


def _strange(key: str, text: str, known: str, problem: str, allowed: str) -> list[str]:
    """Return a line on the first character of `text` that is not among the `known`, if any."""
    if not (strange := set(text) - set(known)):
        return []
    first = min(strange, key=text.index)
    return [f"{key}: {problem} {first!r} (U+{ord(first):04X}); allowed: {allowed}"]


def peek(config: Config, size: int = PEEK_BYTES) -> tuple[str, bool]:
    r"""Return the normalised text of about the first `size` bytes of the corpus, and if it is all.

    The texts of its files are joined by `\n`. Raises DataError where a file is not text.
    """
    paths, left = corpus.find_text_files(Path(config.corpus)), size

    def read(path: Path) -> tuple[str, bool]:
        nonlocal left
        text, is_all = corpus.read_start(path, left)
        left = left - len(text.encode("utf-8")) - 1 if is_all else 0
        return text, is_all

    found = corpus.of_each(read, takewhile(lambda _: left > 0, paths))
    whole = len(found) == len(paths) and all(is_all for _, is_all in found)
    return "\n".join(text for text, _ in found), whole
