"""Does nanoGPT2 work on this machine? What docs/machines.md says of it, tried for real.

    python ci/smoke.py

In a git checkout, with the package and its extra `serve` installed. A small project in a temporary
folder goes through pipeline and commands. Each line is a row of the table there: `tested`, `no`
where it is refused as the document says, or FAILED, with which the status is 1.
"""

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
TEXT = "Shall I compare thee to a summer's day?\nThou art more lovely and more temperate.\n" * 60
SMALL = {
    **{"corpus": "data/raw", "block_size": 16, "n_layer": 1, "n_head": 2, "n_embd": 32},
    **{"batch_size": 4, "max_iters": 100, "warmup_iters": 2, "eval_interval": 50},
    **{"eval_iters": 1, "checkpoint_interval": 10, "device": "cpu", "precision": "fp32"},
}
COMPILES = sys.platform != "win32"
NOT_COMPILED = "not compiled on Windows"
SECONDS = 300


class Project:
    """A clone with a small text and a small run, and the commands of people in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        settings = {"DVC_NO_ANALYTICS": "1", "CI": "1", "OMP_NUM_THREADS": "2"}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self.env = os.environ | settings | {"PATH": path}
        subprocess.run(("git", "clone", "--quiet", str(PROJECT), str(root)), check=True)
        (root / "data/raw").mkdir(parents=True)
        (root / "data/raw/text.txt").write_text(TEXT, encoding="utf-8")
        self.put(SMALL)

    def put(self, values: Mapping[str, object]) -> None:
        """Put `values` into params.yaml."""
        path = self.root / "params.yaml"
        text = path.read_text(encoding="utf-8")
        for key, value in values.items():
            text, count = re.subn(rf"(?m)^{key}:.*$", f"{key}: {value}", text)
            assert count == 1, key
        path.write_text(text, encoding="utf-8", newline="\n")

    def start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        """Start `python -m` with `arguments`."""
        return subprocess.Popen(
            (sys.executable, "-m", *arguments),
            cwd=self.root,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def python(self, *arguments: str) -> str:
        """Return what `python -m` with `arguments` prints; CalledProcessError where it fails."""
        process = self.start(*arguments)
        try:
            said = process.communicate(timeout=SECONDS)[0].decode("utf-8", "replace")
        finally:
            process.kill()
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, arguments, said)
        return said

    def train(self, **values: object) -> str:
        """Return what training by hand prints, with `values` in params.yaml for this once."""
        before = (self.root / "params.yaml").read_bytes()
        self.put(values)
        try:
            return self.python("stages.train", "--metrics", "m.json", "--curve", "c.csv")
        finally:
            (self.root / "params.yaml").write_bytes(before)

    @property
    def model(self) -> bytes:
        """The model that was trained last."""
        return (self.root / "checkpoints/final_model.pt").read_bytes()


def run_pipeline(project: Project) -> bool:
    """All stages run with DVC, and none once more; the model is written as a page."""
    said = project.python("dvc", "repro", "evaluate", "sample")
    made = ("checkpoints/best_model.pt", "metrics/eval.json", "samples")
    assert all((project.root / name).exists() for name in made), said
    assert "Running stage" not in project.python("dvc", "repro", "evaluate", "sample")
    project.python("nanogpt2", "export", "--page", "model.html")
    return True


def train(project: Project) -> bool:
    """With torch's operators, and nothing is refused."""
    said = project.train(compile="false")
    assert "iter 100" in said, said
    assert "note:" not in said, said
    return True


def train_with_kernels(project: Project) -> bool:
    """C compiles and computes what torch does, or one line says that torch's operators serve."""
    notes = [line for line in project.train().splitlines() if line.startswith("note:")]
    assert (len(notes) == 0) if COMPILES else (NOT_COMPILED in "".join(notes)), notes
    return COMPILES


def train_in_bfloat16(project: Project) -> bool:
    """Matrix products of 16 bits."""
    assert "iter 100" in project.train(precision="bf16")
    return True


