"""What a model card tells, gathered in a project: only what belongs to the checkpoint."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from nanogpt2.base.system import checksums, files
from nanogpt2.base.system.errors import DataError, NanoGPT2Error
from nanogpt2.base.system.repository import changed_files, current_commit, has_experiments
from nanogpt2.exchange.incoming.names import RECORD
from nanogpt2.experiments.proof.card import Facts, make_card
from nanogpt2.experiments.proof.record import (
    LOCK,
    PARAMETERS,
    describe_path,
    is_described,
    recorded_outputs,
)
from nanogpt2.experiments.proof.verify import CHECKPOINTS, DATA, EVALUATED
from nanogpt2.experiments.seeds import read_seeds
from nanogpt2.model.checkpoint import Checkpoint, load_checkpoint

SAMPLES = Path("samples")
DATASET = DATA / "dataset.json"


def gather(
    path: Path, *, name: str, licence: str | None = None, export: Path | None = None
) -> Facts:
    """Return the facts on the checkpoint `path`, in the project that is the current folder.

    With the folder of an `export` they are those of its card. Raises CheckpointError where the
    checkpoint cannot be read, DataError where the export is damaged.
    """
    loaded = load_checkpoint(path, device="cpu")
    known, data, recorded = loaded.tokenizer, _data_of(loaded), _recorded(path)
    facts = Facts(
        name=name,
        config=loaded.model.config.resolved().training_dict(),
        n_parameters=loaded.model.count_parameters(),
        tokenizer=f"{known.name} tokenizer of {known.size:,} tokens" if known else "tokenizer",
        library="transformers" if export else "nanogpt2",
        licence=_checked_licence(licence),
        dataset=data,
        hashes=_hashes(path, *([DATASET] if data else [])),
        started_from=loaded.origin.get("init"),
        followed=loaded.origin.get("teachers", ()),
        proof=_proof(export) if export else (),
        notes=[] if data else [f"the training data: {DATASET} is not here, or of other data"],
    )
    if EVALUATED.as_posix() not in recorded:
        note = f"figures, samples and commit: {LOCK} records none of this checkpoint"
        return replace(facts, notes=[*facts.notes, note])
    return replace(
        facts,
        figures=files.read_json(EVALUATED),
        seeds=_seeds(),
        samples=_samples() if SAMPLES.as_posix() in recorded else (),
        commit=current_commit(),
        changed=changed_files("."),
        hashes={**facts.hashes, **_hashes(Path(PARAMETERS), Path(LOCK))},
    )


def write_card(out: Path, facts: Facts) -> None:
    """Write the card of `facts` to `out`; DataError where a file there is no card."""
    if files.exists(out) and not files.read_text(out).startswith("---\n"):
        raise DataError(f"{out}: is there and no model card; choose another name")
    files.write_text(out, make_card(facts))


def _hashes(*paths: Path) -> dict[str, str]:
    return {path.as_posix(): checksums.hash_file(path) for path in paths}


def _recorded(path: Path) -> set[str]:
    """Return the outputs that are as dvc.lock records them with this checkpoint as the best one."""
    outputs = recorded_outputs() if files.exists(LOCK) else {}
    best = outputs.get(CHECKPOINTS[0].as_posix())
    if best is None or not is_described(best, describe_path(path)):
        return set()
    there = {output: entry for output, entry in outputs.items() if files.exists(output)}
    return {output for output, entry in there.items() if is_described(entry, describe_path(output))}


def _data_of(loaded: Checkpoint) -> dict[str, Any] | None:
    if not files.exists(DATASET) or checksums.hash_file(DATASET) != loaded.origin.get("dataset"):
        return None
    return dict(checksums.read_sealed(DATASET))


def _seeds() -> dict[int, Any]:
    """Return the figures of `seeds` on this commit, if params.yaml is still as it was then."""
    if not has_experiments() or changed_files(PARAMETERS):
        return {}
    try:
        return dict(read_seeds())
    except NanoGPT2Error:  # a card can do without
        return {}


def _samples() -> list[str]:
    return [files.read_text(path) for path in sorted(SAMPLES.glob("sample_*.txt"))]


def _proof(export: Path) -> list[str]:
    """Return what an export's record tells: a line for each figure, and for each note."""
    listed = checksums.read_list(export, RECORD)
    listed.pop(checksums.FILES)
    proof, notes = listed.pop("proof", None), listed.pop("notes", [])
    told = listed | (proof if isinstance(proof, dict) else {})
    figures = [f"{key.replace('_', ' ')}: {value}" for key, value in told.items()]
    return [*figures, *(str(note) for note in notes)]


def _checked_licence(licence: str | None) -> str | None:
    if licence is not None and not all(c.isalnum() or c in "-._+" for c in licence):
        raise DataError(f"--license: found {licence!r}; allowed: an identifier, such as mit")
    return licence
