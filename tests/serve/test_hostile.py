"""Hostile requests: each has a clear status, the server lives, and others are served meanwhile."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from serving import TOKEN, Response, Server, read_all, save_models, serving

OK = {"prompt": "KING", "max_tokens": 5, "seed": 1}
LIMITS: dict[str, Any] = {
    **{"rows": 4, "queue": 8, "choices": 4, "tokens": 200_000, "body": 20_000, "head": 4096},
    **{
        "head_time": 0.4,
        "body_time": 0.4,
        "stall_time": 0.4,
        "linger_time": 0.3,
        "prompt_tokens": 5000,
    },
}
Send: TypeAlias = Callable[[Server], Response]
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    files = save_models(tmp_path_factory.mktemp("models"))
    with serving(files, token=TOKEN, **LIMITS) as found:
        yield found


def post(body: Any, **headers: str) -> Send:
    return lambda server: server.ask("POST", "/v1/completions", body, **{**BEARER, **headers})


def get(path: str, method: str = "GET", **headers: str) -> Send:
    return lambda server: server.ask(method, path, **{**BEARER, **headers})


def raw(request: bytes) -> Send:
    return lambda server: Response.of(server.send(request))


def slowly(*parts: bytes) -> Send:
    """Send the parts of a request and then nothing more."""

    def send(server: Server) -> Response:
        with server.connect() as connection:
            for part in parts:
                connection.sendall(part)
                time.sleep(0.05)
            return Response.of(read_all(connection))

    return send


def fields(**changes: Any) -> Send:
    return post({**OK, **changes})


HEAD = (
    b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer "
    + TOKEN.encode()
    + b"\r\nContent-Type: application/json\r\n"
)


def headed(rest: bytes, send: Callable[..., Send] = raw) -> Any:
    return lambda server: send(HEAD % server.port + rest)(server)


REQUESTS: dict[str, tuple[Send, int]] = {
    # too large
    "a body too large": (post({**OK, "user": "x" * 30_000}), 413),
    "a length that lies": (headed(b"Content-Length: 99999999999999999999\r\n\r\n"), 413),
    "chunks without end": (
        headed(b"Transfer-Encoding: chunked\r\n\r\n" + b"2000\r\n" + b" " * 0x2000 + b"\r\n"
               + b"4000\r\n" + b" " * 0x4000 + b"\r\n"), 413),
    "a head too large": (raw(b"GET / HTTP/1.1\r\nX: " + b"x" * 10_000), 400),
    "a path too long": (raw(b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\n\r\n"), 400),
    "a prompt too long": (fields(prompt="x" * 6000), 400),
    "too many tokens": (fields(max_tokens=10**9), 400),
    "too many answers": (fields(n=5), 400),
    "too many tokens in all": (fields(n=4, max_tokens=60_000), 400),
    "too many prompts": (fields(prompt=["a"] * 5), 400),
    "stop texts without end": (fields(stop=["x"] * 100), 400),
    # malformed
    "no HTTP": (raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20), 400),
    "HTTP/0": (raw(b"GET / HTTP/0.0\r\n\r\n"), 403),  # and no Host
    "no Host": (raw(b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n"), 400),
    "a smuggled second length": (
        headed(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400),
    "a negative length": (headed(b"Content-Length: -1\r\n\r\n"), 400),
    "no JSON": (post(b"{"), 400),
    "no text": (post(b"\xff\xfe{}"), 400),
    "an empty body": (post(b""), 400),
    "JSON, but no object": (post([1, 2, 3]), 400),
    "deep JSON": (post(b"[" * 19_000), 400),
    "a deep object": (post(b'{"a":' * 3_000 + b"1" + b"}" * 3_000), 400),
    "a deep prompt": (post(b'{"prompt": ' + b"[" * 900 + b"]" * 900 + b"}"), 400),
    "a deep temperature": (post(b'{"temperature": ' + b"[" * 900 + b"]" * 900 + b"}"), 400),
    "half a character as a name": (post(b'{"\\ud800": 1}'), 400),
    "a number without end": (post(b'{"seed": ' + b"9" * 9_000 + b"}"), 400),
    "NaN": (post(b'{"temperature": NaN}'), 400),
    "another kind of body": (post(b"prompt=x", Content_Type="text/plain"), 415),
    # slow
    "a head that does not end": (slowly(b"GET / HTTP/1.1\r\n", b"A: b\r\n", b"C"), 408),
    "a body that does not come": (headed(b"Content-Length: 100\r\n\r\n{", slowly), 408),
    # elsewhere
    "path traversal": (get("/../../../../etc/passwd"), 404),
    "path traversal, encoded": (get("/%2e%2e/%2e%2e/etc/passwd"), 404),
    "path traversal, model": (get("/v1/models/..%2f..%2fetc%2fpasswd"), 404),
    "a file": (get("/params.yaml"), 404),
    "another method": (get("/v1/completions"), 405),
    "TRACE": (get("/", "TRACE"), 405),
    "another host": (get("/", Host="evil.example"), 403),
    "another origin": (post(OK, Origin="http://evil.example"), 403),
    # without the right
    "no token": (post(OK, Authorization=""), 401),
    "a wrong token": (post(OK, Authorization="Bearer wrong"), 401),
    "a token that begins well": (post(OK, Authorization=f"Bearer {TOKEN[:-1]}"), 401),
    "a token that is no text": (post(OK, Authorization="Bearer \xff\xfe"), 401),
    "metrics without the token": (get("/metrics", Authorization="Basic x"), 401),
    # wrong types
    "a model that is none": (fields(model="gpt-4"), 404),
    "a model of a path": (fields(model="../../etc/passwd\0"), 404),
    "a prompt that is a number": (fields(prompt=5), 400),
    "a prompt of mixed things": (fields(prompt=["a", 1]), 400),
    "tokens that are none": (fields(prompt=[1, 10**30]), 400),
    "tokens that are negative": (fields(prompt=[-1]), 400),
    "half a surrogate pair": (post(b'{"prompt": "\\ud800"}'), 400),
    "a NUL that the model does not know": (fields(model="letters", prompt="a\0b"), 400),
    "a temperature that is a text": (fields(temperature="hot"), 400),
    "a temperature below 0": (fields(temperature=-1), 400),
    "a temperature without end": (post(b'{"temperature": 1e999}'), 400),
    "a top_p of 2": (fields(top_p=2), 400),
    "a truth that is a number": (fields(stream=1), 400),
    "a count that is a truth": (fields(n=True), 400),
    "a seed below 0": (fields(seed=-1), 400),
    "logprobs of all": (fields(logprobs=10**6), 400),
    "a field that is not known": (fields(temprature=1), 400),
    "what is not supported": (fields(suffix="end"), 400),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def bystander(server: Server) -> Iterator[list[tuple[int, Any]]]:
    """Somebody who asks for the same answer all the time."""
    seen: list[tuple[int, Any]] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            response = post({**OK, "max_tokens": 50})(server)
            if response.status != 429:  # of the flood: a client tries again
                seen.append((response.status, response.json()["choices"][0]["text"]))

    thread = threading.Thread(target=ask)
    thread.start()
    yield seen
    over.set()
    thread.join()
    assert len(seen) > 3
    assert {status for status, _ in seen} == {200}
    assert len({text for _, text in seen}) == 1


@pytest.mark.parametrize("name", REQUESTS)
def test_a_hostile_request_has_a_clear_status(server: Server, name: str) -> None:
    send, status = REQUESTS[name]
    response = send(server)
    assert response.status == status, response
    if name != "no Host":  # which h11 refuses
        told = response.json()["error"]
        assert told.keys() == {"message", "type", "param", "code"}
        assert told["message"]
    assert b"root:" not in response.body
    assert server.process.poll() is None


def test_there_are_forty() -> None:
    assert len(REQUESTS) >= 40


def test_a_flood_is_told_to_wait_and_leaves_nothing_behind(server: Server) -> None:
    statuses: list[int] = []

    def ask() -> None:
        statuses.append(post({**OK, "max_tokens": 3000})(server).status)

    threads = [threading.Thread(target=ask) for _ in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200, 429}
    wait_for(lambda: read_sum(server, "running") <= 1)


def test_who_does_not_read_loses_the_place(server: Server) -> None:
    before = read_sum(server, "gone_total")
    body = json.dumps({**OK, "max_tokens": 200_000, "stream": True, "logprobs": 8}).encode()
    connection = server.connect()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.sendall(HEAD % server.port + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    assert connection.recv(100).startswith(b"HTTP/1.1 200")
    wait_for(lambda: read_sum(server, "gone_total") > before)
    wait_for(lambda: read_sum(server, "running") <= 1)  # the bystander's
    connection.close()


def test_idle_connections_do_not_keep_others_out(server: Server) -> None:
    idle = [server.connect() for _ in range(100)]
    assert get("/healthz")(server).status == 200
    for connection in idle:
        assert connection.recv(1) == b""  # ended, without a word, as none was said
        connection.close()


def read_sum(server: Server, name: str) -> float:
    """Return a figure of /metrics, of all models."""
    lines = get("/metrics")(server).body.decode().splitlines()
    return sum(float(x.split()[-1]) for x in lines if x.startswith(f"nanogpt2_{name}{{"))


def wait_for(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_no_file_of_the_machine_is_named_in_what_is_sent(server: Server) -> None:
    for path in ("/", "/v1/models", "/healthz"):
        assert str(Path(__file__).parents[2]).encode() not in get(path)(server).body
