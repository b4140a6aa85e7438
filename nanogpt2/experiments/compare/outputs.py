"""What the page shows of outputs that DVC keeps: samples, copied stretches, prepared data."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nanogpt2.experiments.compare.cache import Cache
from nanogpt2.experiments.compare.runs import COPIES, PREPARED, SAMPLES, Run

SAMPLES_SHOWN, LENGTH = 5, 1500  # of a run, and characters of each


def read_samples(run: Run, cache: Cache) -> list[str] | None:
    """Return the first samples of `run`, None where the cache lacks them."""
    md5 = run.hashes.get(SAMPLES)
    names = cache.list_folder(md5) if md5 else None
    if names is None:
        return None
    first = sorted(name for name in names if name.endswith(".txt"))[:SAMPLES_SHOWN]
    texts = (cache.read_text(names[name]) for name in first)
    return [text if len(text) <= LENGTH else f"{text[:LENGTH]}..." for text in texts if text]


def read_copies(run: Run, cache: Cache) -> str | None:
    """Return the longest stretches that samples of `run` copy, None where the cache lacks them."""
    text = cache.read_text(run.hashes.get(COPIES))
    return None if text is None else text[: 2 * LENGTH]


Datasets = Sequence[tuple[list[Run], Mapping[str, Any] | None]]


def read_datasets(runs: Sequence[Run], cache: Cache) -> Datasets:
    """Return the data that runs were trained on: the runs, and dataset.json where it is cached."""
    users: dict[str, list[Run]] = {}
    for run in runs:
        if md5 := run.hashes.get(PREPARED):
            users.setdefault(md5, []).append(run)
    return [(of, cache.read_json(md5, "dataset.json")) for md5, of in users.items()]


def describe_dataset(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what prepared data is, a name and its value."""
    for key in ("characters", "tokens", "documents", "vocabulary"):
        if isinstance(data.get(key), int):
            yield key, f"{data[key]:,}"
    yield "tokenizer", str(data.get("tokenizer"))
    for split, sizes in _objects(data, "splits"):
        yield (
            split,
            ", ".join(f"{value:,} {key}" for key, value in sizes.items() if isinstance(value, int)),
        )
    sources = [each for each in data.get("sources") or [] if isinstance(each, dict)]
    total = sum(int(each.get("bytes") or 0) for each in sources)
    names = ", ".join(str(each.get("path")) for each in sources[:3])
    yield (
        "sources",
        f"{len(sources):,} files, {total:,} bytes: {names}" + ", ..." * (len(sources) > 3),
    )
    for split, share in (data.get("overlap") or {}).items():
        if isinstance(share, float):
            yield f"{split} that stands in train too", f"{share:.2%}"
    for split, found in _objects(data, "near_copies"):
        if split != "train" and isinstance(found.get("in_train"), int):
            yield f"{split}, near copies of train", f"{found['in_train']:,} characters"
    for warning in data.get("warnings") or []:
        yield "warning", str(warning)


def _objects(data: Mapping[str, Any], key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    found = data.get(key)
    for name, value in (found if isinstance(found, dict) else {}).items():
        if isinstance(value, dict):
            yield name, value


def bytes_per_token(run: Run, datasets: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return the bytes of a token of each split, where figures or prepared data tell."""
    found = {}
    splits = datasets.get(run.hashes.get(PREPARED, ""), {}).get("splits")
    train = splits.get("train") if isinstance(splits, dict) else None
    if isinstance(train, dict) and train.get("tokens") and train.get("bytes"):
        found["train"] = train["bytes"] / train["tokens"]
    if run.figures.get("val.tokens") and run.figures.get("val.bytes"):
        found["val"] = run.figures["val.bytes"] / run.figures["val.tokens"]
    return found
