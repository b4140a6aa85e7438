"""The server, by OpenAI's client and over plain sockets: each answer is that of `generate`."""

import json
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import warm
from click.testing import CliRunner
from imports import ROOT
from openai import APIStatusError, OpenAI
from serving import SHAPE, TOKEN, Server, read_all, save_models, serving
from variants import warmed

from nanogpt2.__main__ import main
from nanogpt2.config.config import get_config
from nanogpt2.decode.ensemble.checkpoints import load_checkpoints
from nanogpt2.model.checkpoint import load_checkpoint, save_checkpoint, tokenizer_of
from nanogpt2.sample.sample import Sampler
from nanogpt2.tokens.tokenizer import ByteTokenizer

ALL = {"model": "bytes", "prompt": "KING:\n", "seed": 7}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def server(files: list[Path]) -> Iterator[Server]:
    with serving(files, rows=8) as found:
        yield found


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.address}/v1", api_key="none", max_retries=0) as found:
        yield found


@pytest.fixture(scope="module")
def sampler(files: list[Path]) -> Sampler:
    loaded = load_checkpoint(files[0], device="cpu")
    return Sampler(loaded.model, tokenizer_of(loaded, Path("none")), 1)


def generated(sampler: Sampler, prompt: str, seed: int, tokens: int, **controls: Any) -> str:
    return sampler.changed(max_new_tokens=tokens, **controls).write_on([prompt], seed=seed)[0]


