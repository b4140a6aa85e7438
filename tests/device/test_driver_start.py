"""A GPU's driver is started beside the import of torch, where there is one."""

import ctypes
import threading
from typing import Any

import pytest

from nanogpt2.device.start import start_beside


class Driver:
    """A driver that notes what it is asked for; it has two devices."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def cuInit(self, flags: int) -> int:  # noqa: N802
        self.asked.append(("init", flags))
        return 0

    def cuDeviceGet(self, device: Any, number: int) -> int:  # noqa: N802
        self.asked.append(("device", number))
        device._obj.value = number
        return 0 if number < 2 else 101

    def cuDevicePrimaryCtxRetain(self, _: Any, device: ctypes.c_int) -> int:  # noqa: N802
        self.asked.append(("context", device.value))
        return 0


def asked_of(driver: object, device: str, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    def load(name: str) -> object:
        assert name == "libcuda.so.1"
        if isinstance(driver, Exception):
            raise driver
        return driver

    monkeypatch.setattr(ctypes, "CDLL", load)
    failed: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", failed.append)
    before = threading.enumerate()
    start_beside(device)
    for thread in set(threading.enumerate()) - set(before):
        thread.join()
    assert not failed
    return getattr(driver, "asked", [])


@pytest.mark.parametrize(
    ("device", "rank", "number"),
    [("auto", None, 0), ("cuda", None, 0), ("cuda", "1", 1), ("cuda:1", "0", 1)],
)
def test_the_context_of_the_run_s_own_device_is_made(
    device: str, rank: str | None, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank:
        monkeypatch.setenv("LOCAL_RANK", rank)
    asked = asked_of(Driver(), device, monkeypatch)
    assert asked == [("init", 0), ("device", number), ("context", number)]


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_no_driver_is_loaded_for_a_run_elsewhere(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked_of(Driver(), device, monkeypatch) == []


def test_a_device_that_is_not_there_is_left_for_torch_to_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert asked_of(Driver(), "cuda:7", monkeypatch)[-1] == ("device", 7)
    assert asked_of(OSError("no such file"), "auto", monkeypatch) == []
    assert asked_of(object(), "auto", monkeypatch) == []  # a library without these functions
