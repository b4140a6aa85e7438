"""Several processes that train one model: what they share, and how they agree.

Data parallelism keeps the whole model in each process and averages the gradients (Li et al. 2020);
full sharding leaves each a part of every weight (Zhao et al. 2023, torch's FSDP2).
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nanogpt2.base.system.errors import ConfigError, DeviceError, NanoGPT2Error
from nanogpt2.base.system.signals import SIGNALS
from nanogpt2.config.config import Config
from nanogpt2.config.schema import describe_unequal
from nanogpt2.device import launch
from nanogpt2.device.device import find_device
from nanogpt2.device.torch_private import foreach_copy_
from nanogpt2.device.tree import add_up_over_processes

CPU = torch.device("cpu")
BUCKET_BYTES = 2**26  # gradients that travel together
LAST_WORDS_SECONDS = 1.0
HANG_SECONDS = 5  # how long a process that failed may take to end

T = TypeVar("T")
Parts: TypeAlias = Iterable[list[nn.Module]]  # of a model; the modules of one run in turn


class Group:
    """The processes of a run; this class is the group of a single one, which agrees with itself.

    Every process calls each method but `share`, in the same order.
    """

    kind = "single"
    captures = True  # whether a step can become a CUDA graph
    retries = True  # whether one process can do its share again when its memory runs out

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size

    @property
    def is_main(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    def share(self, items: Tensor) -> Tensor:
        """Return this process's part of `items`, as long as every other's."""
        return items.chunk(self.size)[self.rank]

    def place(
        self, model: nn.Module, parts: Parts, device: torch.device, dtype: torch.dtype
    ) -> None:
        """Put `model`, of which `parts` compute in `dtype`, or a share of it, on `device`."""
        model.to(device)

    def average(self, loss: Tensor, weights: Iterable[Tensor]) -> None:
        """Make `loss` and the gradients of `weights` the mean of all processes', in place."""

    def add_up(self, part: Tensor) -> None:
        """Make `part` (n,) the sum of all processes', in place and in a fixed tree."""

    def in_turn(self, values: Tensor) -> Tensor:
        """Return the `values` (n,) of all processes, the first of each, then the second of each."""
        return values

    def highest(self, value: int) -> int:
        """Return the highest `value` of all processes, once all have come here."""
        return value

    def agreement(self) -> Callable[[int], int]:
        """Return a function of a number: the highest that any process gave it the time before.

        The numbers travel while the processes work, so that none waits for another.
        """
        return int

    def from_main(self, work: Callable[[], T]) -> T:
        """Return, or raise, in every process what `work` returns, or raises, in the main one."""
        return work()

    def whole(self, tensor: Tensor) -> Tensor:
        """Return `tensor` with the parts of all processes joined."""
        return tensor

    def gather(self, value: Any) -> Any:
        """Return `value`, dicts and lists of tensors, with each of them whole, to the main process.

        What the others receive is of no use where tensors are spread over the processes.
        """
        return value

    def part(self, whole: Tensor, own: Tensor) -> Tensor:
        """Return what of `whole` this process keeps, where `own` is its part of the like."""
        return whole

    def load_weights(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Load a gathered state dict into `model`."""
        parts = {name: self.part(state[name], own) for name, own in model.state_dict().items()}
        model.load_state_dict(parts)

    def load_moments(self, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
        """Load a gathered state dict into `optimizer`."""
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        parts = {
            number: {
                key: self._part_of_moment(value, weights[number]) for key, value in own.items()
            }
            for number, own in state["state"].items()
        }
        groups = optimizer.state_dict()["param_groups"]  # as this group of processes has them
        optimizer.load_state_dict({"state": parts, "param_groups": groups})

    def _part_of_moment(self, value: Any, weight: Tensor) -> Any:
        """Return this process's part of a moment, which has the shape of its weight; or `value`."""
        is_moment = isinstance(value, Tensor) and value.shape == weight.shape
        return self.part(value, weight) if is_moment else value


SINGLE = Group()


class DataParallel(Group):
    """Each process has the whole model and a share of the batch.

    Gradients are averaged once, after the backward pass, and not by torch's wrapper during it:
    so a process whose memory runs out can halve its micro-batch and start its share again while
    the others wait, and the whole step can be captured as a CUDA graph.
    """

    kind = "ddp"

    def average(self, loss: Tensor, weights: Iterable[Tensor]) -> None:
        """Make `loss` and the gradients of `weights` the mean of all processes', in place."""
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        for bucket in in_buckets([loss, *gradients]):
            flat = torch.cat([tensor.flatten() for tensor in bucket])
            dist.all_reduce(flat)
            flat /= self.size
            parts = torch.split(flat, [tensor.numel() for tensor in bucket])
            views = [part.view_as(tensor) for part, tensor in zip(parts, bucket, strict=True)]
            foreach_copy_(bucket, views)

    def add_up(self, part: Tensor) -> None:
        """Make `part` (n,) the sum of all processes', in place and in a fixed tree."""
        add_up_over_processes(part, self.size)

    def in_turn(self, values: Tensor) -> Tensor:
        """Return the `values` (n,) of all processes, the first of each, then the second of each."""
        gathered = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(gathered, values)
        return torch.stack(gathered, dim=1).flatten()

    def highest(self, value: int) -> int:
        """Return the highest `value` of all processes, once all have come here."""
        shared = torch.tensor(value)  # on the host: a GPU need not be waited for
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        return int(shared)

    def agreement(self) -> Callable[[int], int]:
        """Return a function of a number: the highest that any process gave it the time before."""
        under_way: list[tuple[Tensor, Any]] = []

        def agree(number: int) -> int:
            shared = torch.tensor(number)
            work = dist.all_reduce(shared, dist.ReduceOp.MAX, async_op=True)
            under_way.append((shared, work))
            if len(under_way) == 1:
                return 0
            earlier, done = under_way.pop(0)
            done.wait()
            return int(earlier)

        return agree

    def from_main(self, work: Callable[[], T]) -> T:
        """Return, or raise, in every process what `work` returns, or raises, in the main one."""
        outcome: list[Any] = [None, None]
        if self.is_main:
            try:
                outcome[0] = work()
            except NanoGPT2Error as error:
                outcome[1] = error
        dist.broadcast_object_list(outcome, src=0, device=CPU)
        result, failure = outcome
        if failure is not None:
            raise failure
        answer: T = result
        return answer


class FullySharded(DataParallel):
    """Each process has a part of every weight, gradient and moment, and a share of the batch.

    torch gathers a block's weights when they are needed, and averages gradients in the backward
    pass; so no process can start its share again alone, and nothing is captured.
    """

    kind = "fsdp"
    captures = False
    retries = False

    def place(
        self, model: nn.Module, parts: Parts, device: torch.device, dtype: torch.dtype
    ) -> None:
        """Spread `model` over the processes, part by part: `device` never holds all of it."""
        from torch.distributed.device_mesh import init_device_mesh

        from nanogpt2.device.sharding import shard

        shard(model, parts, init_device_mesh(device.type, (self.size,)), dtype)

    def average(self, loss: Tensor, weights: Iterable[Tensor]) -> None:
        """Make `loss` the mean of all processes'; the gradients are already."""
        super().average(loss, ())

    def whole(self, tensor: Tensor) -> Tensor:
        """Return `tensor` with the parts of all processes joined."""
        from torch.distributed.tensor import DTensor

        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    def gather(self, value: Any) -> Any:
        """Return `value` with each tensor whole and on the host, to the main process."""
        if isinstance(value, dict):
            return {key: self.gather(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.gather(item) for item in value]
        if isinstance(value, Tensor):
            whole = self.whole(value)  # one at a time, and not kept where it is not wanted
            return whole.cpu() if self.is_main else None
        return value

    def part(self, whole: Tensor, own: Tensor) -> Tensor:
        """Return what of `whole` this process keeps, where `own` is its part of the like."""
        from torch.distributed.tensor import DTensor, distribute_tensor

        if isinstance(whole, DTensor) or not isinstance(own, DTensor):
            return whole
        whole = whole.to(own.device)
        return distribute_tensor(whole, own.device_mesh, own.placements, src_data_rank=None)


GROUPS = {"ddp": DataParallel, "fsdp": FullySharded}


def in_buckets(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    """Yield `tensors` in their order, in lists of BUCKET_BYTES at most or of one larger tensor."""
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if bucket and size + tensor.nbytes > BUCKET_BYTES:
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.nbytes
    yield bucket


@contextmanager
def joined(config: Config) -> Iterator[Group]:
    """Join the processes that torchrun or `launch` started; without them this one is alone.

    An error that ends one process is left to it to tell. Raises ConfigError or DeviceError where
    the batch or the devices do not suffice for the group.
    """
    if launch.LAUNCHER in os.environ:
        threading.Thread(target=launch.end_with_launcher, daemon=True).start()
    if not launch.is_launched() or int(os.environ["WORLD_SIZE"]) == 1:
        yield SINGLE
        return
    if not dist.is_available():
        raise DeviceError(
            f"num_processes: found {os.environ['WORLD_SIZE']}; allowed: 1, since this build of"
            " torch has no torch.distributed"
        )
    from torch.distributed.rendezvous import rendezvous

    store, rank, size = next(rendezvous("env://"))
    with told_once(store, rank, size):
        device = find_device(config.device)
        check_group(config, device, size)
        if device.type == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size)
        group = GROUPS[config.parallel](rank, size)
        yield group
        group.highest(0)  # nobody leaves before all have what they asked for
        dist.destroy_process_group()


def check_group(config: Config, device: torch.device, size: int) -> None:
    """Raise ConfigError or DeviceError where `size` processes cannot train together."""
    if device.type == "mps":
        raise DeviceError(f"num_processes: found {size}; allowed: 1 with device mps")
    gpus, local = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", size))
    if device.type == "cuda" and local > gpus:
        raise DeviceError(
            f"num_processes: found {local}; allowed: at most {gpus}, the GPUs that torch sees here"
        )
    if text := describe_unequal(config.to_dict(), size):
        raise ConfigError(f"num_processes: {text}")


@contextmanager
def told_once(store: Any, rank: int, size: int) -> Iterator[None]:
    """Let only the first process that fails tell its error; the others end with status 1.

    `store` is the torch.distributed.Store of the group, which goes with its first process.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, NanoGPT2Error):
            # Perhaps only the echo of another one's death: then the launcher ends this one now.
            time.sleep(LAST_WORDS_SECONDS)
        try:
            failed = int(store.add("failed", 1))
        except RuntimeError:  # the store went with the main process, which has told its own error
            failed = 2
        _end_soon()
        until = time.monotonic() + LAST_WORDS_SECONDS  # of the others, to which torch adds its own
        while rank == 0 and store.add("failed", 0) < size and time.monotonic() < until:
            time.sleep(0.01)
        if failed > 1:
            raise SystemExit(1) from None
        raise


def _end_soon() -> None:
    """Let no signal keep this process from its last line, and nothing hold it up after that."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
    if torch.cuda.is_available() and hasattr(signal, "alarm"):
        signal.alarm(HANG_SECONDS)  # at its end NCCL may wait for processes that wait for it
