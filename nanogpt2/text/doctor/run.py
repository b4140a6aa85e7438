"""The doctor at work in a project: which text, which switches, and where what it found goes."""

from pathlib import Path

from nanogpt2.base.system import checksums, files
from nanogpt2.base.system.errors import DataError
from nanogpt2.config.config import Config, get_config
from nanogpt2.text.doctor.dataset_card import make_dataset_card
from nanogpt2.text.doctor.examine import examine
from nanogpt2.text.doctor.page import make_page
from nanogpt2.text.doctor.show import show
from nanogpt2.text.scan.recipe import Recipe

LIST = "dataset.json"


def examine_corpus(
    corpus: Path | None, params: Path, prepared: Path, *, out: Path | None, page: Path | None
) -> str:
    """Return what is found in a corpus, as lines, and write it to the files `out` and `page`.

    Without `corpus` it is that of the file `params`. Raises DataError where there is no text or
    the files cannot be written, ConfigError where a parameter is wrong.
    """
    config = get_config(params if corpus is None or files.exists(params) else {})
    files.check_writable(*filter(None, (out, page)))
    found = examine(
        Path(config.corpus) if corpus is None else corpus,
        _recipe(config),
        prepared=prepared,
    )
    if out is not None:
        files.write_json(out, found)
    if page is not None:
        files.write_text(page, make_page(found))
    return show(found)


def _recipe(config: Config) -> Recipe:
    return Recipe(
        config.tokenizer,
        config.vocab_size,
        config.val_fraction,
        config.test_fraction,
        split=config.split,
        separator=config.separator,
        text_field=config.text_field,
        find_copies=config.find_copies,
        clean=config.clean,
    )


def write_card(out: Path, prepared: Path) -> Path:
    """Write the card of the prepared data in the folder `prepared` to `out`, and return `out`.

    Raises DataError where there is no such data, and where a file there is no card.
    """
    if not files.exists(prepared / LIST):
        raise DataError(f"{prepared / LIST}: no such file; make it with: dvc repro prepare")
    if files.exists(out) and not files.read_text(out).startswith("---\n"):
        raise DataError(f"{out}: is there and no card; choose another name")
    description = checksums.read_sealed(prepared / LIST)
    files.write_text(out, make_dataset_card(description, name=out.resolve().parent.name))
    return out
