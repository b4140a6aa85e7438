"""The blocks of docs/serving.md as they stand, but for the port."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
import warm
from documents import SHELL, blocks
from imports import ROOT
from serving import save_models


def test_every_server_of_the_page_serves_and_its_clients_are_answered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "checkpoints").mkdir()
    model = save_models(tmp_path)[0]
    for name in ("old.pt", "checkpoints/best_model.pt"):
        (tmp_path / name).write_bytes(model.read_bytes())
    servers = list[subprocess.Popen[str]]()
    port = ""
    path = os.pathsep.join([str(Path(warm.executable()).parent), os.environ["PATH"]])
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    try:
        for block in blocks("docs/serving.md"):
            text = block.text.replace(":8000/", f":{port}/")
            if block.language == "python":
                exec(compile(text, "docs/serving.md", "exec"), {})
                assert len(capsys.readouterr().out.encode()) >= 160  # twice 80 tokens
            for command in block.commands() if block.language in SHELL else []:
                if command.startswith("pip install "):
                    continue
                here = command.replace(":8000/", f":{port}/")
                if "nanogpt2 serve" in command:
                    servers.append(
                        subprocess.Popen(
                            ["sh", "-c", f"exec {here} --device cpu --port 0"],
                            cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True,
                        )
                    )  # fmt: skip
                    told = servers[-1].stdout
                    assert told is not None
                    line = told.readline()
                    assert " serves " in line
                    port = port or line.split("/")[2].partition(":")[2]
                else:
                    done = subprocess.run(
                        ["sh", "-ec", here],
                        cwd=tmp_path,
                        capture_output=True,
                        text=True,
                        check=True,
                    )
                    assert "curl" not in command or '"choices"' in done.stdout
    finally:
        for server in servers:
            server.send_signal(signal.SIGINT)
            server.communicate(timeout=30)
    assert [server.returncode for server in servers] == [0, 0, 0]
