"""How much a server takes on: what is beyond is refused with a status, at once."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of a server; times are in seconds."""

    rows: int = 64  # answers that are drawn side by side, of each model
    queue: int = 256  # answers that wait for a row, of each model
    choices: int = 64  # answers of one request
    tokens: int = 4096  # drawn in one answer
    all_tokens: int = 65_536  # in all answers of one request, or else in one answer
    prompt_tokens: int = 32_768  # in all prompts of one request
    logprobs: int = 8  # alternatives told at a token
    body: int = 1_000_000  # bytes
    head: int = 16_384  # bytes of a request's line and headers
    connections: int = 512
    head_time: float = 10.0  # until a request's headers are there
    body_time: float = 10.0  # until its body is
    linger_time: float = 2.0  # that the rest of a refused one may come
    request_time: float = 600.0  # until it is answered, waiting included
    stall_time: float = 30.0  # that a client may leave what is sent unread
    idle_time: float = 10.0  # that a connection may wait for its next request
