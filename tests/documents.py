"""The documents: their blocks of code, as a reader takes them from a page."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from every import EVERY
from imports import ROOT

BESIDE = ("README", "CONTRIBUTING", "benchmarks/README", "benchmarks/RECORDS")
DOCUMENTS = sorted([*ROOT.glob("docs/*.md"), *(ROOT / f"{name}.md" for name in BESIDE)])
FENCE = re.compile(r"(?ms)^```(?P<language>\w*)\n(?P<text>.*?)^```$|^#+ (?P<heading>.+?)$")
SHELL = ("sh", "bash")
# How commands begin that no test can run as they stand, and why.
NOT_RUN = {
    r"git clone |make |source |pip install ": "sets a project up, as CI does before its tests",
    r"n=64|(scan|settle|encode)=|sbatch ": "needs a cluster with Slurm; its commands run above it",
    r"torchrun --nnodes": "needs two machines; tests/train/test_distributed.py has processes",
    r".*--device cuda": "needs a GPU; without the option it runs",
    r".*\bgpt2( |$)|.*=gpt2 ": "fetches 0.5 GB; tests/exchange/incoming/test_hub.py has a hub",
    r".*\bbenchmarks/": "takes long, or a text or machine that is not here",
    r"mkdocs build": "tests/whole/test_site.py builds it in a folder of its own",
    r"mkdir llama": "fetches llama.cpp",
    r"cp -r TEXT": "the text is one of five languages; the commands are those of docs/start.md",
    r".*report .*--watch": "does not end; tests/experiments/pages/test_watch.py ends it",
    r".*nanogpt2 plan": "takes a minute; tests/experiments/plan/test_plan.py takes small steps",
    r"from dask": "dask is not of this project; the commands that it starts run above it",
    r"dvc exp apply student": "its name is its seeds'; tests/experiments/test_seeds.py has them",
}
# Those that take long, and the test that runs them and looks at what they do.
ELSEWHERE = {
    r"dvc exp run .*init_from": "tests/whole/test_finetune.py",
    r"dvc exp run .*teachers": "tests/whole/test_distil.py",
    r"dvc (exp run|repro)": "tests/whole/test_pipeline.py",
    r".*nanogpt2 seeds": "tests/experiments/test_seeds.py",
    r"python -m nanogpt2 serve$|curl .*:8000": "tests/serve/test_documented.py",
    r".*nanogpt2 sweep": "tests/experiments/trials/test_going_on.py",
    r".*nanogpt2 tokenizer": "tests/experiments/test_candidates.py",
    r".*verify .*--(replay|sign|key)|openssl ec": "tests/experiments/proof/test_project.py",
    r"python -m stages\.\w+ --c": "tests/whole/test_guide.py",
    r".*export (--to huggingface )?exported": "tests/exchange/export/test_huggingface_out.py",
    r"from transformers": "tests/exchange/export/test_huggingface_out.py",
    r".*card .*--export exported": "tests/experiments/proof/test_project.py",
    r".*export --to onnx|import onnxruntime": "tests/exchange/export/test_onnx_out.py",
    r".*check --measure-noise|bash ci/check|git add ci/noise": (
        "tests/experiments/gate/test_branches.py"
    ),
}
# What is smaller here, or lies elsewhere.
SMALLER = {
    r"(nanogpt2 tokenizer)( --seconds 60)?": r"\1 --seconds 0.01",
    r"(preset \w+)": r"\1 --params preset.yaml",
    r"--n 10": "--n 3",
    r"--n (4|5)": "--n 2",
    r"--seeds 5": "--seeds 2",
    r"--search 40": "--search 2",
    r"max_iters=\d+": "max_iters=12",
    r"vocab_size=2048": "vocab_size=260",
    r"\"finetune\", block_size=256": '"finetune", **few',
    r"block_size=256": "block_size=32",
    r"git commit ": "git commit --allow-empty ",  # a run with the same bytes changes nothing
    r"/shared/work": "work",
    r"--shard=1/3": "--shard=1/1",
    r"my-novel.txt data/raw$": "my-novel.txt data/raw/sonnet.txt",  # the text that is there
    r"my-novel data/raw$": "my-novel raw",
    r"verify exported/": "verify data/prepared/",
    r"some/best_model.pt": "checkpoints/best_model.pt",
    r"--prompt=(ROMEO:|Thou)": "--prompt=Shall",
    r"\"KING:\\n\"": '"Shall"',
    r"load_pretrained\(\"gpt2\"\)": 'load_pretrained("shakespeare.pt")',
}


@dataclass(frozen=True)
class Block:
    """A block of a page: `heading` is the one that it stands under."""

    page: str
    heading: str
    language: str
    text: str

    def commands(self) -> list[str]:
        """Return the commands of a shell's block, one a line, without what `#` says of them."""
        whole = re.sub(r"\s*\\\n\s*", " ", self.text)
        lines = [re.sub(r"\s+#.*$|^#.*$", "", line) for line in whole.splitlines()]
        return [line for line in lines if line.strip()]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(page: str) -> Iterator[Block]:
    """Yield the blocks of the document `page`, such as docs/data.md, in order."""
    heading = ""
    for found in FENCE.finditer((ROOT / page).read_text(encoding="utf-8")):
        heading = found["heading"] or heading
        if found["text"] is not None:
            yield Block(page, heading, found["language"], found["text"])


def reason(text: str) -> str | None:
    """Return why a command, or a block of Python, is not run here, None where it is."""
    left_out = NOT_RUN if EVERY else {**NOT_RUN, **ELSEWHERE}
    return next((why for start, why in left_out.items() if re.search(f"(?m)^{start}", text)), None)


def smaller(text: str) -> str:
    for there, here in SMALLER.items():
        text = re.sub(there, here, text)
    return text
