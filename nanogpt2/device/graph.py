"""CUDA graphs: a step's kernels recorded once and then launched together."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from nanogpt2.device.torch_private import renew_generator

Say = Callable[[str], None]
EAGER_CALLS = 3  # before the capture: they allocate and choose what the graph then replays


@contextmanager
def capturing(graph: torch.cuda.CUDAGraph, **options: Any) -> Iterator[None]:
    """Capture what is launched within as `graph`, while no garbage is collected.

    Among it may be another graph, whose end would end the capture.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        with torch.cuda.graph(graph, **options):
            yield
    finally:
        if collects:
            gc.enable()


class CapturedFunction:
    """Runs `function` of small tensors as it is at first, and then as a CUDA graph.

    The graph launches a step's many small kernels at once, where Python would need longer to
    launch them than the device to run them. It replays the same work on the same memory, also used
    by the one `beside` it, so the function may depend on nothing but its tensors, and look at no
    value. Where a capture fails, `say` is told, and the function goes on as it is.
    """

    def __init__(
        self, function: Callable[..., Tensor], say: Say, beside: "CapturedFunction | None" = None
    ) -> None:
        self.function, self.say, self.beside = function, say, beside
        stream = beside.stream if beside else torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self.stream: torch.cuda.Stream = stream
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: list[Tensor] = []
        self.output = torch.empty(0)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Return what the function returns for `inputs`, given on the host."""
        if self.calls == EAGER_CALLS:
            self._capture(inputs)
        self.calls += 1
        if self.graph is None:
            return self._on_stream(*inputs)
        for static, new in zip(self.inputs, inputs, strict=True):
            static.copy_(new, non_blocking=True)
        self.graph.replay()
        return self.output.clone()

    def _on_stream(self, *inputs: Tensor) -> Tensor:
        """Run the function on the stream that the capture will use, as autograd asks."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            output = self.function(*(x.to("cuda", non_blocking=True) for x in inputs))
        torch.cuda.current_stream().wait_stream(self.stream)
        return output

    def _capture(self, inputs: tuple[Tensor, ...]) -> None:
        self.inputs = [x.to("cuda") for x in inputs]
        torch.cuda.synchronize()
        torch.cuda.empty_cache()  # the graph has memory of its own
        graph = torch.cuda.CUDAGraph()
        try:
            mode = "thread_local"  # other threads, as those that watch over NCCL, call CUDA too
            pool = self.beside.graph.pool() if self.beside and self.beside.graph else None
            with capturing(graph, pool=pool, stream=self.stream, capture_error_mode=mode):
                self.output = self.function(*self.inputs)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            self.say(f"warning: no CUDA graph, so steps launch one kernel at a time: {reason}")
            renew_generator()
        else:
            self.graph = graph
