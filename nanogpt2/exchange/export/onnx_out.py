"""An ONNX file (https://onnx.ai): logits (B, T, V) of tokens `idx` (B, T), for any B and T."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nanogpt2.base.system import files
from nanogpt2.base.system.errors import CheckpointError, ExtraError
from nanogpt2.base.system.extras import import_extra
from nanogpt2.exchange.export.prove import (
    EXACTNESS,
    MOST_GREEDY,
    compare_choices,
    compare_logits,
    logits_of,
    random_tokens,
)
from nanogpt2.exchange.export.record import Export, Proof
from nanogpt2.model.checkpoint import Checkpoint
from nanogpt2.model.gpt import GPT
from nanogpt2.model.modes import evaluating
from nanogpt2.tokens.tokenizer import Tokenizer

OPSET = 18  # of ONNX's operators
LARGEST = 2**31 - 1  # bytes: protobuf has no larger messages
NOTE = "texts are cut into tokens elsewhere: it takes at most block_size token numbers a row"


def export_onnx(checkpoint: Checkpoint, tokenizer: Tokenizer, file: str | Path) -> Export:
    """Write the model to `file` for batches and lengths of any size, and compare.

    ExtraError where ONNX's libraries are missing; CheckpointError where the model is too large for
    one file, or onnxruntime computes something else: `file` is as it was then.
    """
    path, model = files.as_file(file), checkpoint.model
    files.check_writable(path)
    with evaluating(model):
        content = serialise(model)
        proof = prove_onnx(model, content, n_tokens=tokenizer.size)
    files.write_bytes(path, content)
    return Export("onnx", f"opset {OPSET}", [NOTE], proof)


def serialise(model: GPT) -> bytes:
    """Return `model` as ONNX has it, without the paths and names of its source."""
    for library in ("onnx", "onnxscript"):
        import_extra(library, extra="onnx")
    if (size := 4 * model.count_parameters()) > LARGEST:
        raise CheckpointError(f"{size:,} bytes of weights; allowed: {LARGEST:,} in one ONNX file")
    dims = {
        0: torch.export.Dim("batch", min=1),
        1: torch.export.Dim("length", min=1, max=model.config.block_size),
    }
    with quiet():
        program = torch.onnx.export(
            model,
            (torch.zeros(2, min(3, model.config.block_size), dtype=torch.long),),
            dynamo=True,
            input_names=["idx"],
            output_names=["logits"],
            dynamic_shapes={"idx": dims},
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    content: bytes = without_source(program.model_proto).SerializeToString(deterministic=True)
    return content


@contextmanager
def quiet() -> Iterator[None]:
    """Let torch's exporter say nothing of libraries that it does without, or of its own code."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def without_source(proto: Any) -> Any:
    """Return `proto` without what torch notes of each node: files, lines and names of classes."""
    graph = proto.graph
    described = (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer)
    for part in (proto, graph, *described, *proto.functions):
        del part.metadata_props[:]
        part.doc_string = ""
    return proto


def prove_onnx(model: GPT, content: bytes, *, n_tokens: int) -> Proof | None:
    """Return how near onnxruntime is to `model`, read from `content`; None where it is missing.

    CheckpointError where it computes something else.
    """
    try:
        runtime = import_extra("onnxruntime", extra="onnx")
    except ExtraError:
        return None
    library = f"onnxruntime {runtime.__version__}"
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def theirs(idx: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"idx": idx.numpy()})[0])

    with torch.no_grad():
        idx = random_tokens(n_tokens, model.config.block_size)
        difference, scale = compare_logits(logits_of(model, idx), theirs(idx)[0], library)
        rows = idx[:, : (idx.shape[1] + 1) // 2].repeat(3, 1)  # another batch, another length
        compare_logits(logits_of(model, rows), theirs(rows)[2], library)
        greedy = idx[:, :1]
        for _ in range(min(MOST_GREEDY, model.config.block_size - 1)):
            best = theirs(greedy)[:, -1, :n_tokens].argmax(1, keepdim=True)
            greedy = torch.cat([greedy, best], 1)
        ours = logits_of(model, greedy)[:-1, :n_tokens]
    equal = compare_choices(ours, greedy[0, 1:], 2 * EXACTNESS * scale, library)
    return Proof(library, idx.numel(), difference, scale, len(ours), equal)
