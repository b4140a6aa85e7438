"""Memory: a container's limit counts where it is lower than the machine's."""

from pathlib import Path

import psutil
import pytest

from nanogpt2.device.memory import container_limits, host_bytes

V1, V2 = "sys/fs/cgroup/memory/{}memory.limit_in_bytes", "sys/fs/cgroup/{}memory.max"


def machine(root: Path, groups: str, **limits: str) -> Path:
    """Make the files in which Linux tells the groups of a process, and their limits."""
    for name, content in {"proc/self/cgroup": groups, **limits}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("0::/", {V2.format(""): "2000\n"}, [2000]),  # in a container
        (
            "0::/user.slice/run.scope",
            {
                V2.format("user.slice/"): "3000\n",
                V2.format("user.slice/run.scope/"): "max\n",
            },
            [3000],  # of the group around it
        ),
        ("0::/a/b", {V2.format("a/"): "5\n", V2.format("a/b/"): "7\n"}, [7, 5]),
        ("4:memory:/job\n0::/", {V1.format("job/"): "4000\n"}, [4000]),
        ("4:memory:/docker/1f", {V1.format(""): "6000\n"}, [6000]),  # which sees its own alone
        ("5:cpu,memory:/", {V1.format(""): "6000\n"}, [6000]),
        ("0::/gone", {}, []),
        ("3:cpuset:/\n1:name=systemd:/", {V2.format(""): "8\n"}, []),
        ("0::/../other", {V2.format(""): "9\n"}, [9]),
    ],
)
def test_the_limits_of_a_container_are_found(
    tmp_path: Path, groups: str, limits: dict[str, str], expected: list[int]
) -> None:
    assert container_limits(machine(tmp_path, groups, **limits)) == expected


def test_without_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert container_limits(tmp_path) == []


def test_it_is_never_more_than_the_machine_has() -> None:
    assert 0 < host_bytes() <= psutil.virtual_memory().total
