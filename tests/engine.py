"""The scripts of a page that holds a model, run by node: serve/playground/engine.mjs answers."""

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

NODE = shutil.which("node")
SHAPE: dict[str, object] = {  # of a model that is quick to compare
    "device": "cpu", "vocab_size": 64, "block_size": 16, "n_layer": 2, "n_head": 2, "n_embd": 16,
    "dropout": 0.0,
}  # fmt: skip
ENGINE = Path(__file__).parent / "serve/playground/engine.mjs"


def ask_pages(
    jobs: Sequence[tuple[Path, Sequence[Mapping[str, Any]]]],
) -> list[list[dict[str, Any]]]:
    """Return what each page answers to each of its questions."""
    assert NODE
    asked = json.dumps([{"page": str(page), "ask": list(asks)} for page, asks in jobs])
    done = subprocess.run(
        [NODE, ENGINE], input=asked, capture_output=True, check=True, encoding="utf-8"
    )
    return list(json.loads(done.stdout))
