"""A warm Python: what tests start as a process is forked from one that has imported torch and DVC.

Their imports take seconds, and the tests start hundreds of processes. `executable()` is a file
that takes Python's own arguments (`-m module`, `-c code`, a script, `-u`), environment, folder and
standard streams, passes signals on, and ends as the process does; a `dvc` lies beside it. Each
process imports the project anew, from its own folder, and what it starts with sys.executable is
warm too. Its name (/proc/<number>/comm) is the module that it runs. Tests of what becomes of a
process when its parent ends, or of how one starts, take sys.executable.

`worker()` is another such file, for the processes of pytest-xdist: forked from one that has
imported the tests and what they import; their sys.executable is the usual one.
"""

import atexit
import gc
import importlib
import importlib.util
import io
import marshal
import os
import pickle
import runpy
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr, redirect_stdout, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, TextIO

# On Linux alone, and not beside a GPU: its driver, once it has been asked, cannot be forked.
HAS_SERVER = hasattr(os, "pidfd_open") and not Path("/dev/nvidiactl").exists()


def _load_forks() -> Any:
    """Return what sweeps fork with, by its path: a server holds no module of the project."""
    path = Path(__file__).parents[1] / "nanogpt2/experiments/trials/forks.py"
    spec = importlib.util.spec_from_file_location("forks", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


forks = _load_forks()
SHARED = (
    *("sympy", "torch.fx", "torch.distributed.fsdp", "numpy.typing"),
    "torch.utils.serialization",
)
PRELOADED = {
    "processes": (
        *forks.PRELOADED,
        *("dvc.repo.plots", "rich.table", "tabulate", "numpy.ma", "dvc.dirs"),
        *("dvc.utils.strictyaml", "dvc.cachemgr", "dvc.data_cloud", "dvc.repo.open_repo"),
        *("dvc_data.hashfile.db.local", "dvc_data.index.checkout", "dvc_data.index.push"),
        *("dvc.repo.worktree", "dvc.repo.experiments.apply", "dvc.repo.metrics.diff"),
        *("dvc.repo.params.diff", "dvc.render.convert", "rich.json", "dulwich.worktree"),
        *("fsspec.implementations.memory", "dvc_ssh.client", "gto.api", "git"),
        *("scmrepo.git.backend.pygit2.filter", "scmrepo.git.backend.dulwich.asyncssh_vendor"),
    ),
    "workers": (
        *("hypothesis", "huggingface_hub.hf_api"),
        *("transformers.pipelines", "transformers.models.auto.modeling_auto"),
        *("transformers.models.gpt2.modeling_gpt2", "transformers.models.auto.tokenization_auto"),
        *("onnxruntime", "nbformat", "matplotlib.image", "yaml", "click.testing", "jsonschema"),
        *("tqdm", "dvc.repo", "openai"),
    ),
}
FOLDER = "NANOGPT2_TESTS"  # the folder of this run of the tests
LAUNCHER = "NANOGPT2_LAUNCHER"  # the process that launched a group
CLIENT = """#!{python} -ISB
import _signal, _socket, marshal, os, sys  # what takes least
server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
server.connect({address!r})
def tell(number, frame=None):
    server.send(bytes([number]))
for number in (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP):
    _signal.signal(number, tell)
arguments = {first} + sys.argv[1:]
order = marshal.dumps([arguments, {executable!r}, os.getcwd(), dict(os.environ)])
streams = b"".join(stream.to_bytes(4, sys.byteorder) for stream in (0, 1, 2))
server.sendmsg([len(order).to_bytes(8, "little")],
               [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, streams)])
server.sendall(order)
for stream in (0, 1, 2):  # only the process itself keeps a pipe open
    os.dup2(os.open(os.devnull, os.O_RDWR), stream)
status = server.recv(4)
code = int.from_bytes(status, "little", signed=True) if status else 1
if code < 0:
    if -code != _signal.SIGKILL:
        _signal.signal(-code, _signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
"""


def executable() -> str:
    """Return the path of the warm Python, whose server starts where none runs."""
    return str(folder() / "python") if HAS_SERVER else sys.executable


def worker(*tests: str) -> str:
    """Return the path of the Python for processes of pytest-xdist, which run `tests`, by path."""
    return str(folder(*tests) / "worker") if HAS_SERVER else sys.executable


@cache
def folder(*tests: str) -> Path:
    """Return the folder of this run of the tests, with the files of its server.

    The workers of pytest-xdist share it.
    """
    if FOLDER in os.environ:
        return Path(os.environ[FOLDER])
    path = Path(tempfile.mkdtemp(prefix="warm-"))
    os.environ[FOLDER] = str(path)
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    if HAS_SERVER:
        start_server(path, *tests)
    return path


def start_server(path: Path, *tests: str) -> None:
    """Start the server, which hears `processes` in `path`, and `workers` where they run `tests`."""
    for name, kind, first, python in (
        ("python", "processes", [], str(path / "python")),
        ("dvc", "processes", ["-m", "dvc"], str(path / "python")),
        ("worker", "workers", [], sys.executable),
    ):
        code = CLIENT.format(
            python=sys.executable, address=str(path / kind), first=first, executable=python
        )
        (path / name).write_text(code, encoding="utf-8")
        (path / name).chmod(0o755)
    command = [sys.executable, __file__, str(path), *tests]
    server = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert server.stdout is not None
    server.stdout.readline()  # it listens
    atexit.register(server.kill)


def serve(path: Path, *tests: str) -> None:
    """Import what takes long, then run each order that comes in a process of its own."""
    names = ["processes", *(["workers"] if tests else [])]
    listeners = {name: socket.socket(socket.AF_UNIX) for name in names}
    for name, listener in listeners.items():
        listener.bind(str(path / name))
        listener.listen(16)
    print("ready", flush=True)
    import torch

    if not torch.cuda.is_available():
        os.environ["TRITON_INTERPRET"] = "1"  # before anything imports Triton
    preload(SHARED)
    server = os.pidfd_open(os.getpid())
    kind = "workers" if "workers" in names and os.fork() == 0 else "processes"
    listener = listeners.pop(kind)
    for other in listeners.values():
        other.close()
    preload(PRELOADED[kind])
    if kind == "workers":
        preload_tests(tests)
    spare_yaml()
    spare_searches()
    gc.freeze()  # or each process copies the pages that its collector looks at
    ready = selectors.DefaultSelector()
    ready.register(listener, selectors.EVENT_READ, partial(accept, listener, ready))
    ready.register(server, selectors.EVENT_READ, partial(os._exit, 0))
    while True:
        for key, _ in ready.select():
            key.data()


def preload(names: Iterable[str]) -> None:
    """Import those of `names` that are installed."""
    for name in names:
        with suppress(ImportError):  # of an extra
            importlib.import_module(name)


def preload_tests(tests: Iterable[str]) -> None:
    """Import `tests` as each worker would, which then finds them imported.

    What does not import, a worker tells. A coverage is of what each process imports itself.
    """
    if "coverage" in sys.modules:
        return
    import pytest

    path = [*sys.path]
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        pytest.main([*tests, "--collect-only", "-n", "0", "-p", "no:cacheprovider"])
    sys.path[:] = path


def spare_yaml() -> None:
    """Let DVC take less for YAML, which it reads and writes before and after each stage.

    It reads dvc.lock by libyaml, six times as fast: its own reader keeps comments, of which a file
    that DVC wrote has none. It parses no text twice, and writes a stage that it has written before
    as it did. What comes out is the same (a test compares).
    """
    try:
        from dvc.utils.serialize import _yaml
    except ImportError:  # without DVC there is none to start
        return
    reader: Any = importlib.import_module("ruamel.yaml").YAML
    load, keep_comments, dump = reader.load, _yaml.parse_yaml_for_update, _yaml._dump
    parsed, written = dict[str, bytes](), dict[bytes, str]()

    def parse(text: str, path: str) -> Any:
        is_lock = Path(path).name == "dvc.lock" and "#" not in text
        return (_yaml.parse_yaml if is_lock else keep_comments)(text, path)

    def load_once(self: Any, text: Any) -> Any:
        if self.typ != ["safe"] or not isinstance(text, str):
            return load(self, text)
        if text not in parsed:
            parsed[text] = pickle.dumps(load(self, text))
        return pickle.loads(parsed[text])

    def dump_by_stage(data: Any, stream: TextIO) -> None:
        if type(data) is not dict or [*data] != ["schema", "stages"] or not data["stages"]:
            dump(data, stream)
            return
        dump({"schema": data["schema"]}, stream)
        stream.write("stages:\n")
        for name, stage in data["stages"].items():
            key = pickle.dumps((name, stage))
            if key not in written:
                alone = io.StringIO()
                dump({"stages": {name: stage}}, alone)
                written[key] = alone.getvalue().removeprefix("stages:\n")
            stream.write(written[key])

    reader.load, _yaml.parse_yaml_for_update, _yaml._dump = load_once, parse, dump_by_stage


def spare_searches() -> None:
    """Let DVC find a key of params.yaml where it lies, and check no text against a schema twice.

    Else it walks through all keys to find each. What is not there, it searches for as it does.
    """
    try:
        from dvc.utils import strictyaml
    except ImportError:
        return
    paths: Any = importlib.import_module("dpath")
    search, validate = paths.get, strictyaml.validate
    valid = set[tuple[str, int]]()

    def find(values: Any, path: str, separator: str = "/", **options: Any) -> Any:
        found = values
        for key in path.split(separator):
            if not isinstance(found, dict) or key not in found:
                return search(values, path, separator, **options)
            found = found[key]
        return found

    def validate_once(
        data: Any, schema: Any, text: str | None = None, *place: Any, **more: Any
    ) -> Any:
        if text is None or (text, id(schema)) not in valid:
            data = validate(data, schema, text, *place, **more)
        if text is not None:
            valid.add((text, id(schema)))
        return data

    paths.get, strictyaml.validate = find, validate_once


def accept(listener: socket.socket, ready: selectors.BaseSelector) -> None:
    """Run an order; until it ends, pass on what its client is told by signals."""
    client, _ = listener.accept()
    order, streams = forks.receive(client)
    process = os.fork()
    if process == 0:
        run(*marshal.loads(order), streams=streams)
    for stream in streams:
        os.close(stream)
    ended = os.pidfd_open(process)

    def pass_on() -> None:
        if ended not in ready.get_map():  # since this came
            return
        told = b""
        with suppress(ConnectionError):
            told = client.recv(1)
        os.kill(process, told[0] if told else signal.SIGKILL)
        if not told:  # the client is gone
            ready.unregister(client)

    def end() -> None:
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        if client in ready.get_map():
            ready.unregister(client)
            with suppress(ConnectionError):
                client.sendall(code.to_bytes(4, "little", signed=True))
        client.close()
        ready.unregister(ended)
        os.close(ended)

    ready.register(client, selectors.EVENT_READ, pass_on)
    ready.register(ended, selectors.EVENT_READ, end)


def run(
    arguments: list[str],
    executable: str,
    folder: str,
    environment: dict[str, str],
    *,
    streams: list[int],
) -> None:
    """Be the Python that `arguments` ask for."""
    forks.take_place(folder, environment, streams)
    if LAUNCHER in environment:  # a process ends where its parent is another one
        os.environ[LAUNCHER] = str(os.getppid())
    while arguments[0] in ("-u", "-B"):
        arguments = arguments[1:]
    kind, target, *rest = arguments if arguments[0] in ("-m", "-c") else ["", *arguments]
    asked = [*filter(None, [kind, target]), *rest]
    forks.name_process(target, executable, [kind or target, *rest], asked)
    given = [place for place in environment.get("PYTHONPATH", "").split(os.pathsep) if place]
    first = {"-c": "", "-m": folder}.get(kind, str(Path(target).parent))
    sys.path[:] = [first, *given, *sys.path[1:]]
    works: dict[str, Callable[[], object]] = {
        "-m": lambda: runpy.run_module(target, run_name="__main__", alter_sys=True),
        "-c": lambda: exec(compile(target, "<string>", "exec"), {"__name__": "__main__"}),
        "": lambda: runpy.run_path(target, run_name="__main__"),
    }
    forks.end_with(works[kind])


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        serve(Path(sys.argv[1]), *sys.argv[2:])
