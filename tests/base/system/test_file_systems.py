"""File systems that do not know a call cost durability or a lock, said once, and no file."""

import errno
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from imports import ROOT

WRITE = """
from pathlib import Path
from nanogpt2.base.system.files import replace_folder, write_text
for number in range(3):
    write_text(Path("folder/file.txt"), f"written {number}")
replace_folder(Path("other"), lambda new: write_text(new / "in.txt", "in a folder"))
"""
TRAIN = """
import os, sys
from nanogpt2 import CharDataset, GPT, Trainer, get_config
for number in sys.argv[1:]:  # in a process of its own, but torch is imported once
    os.environ["FAIL_ERRNO"] = number
    if os.fork() == 0:
        break
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
else:
    os._exit(0)
config = get_config("nano", n_layer=1, n_embd=32, n_head=2, block_size=16, max_iters=4,
    checkpoint_interval=2, eval_iters=1, batch_size=2, device="cpu", compile=False)
data = CharDataset("the quick brown fox " * 20, 16)
Trainer(GPT(config), config).train(data, data)
sys.stdout.flush()
os._exit(0)  # Python takes half a second to take torch apart
"""


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that makes one call fail."""
    path = tmp_path_factory.mktemp("failing") / "failing.so"
    compiler = shlex.split(os.environ.get("CC") or "cc")
    source = Path(__file__).with_name("failing.c")
    command = [*compiler, "-shared", "-fPIC", str(source), "-o", str(path), "-ldl"]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs a C compiler on Linux")
    return path


def run(
    code: str, failing: Path, call: str, *numbers: int, kind: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `code`, in which `call` fails with the first of `numbers`; all are its arguments."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "LD_PRELOAD": str(failing)}
    env |= {"FAIL_CALL": call, "FAIL_ERRNO": str(numbers[0])} | (
        {"FAIL_KIND": kind} if kind else {}
    )
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, numbers)],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("call", "number", "kind", "said"),
    [
        ("fsync", errno.EINVAL, "folder", 1),  # CIFS, VirtualBox
        ("fsync", errno.EIO, "folder", 1),
        ("fsync", errno.ENOSYS, None, 1),  # FUSE
        ("fsync", errno.EOPNOTSUPP, None, 1),
        ("chmod", errno.EPERM, None, 0),  # exFAT, SMB
        ("chmod", errno.ENOSYS, None, 0),
    ],
)
def test_what_only_endures_or_permits_costs_no_file(
    failing: Path, call: str, number: int, kind: str | None, said: int
) -> None:
    done = run(WRITE, failing, call, number, kind=kind)
    assert done.returncode == 0, done.stderr
    assert Path("folder/file.txt").read_text(encoding="utf-8") == "written 2"
    assert Path("other/in.txt").read_text(encoding="utf-8") == "in a folder"
    warnings = done.stderr.splitlines()
    assert len(warnings) == said
    assert all("may not survive a power cut here: fsync: " in line for line in warnings)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_file_that_does_not_reach_the_disk_is_an_error(failing: Path, number: int) -> None:
    code = WRITE.replace(
        "for number", "from nanogpt2.base.system.errors import exit_with_one_line\nfor number"
    )
    code = code.replace("    write_text(Path", "    with exit_with_one_line(): write_text(Path")
    Path("folder").mkdir()
    Path("folder/file.txt").write_text("earlier", encoding="utf-8")
    done = run(code, failing, "fsync", number)
    assert done.returncode == 1
    assert "folder/file.txt: cannot be written: " in done.stderr
    assert Path("folder/file.txt").read_text(encoding="utf-8") == "earlier"
    assert [path.name for path in Path("folder").iterdir()] == ["file.txt"]


def test_without_locks_training_goes_on_and_says_so(failing: Path) -> None:
    done = run(TRAIN, failing, "flock", errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("iter 4: train loss") == 3
    assert done.stderr.count("no lock keeps a second process from this run") >= 2  # ENOSYS may not
