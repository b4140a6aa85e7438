"""A headless Chromium, driven over a pipe by the DevTools protocol; nothing else is needed."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
TRIES = 1000  # of 20 ms and more


class Browser:
    """A page of Chromium: `requests` holds what it asked for, `problems` what it complained of."""

    def __init__(self, to: int, back: int) -> None:
        self.to, self.back = to, back
        self.rest = b""
        self.number = 0
        self.session: str | None = None
        self.requests: list[str] = []
        self.problems: list[str] = []
        self.loaded = False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            piece = os.read(self.back, 1 << 20)
            assert piece, "Chromium has ended"
            self.rest += piece
        text, _, self.rest = self.rest.partition(b"\0")
        return dict(json.loads(text))

    def call(self, method: str, **params: Any) -> Any:
        """Return the result of a method of the protocol."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self._note(answer.get("method"), answer.get("params", {}))

    def _note(self, method: str | None, event: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(event["request"]["url"])
        elif method == "Runtime.consoleAPICalled" and event["type"] in (
            "error",
            "warning",
            "assert",
        ):
            self.problems.append(
                str([arg.get("value") or arg.get("description") for arg in event["args"]])
            )
        elif method == "Runtime.exceptionThrown":
            details = event["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Log.entryAdded" and event["entry"]["level"] in ("error", "warning"):
            self.problems.append(event["entry"]["text"])
        elif method == "Page.loadEventFired":
            self.loaded = True

    def open(self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Open `url` in a window of this size and wait until it is loaded."""
        self.requests, self.problems, self.loaded = [], [], False
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def run(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, awaited."""
        done = self.call(
            "Runtime.evaluate",
            expression=expression,
            returnByValue=True,
            awaitPromise=True,
            userGesture=True,
        )
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def follow(self, expression: str) -> None:
        """Run an expression that leads to another page, and wait until that is loaded."""
        self.loaded = False
        self.run(expression)
        while not self.loaded:
            event = self._read()
            self._note(event.get("method"), event.get("params", {}))
        self.wait("document.readyState === 'complete'")

    def wait(self, expression: str) -> Any:
        """Wait until an expression is true, and return its value."""
        for _ in range(TRIES):  # a process that was stopped meanwhile has not lost its time
            if value := self.run(expression):
                return value
            time.sleep(0.02)
        raise AssertionError(f"never true: {expression}; {self.problems}")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start a headless Chromium without network, and end it."""
    assert CHROMIUM
    there_read, there_write = os.pipe()
    back_read, back_write = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        command = (
            f"exec {CHROMIUM} --headless=new --no-sandbox --disable-gpu --remote-debugging-pipe"
            f" --user-data-dir={home} --no-first-run --disable-background-networking"
            " --disable-dev-shm-usage --no-proxy-server"
            " --host-resolver-rules='MAP * ~NOTFOUND, EXCLUDE 127.0.0.1' about:blank"
            f" 3<&{there_read} 4>&{back_write}"
        )
        process = subprocess.Popen(
            ["bash", "-c", command],
            pass_fds=(there_read, back_write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(there_read)
        os.close(back_write)
        try:
            yield Browser(there_write, back_read)
        finally:
            process.kill()
            process.wait()
            os.close(there_write)
            os.close(back_read)
