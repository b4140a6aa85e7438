"""A warm Python: what tests start as a process is forked from one that has imported torch and DVC.

Their imports take seconds, and the tests start hundreds of processes. `executable()` is a file
that takes Python's own arguments (`-m module`, `-c code`, a script, `-u`), environment, folder and
standard streams, passes signals on, and ends as the process does; a `dvc` lies beside it. Each
process imports the project anew, from its own folder, and what it starts with sys.executable is
warm too. Its name (/proc/<number>/comm) is the module that it runs. Tests of what becomes of a
process when its parent ends, or of how one starts, take sys.executable.
"""

import array
import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from functools import cache
from pathlib import Path

PRELOADED = (
    *("torch", "numpy", "click", "jsonschema", "yaml", "filelock", "tqdm", "psutil"),
    *("dvc.cli", "dvc.cli.parser", "dvc.repo", "dvc.repo.experiments", "dvc_data.index"),
    *("dvc.repo.reproduce", "dvc.repo.experiments.run", "dvc.repo.experiments.queue.celery"),
    *("dvc.repo.experiments.executor.local", "dvc.utils.hydra", "dvc_data.hashfile.checkout"),
    *("networkx", "ruamel.yaml", "hydra._internal.config_loader_impl", "numpy.random"),
    *("dvc.repo.plots", "dvc.repo.datasets", "dvc.repo.artifacts", "dvc.repo.stage", "pyparsing"),
    *("dvc.repo.index", "dvc.repo.experiments.queue.tempdir"),
    *("dulwich.porcelain", "pygit2", "rich.table", "rich.status", "dvc_task.proc.manager"),
    *("torch.utils.data", "torch.profiler", "numpy.ma"),
)
LAUNCHER = "NANOGPT2_LAUNCHER"  # the process that launched a group
CLIENT = """#!{python} -ISB
import array, json, os, signal, socket, sys
server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
server.connect({address!r})
def tell(number, frame=None):
    server.send(bytes([number]))
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, tell)
arguments = {first} + sys.argv[1:]
order = json.dumps([arguments, {executable!r}, os.getcwd(), dict(os.environ)]).encode()
streams = array.array("i", [0, 1, 2])
server.sendmsg([len(order).to_bytes(8, "little")],
               [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
server.sendall(order)
for stream in (0, 1, 2):  # only the process itself keeps a pipe open
    os.dup2(os.open(os.devnull, os.O_RDWR), stream)
status = server.recv(4)
code = int.from_bytes(status, "little", signed=True) if status else 1
if code < 0:
    if -code != signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
"""


@cache
def executable() -> str:
    """Return the path of the warm Python, whose server starts now; Linux alone has one."""
    if not hasattr(os, "pidfd_open"):
        return sys.executable
    folder = Path(tempfile.mkdtemp(prefix="warm-"))
    address = str(folder / "socket")
    client = folder / "python"
    for name, first in (("python", []), ("dvc", ["-m", "dvc"])):
        code = CLIENT.format(
            python=sys.executable, address=address, first=first, executable=str(client)
        )
        (folder / name).write_text(code, encoding="utf-8")
        (folder / name).chmod(0o755)
    server = subprocess.Popen([sys.executable, __file__, address], stdout=subprocess.PIPE)
    assert server.stdout is not None
    server.stdout.readline()  # it listens
    atexit.register(server.kill)
    return str(client)


def serve(address: str) -> None:
    """Import what takes long, then run each order that comes in a process of its own."""
    for name in PRELOADED:
        __import__(name)
    gc.freeze()  # or each process copies the pages that its collector looks at
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(address)
    listener.listen(16)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that serve an order
    print("ready", flush=True)
    while True:
        client, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            os._exit(serve_one(client))
        client.close()


def serve_one(client: socket.socket) -> int:
    """Run one order, pass on what its client is told by signals, and tell how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    streams = array.array("i")
    head, ancillary, _, _ = client.recvmsg(8, socket.CMSG_SPACE(3 * streams.itemsize))
    streams.frombytes(ancillary[0][2])
    order = b""
    while len(order) < int.from_bytes(head, "little"):
        order += client.recv(2**20)
    process = os.fork()
    if process == 0:
        client.close()
        run(*json.loads(order), streams=list(streams))
    for stream in streams:
        os.close(stream)
    ended = os.pidfd_open(process)
    while ended not in select.select([client.fileno(), ended], [], [])[0]:
        told = client.recv(1)
        os.kill(process, told[0] if told else signal.SIGKILL)
        if not told:
            break  # its client is gone
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    client.sendall(code.to_bytes(4, "little", signed=True))
    return 0


def run(
    arguments: list[str],
    executable: str,
    folder: str,
    environment: dict[str, str],
    *,
    streams: list[int],
) -> None:
    """Be the Python that `arguments` ask for."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, 64)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if LAUNCHER in environment:  # a process ends where its parent is another one
        os.environ[LAUNCHER] = str(os.getppid())
    while arguments[0] in ("-u", "-B"):
        arguments = arguments[1:]
    kind, target, *rest = arguments if arguments[0] in ("-m", "-c") else ["", *arguments]
    sys.argv, sys.executable = [kind or target, *rest], executable
    sys.orig_argv = [executable, *filter(None, [kind, target]), *rest]
    Path("/proc/self/comm").write_text(target[:15], encoding="utf-8")
    given = [place for place in environment.get("PYTHONPATH", "").split(os.pathsep) if place]
    first = {"-c": "", "-m": folder}.get(kind, str(Path(target).parent))
    sys.path[:] = [first, *given, *sys.path[1:]]
    code = 0
    try:
        if kind == "-m":
            runpy.run_module(target, run_name="__main__", alter_sys=True)
        elif kind == "-c":
            exec(compile(target, "<string>", "exec"), {"__name__": "__main__"})
        else:
            runpy.run_path(target, run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
