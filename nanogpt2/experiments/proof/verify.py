"""Whether what lies here belongs together: weights, tokenizer, data, parameters, code, record.

A chain leads from a checkpoint to its data: the checkpoint has the SHA-256 of dataset.json, which
has those of the token files. dvc.lock has the hash of each file that a stage read and wrote.
"""

from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

from nanogpt2.base.screen.screen import phase
from nanogpt2.base.system import checksums, files
from nanogpt2.base.system.errors import CheckpointError, DataError, NanoGPT2Error
from nanogpt2.config.config import Config, get_config
from nanogpt2.exchange.incoming.names import BESIDE, RECORD
from nanogpt2.experiments.proof.record import (
    DIFFERS,
    FITS,
    LOCK,
    MISSING,
    PARAMETERS,
    Finding,
    compare_record,
    judge,
)
from nanogpt2.experiments.proof.replay import replay
from nanogpt2.experiments.proof.signature import sign, verify_signature

DATA, INIT = Path("data/prepared"), Path("data/init/model.pt")
CHECKPOINTS = (Path("checkpoints/best_model.pt"), Path("checkpoints/final_model.pt"))
TRAINED, EVALUATED = Path("metrics/train.json"), Path("metrics/eval.json")
LISTS = (RECORD, "dataset.json")  # what a folder of ours has its files' hashes in


def verify(path: Path | None, *, replayed: bool = False, key: Path | None = None) -> list[Finding]:
    """Return what `look_at` finds, what is found when the run is `replayed`, and of a signature.

    `key` holds the public key of who signed `path`, or the best model.
    """
    with phase("comparing hashes"):
        findings = look_at(path)
    if replayed:
        findings += replay()
    if key is not None:
        findings.append(verify_signature(path or CHECKPOINTS[0], key))
    return findings


def sign_whole(path: Path | None, key: Path, findings: list[Finding]) -> Path:
    """Sign `path`, or the best model, with a private key; DataError where something did not fit."""
    if not all_fit(findings):
        raise DataError("not signed: sign what fits together")
    return sign(path or CHECKPOINTS[0], key)


def look_at(path: Path | None) -> list[Finding]:
    """Return what was found of the project and of `path`: a checkpoint, or a folder with a list.

    A folder is looked at alone. Raises DataError where there is nothing to look at.
    """
    if path is not None and files.is_folder(path):
        return list(verify_folder(path))
    if path is not None and not files.exists(path):
        raise DataError(f"{path}: no such file or folder")
    checkpoints = CHECKPOINTS if path is None else (path,)
    if not files.exists(LOCK):
        if path is None:
            raise DataError(f"{LOCK}: no such file: give this command in the project's folder")
        return [_open_checkpoint(path)[0]]
    return [*_look_at_record(), *_look_at_data(), *_look_at_checkpoints(checkpoints)]


def verify_folder(folder: Path) -> Iterator[Finding]:
    """Yield whether each file of an export, or of prepared data, is the one that is listed."""
    name = next((name for name in LISTS if files.exists(folder / name)), None)
    if name is None:
        raise DataError(f"{folder}: it has neither {' nor '.join(LISTS)}: no folder of ours")
    try:
        listed = checksums.read_list(folder, name)
    except DataError as error:
        yield Finding(DIFFERS, str(folder / name), _without_name(str(error)))
        return
    yield Finding(FITS, str(folder / name), "is whole")
    hashes = listed[checksums.FILES]
    for each in hashes:
        path, line = folder / each, checksums.describe_damage(folder, listed, each)
        if not files.exists(path):
            yield Finding(MISSING, str(path), "is not here")
        else:
            yield judge(str(path), [_without_name(line)] if line else [], fits=f"as in {name}")
    others = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    for other in sorted(others - {*hashes, name, *BESIDE}):
        yield Finding(DIFFERS, str(folder / other), f"is not in {name}")


def _without_name(line: str) -> str:
    return line.partition(": ")[2]


def _look_at_record() -> list[Finding]:
    try:
        return compare_record()
    except NanoGPT2Error as error:
        lines = str(error).splitlines()
        return [Finding(DIFFERS, *line.split(": ", 1)) for line in lines]  # file: mistake


def _look_at_data() -> Iterator[Finding]:
    if files.exists(DATA):  # the record says what is missing
        yield from verify_folder(DATA)
    if files.exists(DATA) and files.exists(EVALUATED):
        yield judge(str(EVALUATED), _other_texts(), fits=f"is of the texts of {DATA}")