def go_on(project: Project) -> bool:
    """A run that is killed goes on from a state, and ends with the bytes of an unbroken one."""
    project.train()
    whole = project.model
    killed = project.start("stages.train", "--metrics", "m.json", "--curve", "c.csv")
    states = project.root / ".resume"
    until(lambda: any(states.glob("*/*-*.pt")) or killed.poll() is not None)
    assert killed.poll() is None, "it ended before it could be killed"
    killed.kill()
    killed.communicate()
    said = project.train()
    assert "going on from iteration" in said, said
    assert project.model == whole
    return True


def train_in_processes(project: Project) -> bool:
    """Two processes train one model."""
    said = project.train(num_processes=2)
    assert "iter 100" in said, said
    return True


def generate(project: Project, *options: str) -> str:
    """Return what the command prints."""
    command = ("nanogpt2", "generate", "--prompt", "Shall", "--max-new-tokens", "20", *options)
    said = project.python(*command)
    assert "Shall" in said, said
    return said


def decode(project: Project) -> bool:
    """A text is written, and the same one again."""
    options = ("--device", "cpu", "--quiet")
    assert generate(project, *options) == generate(project, *options)
    return True


def decode_with_kernels(project: Project) -> bool:
    """Compiled code decodes, or one line says that torch's operators do."""
    said = generate(project, "--device", "cpu", "--verbose")
    assert ("CompiledDecoder" in said) if COMPILES else (NOT_COMPILED in said), said
    return COMPILES


def decode_in_8_bits(project: Project) -> bool:
    """Weights of 8 bits, or one line that refuses them."""
    try:
        generate(project, "--device", "cpu", "--int8")
    except subprocess.CalledProcessError as error:
        if COMPILES or "int8: found" not in error.output:
            raise
        return False
    assert COMPILES, "it was not refused"
    return True


def serve(project: Project) -> bool:
    """The server answers as OpenAI's does."""
    server = project.start("nanogpt2", "serve", "--port", "0", "--device", "cpu")
    assert server.stdout is not None
    try:
        found, said = None, ""
        while not found:
            line = server.stdout.readline().decode("utf-8", "replace")
            said += line
            assert line, said
            found = re.search(r"http://\S+/", line)
        request = urllib.request.Request(
            f"{found.group()}v1/completions",
            json.dumps({"prompt": "Shall", "max_tokens": 5, "seed": 1}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert len(json.load(answer)["choices"][0]["text"]) == 5
    finally:
        server.kill()
        server.wait()
    return True


def until(holds: Callable[[], bool]) -> None:
    """Return once `holds` answers True; AssertionError where it takes too long."""
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.002)


CHECKS = {  # by the rows of docs/machines.md
    "prepare, the pipeline with DVC": run_pipeline,
    "training": train,
    "compiled kernels of training": train_with_kernels,
    "bfloat16 products (bf16)": train_in_bfloat16,
    "the same bytes after a kill": go_on,
    "several processes (ddp)": train_in_processes,
    "evaluate, sample, generate": decode,
    "compiled kernels of decoding": decode_with_kernels,
    "weights of 8 bits (--int8)": decode_in_8_bits,
    "serve": serve,
}
ERRORS = (AssertionError, OSError, subprocess.SubprocessError)


def has_mps() -> bool:
    """Return whether torch can use a Mac's GPU; that of GitHub's machines is there, without memory.

    https://github.com/actions/runner-images/issues/9918
    """
    import torch

    try:
        return torch.backends.mps.is_available() and bool(torch.ones(1, device="mps").sum() == 1)
    except RuntimeError:
        return False


def try_mps(project: Project) -> bool:
    """Training and texts on a Mac's GPU."""
    assert "iter 100" in project.train(device="mps", precision="auto")
    generate(project, "--device", "mps")
    return True


def main() -> None:
    """Try all; say how each went."""
    import torch

    print(platform.platform(), platform.machine(), f"Python {platform.python_version()}", sep=", ")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads", flush=True)
    failed = 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        project = Project(Path(folder, "project"))
        for name, check in (CHECKS | ({"MPS": try_mps} if has_mps() else {})).items():
            began = time.monotonic()
            try:
                said = "tested" if check(project) else "no"
            except ERRORS as error:
                failed += 1
                said = "FAILED"
                print(error, getattr(error, "output", ""), sep="\n")
            print(f"{said:7} {name} ({time.monotonic() - began:.0f} s)", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
