"""A server that forks DVC and the stages of trials: their imports, seconds each, are done once.

It holds modules of other projects alone, so that a trial imports its own code from its own copy;
no device is touched before a fork. `python` in `Forks.folder` is a client that takes Python's
place: it hands its arguments, environment, folder and streams over, passes signals on, and ends as
the process does. Where there is no server, or for anything but DVC and a stage, it becomes Python
itself, so that a server that is killed costs time and nothing else. The server ends once the
process that started it has, and no fork is left. Linux only; NANOGPT2_FORKS=0 does without.
"""

import array
import gc
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

SWITCH = "NANOGPT2_FORKS"
PRELOADED = (
    *("torch", "numpy", "click", "jsonschema", "yaml", "filelock", "tqdm", "psutil", "regex"),
    *("dvc.cli", "dvc.cli.parser", "dvc.repo", "dvc.repo.experiments", "dvc_data.index"),
    *("dvc.repo.reproduce", "dvc.repo.experiments.run", "dvc.repo.experiments.queue.celery"),
    *("dvc.repo.experiments.executor.local", "dvc.utils.hydra", "dvc_data.hashfile.checkout"),
    *("networkx", "ruamel.yaml", "hydra._internal.config_loader_impl", "numpy.random"),
    *("dvc.repo.datasets", "dvc.repo.artifacts", "dvc.repo.stage", "pyparsing", "dvc.repo.index"),
    *("dvc.repo.experiments.queue.tempdir", "dulwich.porcelain", "pygit2", "rich.status"),
    *("dvc_task.proc.manager", "torch.utils.data", "torch.profiler"),
)
CLIENT = """#!{python} -ISB
import array, json, os, signal, socket, sys
arguments = sys.argv[1:]
def become_python():
    os.execv({python!r}, [{python!r}, *arguments])
target = arguments[1] if arguments[:1] == ["-m"] and len(arguments) > 1 else ""
if not (target == "dvc" or target.startswith("stages.")) or "RANK" in os.environ:
    become_python()
server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
try:
    server.connect({address!r})
    order = json.dumps([arguments, {python!r}, os.getcwd(), dict(os.environ)]).encode()
    streams = array.array("i", [0, 1, 2])
    server.sendmsg([len(order).to_bytes(8, "little")],
                   [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
    server.sendall(order)
    if server.recv(1) != b"+":
        raise OSError("no fork")
except OSError:
    become_python()
def tell(number, frame=None):
    try:
        server.send(bytes([number]))
    except OSError:
        pass
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, tell)
for stream in (0, 1, 2):  # only the process itself keeps a pipe open
    os.dup2(os.open(os.devnull, os.O_RDWR), stream)
status = server.recv(4)
code = int.from_bytes(status, "little", signed=True) if status else -signal.SIGKILL
if code < 0:
    if -code != signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
"""