def test_an_answer_is_that_of_generate_and_a_stream_of_it_too(
    client: OpenAI, sampler: Sampler
) -> None:
    asked: dict[str, Any] = {**ALL, "max_tokens": 80, "temperature": 0.8, "top_p": 0.9}
    whole = client.completions.create(**asked)
    expected = generated(sampler, "KING:\n", 7, 80, temperature=0.8, top_p=0.9)
    assert whole.choices[0].text == expected
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (6, 80)
    pieces = list(
        client.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    assert "".join(piece.choices[0].text for piece in pieces[:-1]) == expected
    assert pieces[-2].choices[0].finish_reason == "length"
    assert pieces[-1].usage == whole.usage
    assert len({piece.id for piece in pieces}) == 1


def test_our_own_controls_are_taken_too(client: OpenAI, sampler: Sampler) -> None:
    controls = {"top_k": 12, "min_p": 0.05, "repetition_penalty": 1.3}
    answer = client.completions.create(
        **ALL, max_tokens=60, extra_body={**controls, "window": "half"}
    )
    assert answer.choices[0].text == generated(sampler, "KING:\n", 7, 60, **controls)


def test_several_prompts_and_answers_have_seeds_of_their_own(
    client: OpenAI, sampler: Sampler
) -> None:
    prompts = ["KING", "QUEEN", ""]
    answer = client.completions.create(model="bytes", prompt=prompts, n=2, seed=3, max_tokens=20)
    texts = [choice.text for choice in sorted(answer.choices, key=lambda each: each.index)]
    every = [prompt for prompt in prompts for _ in range(2)]
    assert texts == sampler.changed(max_new_tokens=20).write_on(every, seed=3)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 4 + 5 + 1
    assert answer.usage.completion_tokens == 120


def test_tokens_as_a_prompt_are_as_its_text(client: OpenAI) -> None:
    numbers = list(b"KING:\n")
    one = client.completions.create(**{**ALL, "prompt": numbers}, max_tokens=9)
    other = client.completions.create(**ALL, max_tokens=9)
    assert one.choices[0].text == other.choices[0].text


def test_it_ends_before_a_stop_text(client: OpenAI, sampler: Sampler) -> None:
    whole = generated(sampler, "KING:\n", 7, 100)
    stop = whole[40:43]
    expected = whole[: whole.index(stop)]
    answer = client.completions.create(**ALL, max_tokens=100, stop=[stop, "never comes"])
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == (expected, "stop")
    pieces = client.completions.create(**ALL, max_tokens=100, stop=stop, stream=True, logprobs=0)
    parts = [piece.choices[0] for piece in pieces]
    assert "".join(part.text for part in parts) == expected
    told = [token for part in parts if part.logprobs for token in part.logprobs.tokens or ()]
    assert len(told) <= len(expected.encode())


def test_logprobs_are_those_of_the_model(client: OpenAI, sampler: Sampler) -> None:
    answer = client.completions.create(
        **ALL, max_tokens=12, logprobs=3, echo=True, extra_body={"return_token_ids": True}
    )
    choice = answer.choices[0]
    told: Any = choice.logprobs
    ids: list[int] = choice.model_extra["token_ids"]
    assert choice.text == "KING:\n" + generated(sampler, "KING:\n", 7, 12)
    with torch.no_grad():
        logprobs = sampler.model(torch.tensor([ids]))[0].log_softmax(dim=-1)
    expected = logprobs[:-1].gather(1, torch.tensor(ids)[1:, None])[:, 0]
    assert told.token_logprobs[0] is None
    assert told.token_logprobs[1:] == pytest.approx(expected.tolist(), abs=1e-4)
    likeliest = logprobs[:-1].max(dim=-1).values.tolist()
    assert [max(each.values()) for each in told.top_logprobs[1:]] == pytest.approx(
        likeliest, abs=1e-4
    )
    assert told.text_offset[:7] == [0, 1, 2, 3, 4, 5, 6]
    assert told.tokens[:6] == list("KING:\n")


def test_a_prompt_alone_can_be_scored(client: OpenAI) -> None:
    text = "the quick brown fox jumps over the lazy dog " * 3  # longer than the block
    answer = client.completions.create(
        model="bytes", prompt=text, max_tokens=0, echo=True, logprobs=1
    )
    told: Any = answer.choices[0].logprobs
    assert answer.choices[0].text == text
    assert len(told.token_logprobs) == len(text)
    assert all(each < 0 for each in told.token_logprobs[1:])


def test_two_models_are_side_by_side(client: OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names == ["bytes", "letters"]
    assert client.models.retrieve("letters").model_extra["tokens"] == 28
    texts = {
        name: client.completions.create(model=name, prompt="a", max_tokens=30, seed=1)
        for name in names
    }
    assert texts["letters"].choices[0].text.translate({10: "", 32: ""}).isalpha()
    assert texts["bytes"].choices[0].text != texts["letters"].choices[0].text


def test_what_is_wrong_is_told_as_openai_tells_it(client: OpenAI) -> None:
    with pytest.raises(APIStatusError) as wrong:
        client.completions.create(**ALL, max_tokens=5, temperature=-1)
    assert wrong.value.status_code == 400
    told: Any = wrong.value.body
    assert told["param"] == "temperature"
    assert told["message"] == "temperature: found -1; allowed: a finite number, at least 0"


def test_who_wants_to_chat_is_told_where_to_go(client: OpenAI) -> None:
    with pytest.raises(APIStatusError, match="write on from a prompt: /v1/completions"):
        client.chat.completions.create(model="bytes", messages=[{"role": "user", "content": "x"}])


def test_a_request_without_a_seed_tells_which_it_had(client: OpenAI, sampler: Sampler) -> None:
    answer = client.completions.create(model="bytes", prompt="x", max_tokens=20)
    seed = answer.model_extra["seed"]
    assert answer.choices[0].text == generated(sampler, "x", seed, 20)


def test_clients_that_come_and_go_do_not_disturb_others(server: Server, sampler: Sampler) -> None:
    lengths, wrong = (5, 40, 300), list[str]()

    def be_client(number: int) -> None:
        chance = random.Random(number)
        for _ in range(4):
            prompt, seed = chance.choice(["", "KING", "x" * 40]), chance.randrange(1000)
            length = chance.choice(lengths)
            fields = {"prompt": prompt, "seed": seed, "max_tokens": length, "stream": True}
            text, whole = stream(server, fields, leaves=chance.random() < 0.4)
            expected = generated(sampler, prompt, seed, length)
            if text != expected[: len(text)] or (whole and text != expected):
                wrong.append(text)

    threads = [threading.Thread(target=be_client, args=[number]) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    wait_until_idle(server)


def stream(server: Server, fields: dict[str, Any], *, leaves: bool) -> tuple[str, bool]:
    """Return the text of a stream, and whether it is whole; one who leaves hears its begin."""
    body = json.dumps({"model": "bytes", **fields}).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with server.connect() as connection:
        connection.sendall(head.encode() + body)
        answer = b""
        while b"data: " not in answer:
            answer += connection.recv(1000)
        if not leaves:
            answer += read_all(connection)
    events = [line[6:] for line in answer.split(b"\n") if line.startswith(b"data: {")]
    texts = []
    for event in events:
        try:
            texts.append(json.loads(event)["choices"][0]["text"])
        except ValueError:
            assert leaves  # in the middle of an event
    return "".join(texts), b"data: [DONE]" in answer


def read_figure(server: Server, name: str) -> float:
    text = server.ask("GET", "/metrics").body.decode()
    return sum(float(x.split()[-1]) for x in text.splitlines() if x.startswith(f"nanogpt2_{name}"))


def wait_until_idle(server: Server) -> None:
    end = time.monotonic() + 20
    while read_figure(server, "running{") or read_figure(server, "waiting{"):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_metrics_count_what_was_done(server: Server, client: OpenAI) -> None:
    wait_until_idle(server)
    before = {name: read_figure(server, name) for name in ("tokens_total", "prompt_tokens_total")}
    client.completions.create(**ALL, max_tokens=11)
    assert read_figure(server, "tokens_total") - before["tokens_total"] == 11
    assert read_figure(server, "prompt_tokens_total") - before["prompt_tokens_total"] == 6
    response = server.ask("GET", "/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")


def test_sigterm_lets_what_runs_finish_and_refuses_what_is_new(
    files: list[Path], sampler: Sampler
) -> None:
    with serving(files[:1]) as server:
        ahead = server.connect()  # before: then the door is closed to nobody who is in
        ahead.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % server.port)
        assert b"200 OK" in ahead.recv(10_000)
        found: list[tuple[str, bool]] = []
        fields = {"prompt": "KING", "seed": 5, "max_tokens": 4000, "stream": True}
        thread = threading.Thread(target=lambda: found.append(stream(server, fields, leaves=False)))
        thread.start()
        while not read_figure(server, "running{"):
            time.sleep(0.005)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
        refused = server.complete(prompt="x")
        assert refused.status == 503
        assert "retry-after" in refused.headers
        assert server.ask("GET", "/healthz").status == 503
        thread.join()
        assert found == [(generated(sampler, "KING", 5, 4000), True)]
        assert server.process.wait(10) == 0
        ahead.close()


def test_a_request_that_takes_too_long_ends(files: list[Path]) -> None:
    with serving(files[:1], request_time=0.3, tokens=10**6, rows=1) as server:
        assert server.complete(prompt="x", max_tokens=10**6).status == 504
        wait_until_idle(server)


def test_a_token_is_asked_for(files: list[Path]) -> None:
    with serving(files[:1], token=TOKEN) as server:
        with pytest.raises(APIStatusError) as wrong:
            OpenAI(base_url=f"{server.address}/v1", api_key="no").models.list()
        assert wrong.value.status_code == 401
        client = OpenAI(base_url=f"{server.address}/v1", api_key=TOKEN)
        assert [model.id for model in client.models.list()] == ["bytes"]
        assert server.ask("GET", "/healthz").status == 200


def test_a_name_of_this_machine_alone_is_heard(server: Server) -> None:
    for host, status in {"localhost": 200, "[::1]": 200, "rebound.example": 403}.items():
        assert server.ask("GET", "/", Host=f"{host}:{server.port}").status == status
    assert server.ask("GET", "/", Host="127.0.0.1").status == 403  # another port's


def test_the_examples_of_the_guide_give_one_text(server: Server, sampler: Sampler) -> None:
    guide = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
    expected = generated(sampler, "KING:\n", 1337, 80, temperature=0.8)
    for fence, command in {"python": [sys.executable, "-c"], "sh": ["bash", "-c"]}.items():
        blocks = re.findall(rf"^```{fence}\n(.*?)^```$", guide, re.DOTALL | re.MULTILINE)
        (block,) = (block for block in blocks if "127.0.0.1:8000/v1" in block)
        code = block.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
        shown = subprocess.run([*command, code], check=True, capture_output=True).stdout
        text = shown.decode() if fence == "python" else json.loads(shown)["choices"][0]["text"]
        assert text.startswith(expected)


def test_the_command_serves_until_it_is_told_to_end(files: list[Path]) -> None:
    command = [warm.executable(), "-m", "nanogpt2", "serve", "--port", "0"]
    command += ["--checkpoint", f"one={files[0]}", "--checkpoint", f"two={files[0]}"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/ serves one, two; Ctrl-C ends\n", line)
        assert found
        server = Server(process, int(found[1]))
        names = [each["id"] for each in server.ask("GET", "/v1/models").json()["data"]]
        assert names == ["one", "two"]
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=20)
    assert process.returncode == 0
    assert re.fullmatch(r"serve: 1 request in \d+\.\d s", told.splitlines()[-1])


@contextmanager
def commanded(*options: str) -> Iterator[Server]:
    """Serve meanwhile by the command itself."""
    command = [warm.executable(), "-m", "nanogpt2", "serve", "--port", "0", "--quiet", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        port = process.stdout.readline().split("/")[2].partition(":")[2]
        yield Server(process, int(port))
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


def test_weights_of_8_bits_write_what_generate_writes_with_them(
    files: list[Path], sampler: Sampler
) -> None:
    rounded = replace(sampler, int8=True)
    with commanded("--int8", f"--checkpoint={files[0]}") as server:
        answer = server.complete(prompt="KING:\n", seed=7, max_tokens=80).json()
    assert answer["choices"][0]["text"] == generated(rounded, "KING:\n", 7, 80)
    assert answer["choices"][0]["text"] != generated(sampler, "KING:\n", 7, 80)


def test_an_ensemble_writes_what_generate_writes_of_it(files: list[Path], tmp_path: Path) -> None:
    other, smaller = tmp_path / "other.pt", warmed(get_config({**SHAPE, "n_layer": 1}))
    save_checkpoint(
        other, smaller.state_dict(), smaller.config, tokenizer=ByteTokenizer(), origin={}
    )
    loaded = load_checkpoints([files[0], other], device="cpu", tokenizer=Path("none"))
    both = Sampler(loaded.model, ByteTokenizer(), 1)
    with commanded(f"--checkpoint=both={files[0]},{other}") as server:
        asked = {"prompt": "KING:\n", "seed": 7, "echo": True, "logprobs": 2}
        (choice,) = server.complete(**asked, max_tokens=80).json()["choices"]
        (described,) = server.ask("GET", "/v1/models").json()["data"]
    assert choice["text"] == "KING:\n" + generated(both, "KING:\n", 7, 80)
    assert len(choice["logprobs"]["tokens"]) == 86
    assert described["id"] == "both"
    assert described["parameters"] == sum(each.numel() for each in loaded.model.parameters())


def test_more_answers_than_may_ever_wait_are_refused_for_good(files: list[Path]) -> None:
    with serving(files, rows=2, queue=1) as server:
        assert server.complete(**ALL, n=3).status == 200
        response = server.complete(**ALL, n=4)
    assert response.status == 400
    assert (
        response.json()["error"]["message"] == "n: found '4 answers'; allowed: 3, drawn and waiting"
    )


def test_what_cannot_be_served_is_one_line(files: list[Path], tmp_path: Path) -> None:
    short = tmp_path / "token.txt"
    short.write_text("guessed")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for options, told in {
            ("--host", "0.0.0.0"): "--host 0.0.0.0: others reach it; --token-file FILE names",
            ("--token-file", str(short)): "allowed: one token of at least 16 letters",
            ("--port", port): f"--host 127.0.0.1 --port {port}: Address already in use",
            ("--checkpoint", str(files[0])) * 2: "the name 'bytes' is another's already",
            ("--checkpoint", "none.pt"): "none.pt: no such file",
            ("--checkpoint", f"{files[0]},{files[1]}"): "trained with different tokenizers",
        }.items():
            done = CliRunner().invoke(main, ["serve", "--port=0", *options])
            assert done.exit_code == 1
            assert told in done.stderr
            assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("library", ["starlette", "uvicorn", "prometheus_client"])
def test_a_missing_library_is_named(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    done = CliRunner().invoke(main, ["serve"])
    assert done.exit_code == 1
    assert re.fullmatch(rf"{library} is not installed: .*'\.\[serve\]'.*\n", done.stderr)