def _other_texts() -> Iterator[str]:
    try:
        figures, texts = files.read_json(EVALUATED), files.read_json(DATA / "dataset.json")
        for split, row in figures.items():
            if "text" in row and not texts["sha256"][split].startswith(row["text"]):
                yield f"its figures of {split} are of another text than that of {DATA}"
    except (DataError, AttributeError, KeyError, TypeError):
        yield "it or dataset.json is damaged"


def _look_at_checkpoints(paths: tuple[Path, ...]) -> Iterator[Finding]:
    for path in filter(files.exists, paths):
        finding, loaded = _open_checkpoint(path)
        yield finding
        if loaded is not None:
            yield judge(
                str(path), _mismatches(loaded), fits=f"belongs to {DATA}, {TRAINED} and params.yaml"
            )


def _open_checkpoint(path: Path) -> tuple[Finding, Any]:
    from nanogpt2.model.checkpoint import load_checkpoint  # torch takes a second to import

    try:
        loaded = load_checkpoint(path, device="cpu")
    except NanoGPT2Error as error:
        return Finding(DIFFERS, str(path), _without_name(str(error))), None
    return Finding(FITS, str(path), "is whole"), loaded


def _mismatches(checkpoint: Any) -> Iterator[str]:
    """Yield what of a checkpoint is not of the data, figures and parameters that are here."""
    from nanogpt2.train.finetune.start import SHAPE_KEYS

    figures = dict(checkpoint.origin)
    dataset, init = figures.pop("dataset", None), figures.pop("init", None)
    teachers = figures.pop("teachers", [])
    decided = () if init is None else (*SHAPE_KEYS, "vocab_size")  # by the weights it began with
    try:
        if init is not None and files.exists(INIT):
            yield from _other_start(init)
        yield from _other_teachers(teachers)
        if files.exists(DATA):
            yield from _other_data(checkpoint, dataset)
        if files.exists(TRAINED) and files.read_json(TRAINED) != figures:
            yield f"has other figures than {TRAINED}"
        yield from _other_parameters(checkpoint.model.config, get_config(PARAMETERS), but=decided)
    except NanoGPT2Error as error:
        yield from str(error).splitlines()


def _other_start(init: object) -> Iterator[str]:
    from nanogpt2.model.checkpoint import load_checkpoint

    try:
        here = load_checkpoint(INIT, device="cpu").origin.get("weights")
    except CheckpointError:  # empty, where a run starts from scratch
        here = None
    if here != init:
        yield f"was trained from other weights than those of {INIT}"


def _other_teachers(teachers: Sequence[str]) -> Iterator[str]:
    from nanogpt2.model.checkpoint import hash_weights, load_checkpoint

    for path, sha256 in zip(get_config(PARAMETERS).teachers, teachers, strict=False):
        if not files.exists(path):
            continue
        if hash_weights(load_checkpoint(path, device="cpu").model.state_dict()) != sha256:
            yield f"followed another teacher than {path}"


def _other_data(checkpoint: Any, dataset: object) -> Iterator[str]:
    from nanogpt2.tokens.dataset import load_prepared_tokenizer

    if checksums.hash_file(DATA / "dataset.json") != dataset:
        yield f"was trained on other data than {DATA / 'dataset.json'} describes"
    own = checkpoint.tokenizer
    if own is None or own.to_dict() != load_prepared_tokenizer(DATA).to_dict():
        yield f"has another tokenizer than {DATA / 'tokenizer.json'}"


def _other_parameters(trained: Config, here: Config, *, but: Container[str]) -> Iterator[str]:
    values = here.resolved().training_dict()
    for key, value in trained.resolved().training_dict().items():
        if values[key] != value and key not in but:
            yield f"was trained with {key} {value}, and {PARAMETERS} has {values[key]}"


def all_fit(findings: list[Finding]) -> bool:
    """Return whether nothing differs and nothing is missing."""
    return all(finding.verdict == FITS for finding in findings)


def summarise(findings: list[Finding]) -> str:
    """Return in a line how many things fit, and the names of those that do not."""
    if all_fit(findings):
        return f"all {len(findings)} things fit together"
    parts = []
    for verdict, words in ((DIFFERS, "differ"), (MISSING, "not here, so not verified")):
        if names := sorted({finding.name for finding in findings if finding.verdict == verdict}):
            parts.append(f"{words}: {', '.join(names)}")
    return "; ".join(parts)