class Forks:
    """The server, as the process that starts trials sees it; without one, `python` is Python."""

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        wanted: bool,
        modules: Sequence[str] = PRELOADED,
    ) -> None:
        self.folder = Path(sys.executable).parent
        self.server: subprocess.Popen[bytes] | None = None
        if not wanted or not hasattr(os, "pidfd_open") or os.environ.get(SWITCH) == "0":
            return
        self.place = Path(tempfile.mkdtemp(prefix="nanogpt2-"))
        address = str(self.place / "socket")
        client = CLIENT.format(python=sys.executable, address=address)
        (self.place / "python").write_text(client, encoding="utf-8")
        (self.place / "python").chmod(0o755)
        # -P: the folder of this file has modules named as DVC is
        command = [sys.executable, "-P", __file__, address, str(os.getpid()), *modules]
        self.server = subprocess.Popen(
            command,
            cwd="/",
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def python(self) -> str:
        """Return what to start for Python; waits for the server when asked first."""
        if self.server is not None and self.server.stdout is not None:
            ready = self.server.stdout.readline()  # nothing, where it has failed
            self.server.stdout.close()
            self.server.stdout = None
            if ready:
                self.folder = self.place
        return str(self.folder / "python") if self.folder != Path(sys.executable).parent else ""

    def end(self) -> None:
        """Let the server go, which ends with its last fork."""
        if self.server is not None:
            self.server.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.server.wait(timeout=5)
                shutil.rmtree(self.place, ignore_errors=True)  # where it could not itself


def serve(address: str, owner: int, modules: Sequence[str]) -> None:
    """Import `modules`, then run each order that comes in a process of its own."""
    if sys.platform != "linux":
        raise NotImplementedError
    for name in modules:
        with suppress(ImportError):
            __import__(name)
    gc.freeze()  # or each process copies the pages that its collector looks at
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(address)
    listener.listen(64)
    watched, ending = os.pidfd_open(owner), os.pipe()
    os.set_blocking(ending[1], False)
    signal.set_wakeup_fd(ending[1], warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    print("ready", flush=True)
    served, goes_on = set[int](), True
    while goes_on or served:
        waited = [listener.fileno(), ending[0], *([watched] if goes_on else [])]
        found = select.select(waited, [], [])[0]
        if watched in found:
            goes_on = False  # those that run may still start their stages here
        if ending[0] in found:
            goes_on &= signal.SIGTERM not in os.read(ending[0], 512)
        served -= {child for child in served if os.waitpid(child, os.WNOHANG)[0]}
        if listener.fileno() in found:
            client, _ = listener.accept()
            child = os.fork()
            if child == 0:
                listener.close()
                os._exit(serve_one(client))
            served.add(child)
            client.close()
    shutil.rmtree(Path(address).parent, ignore_errors=True)


def serve_one(client: socket.socket) -> int:
    """Run one order, pass on what its client is told by signals, and tell how it ended."""
    if sys.platform != "linux":
        raise NotImplementedError
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    order, streams = receive(client)
    process = os.fork()
    if process == 0:
        client.close()
        run(*json.loads(order), streams=streams)
    for stream in streams:
        os.close(stream)
    with suppress(OSError):  # its client may have been killed by now
        client.sendall(b"+")
    ended = os.pidfd_open(process)
    while ended not in select.select([client.fileno(), ended], [], [])[0]:
        told = client.recv(1)
        os.kill(process, told[0] if told else signal.SIGKILL)
        if not told:
            break  # its client is gone
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    with suppress(OSError):
        client.sendall(code.to_bytes(4, "little", signed=True))
    return 0


def receive(client: socket.socket) -> tuple[bytes, list[int]]:
    """Return the order that a client sends, and its standard streams."""
    if sys.platform != "linux":
        raise NotImplementedError
    streams = array.array("i")
    head, ancillary, _, _ = client.recvmsg(8, socket.CMSG_SPACE(3 * streams.itemsize))
    streams.frombytes(ancillary[0][2])
    order = b""
    while len(order) < int.from_bytes(head, "little"):
        order += client.recv(2**20)
    return order, list(streams)


def run(
    arguments: Sequence[str],
    executable: str,
    folder: str,
    environment: Mapping[str, str],
    *,
    streams: Sequence[int],
) -> NoReturn:
    """Be the Python that `arguments`, `-m` and a module, ask for."""
    take_place(folder, environment, streams)
    _, target, *rest = arguments
    name_process(target, executable, ["-m", *rest], arguments)
    sys.path.insert(0, folder)
    end_with(lambda: runpy.run_module(target, run_name="__main__", alter_sys=True))


def take_place(folder: str, environment: Mapping[str, str], streams: Sequence[int]) -> None:
    """Have the folder, environment and standard streams of a client, and no other open file."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, 1024)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)


def name_process(
    target: str, executable: str, argv: Sequence[str], arguments: Sequence[str]
) -> None:
    """Seem to be the process that runs `target`, to itself and to those who look."""
    sys.argv, sys.executable = [*argv], executable
    sys.orig_argv = [executable, *arguments]
    Path("/proc/self/comm").write_text(target[:15], encoding="utf-8")


def end_with(work: Callable[[], object]) -> NoReturn:
    """Do `work`, and end as Python does after a program."""
    code = 0
    try:
        work()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
