"""GGUF: what is written computes what the model does, by the file alone and in llama.cpp itself."""

import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import TINY
from torch import Tensor
from variants import warmed

from nanogpt2.base.system.errors import CheckpointError, ConfigError, DataError, ExtraError
from nanogpt2.config.config import get_config
from nanogpt2.exchange.export import gguf_out
from nanogpt2.exchange.export.gguf_out import export_gguf
from nanogpt2.model.checkpoint import Checkpoint
from nanogpt2.model.gpt import GPT
from nanogpt2.tokens.bpe.bpe import BYTE_CHARACTERS, BYTES, BytePairTokenizer
from nanogpt2.tokens.bpe.merges import train_from_texts
from nanogpt2.tokens.tokenizer import ByteTokenizer, CharTokenizer, Tokenizer

ROOT = Path(__file__).parents[3]
TEXT = "the café\n 'stoned,' naïve — 日本 🙂  end "
CHAR = CharTokenizer("".join(sorted(set(TEXT))))
PAIRS = BytePairTokenizer(
    ["<|endoftext|>", *BYTE_CHARACTERS, "th", "Ġth", "the"], ["t h", "Ġ th", "th e"],
    ["<|endoftext|>"],
)  # fmt: skip
TRAINED = train_from_texts([TEXT], 270, ["<|endoftext|>"])
TOKENIZERS: dict[str, Tokenizer] = {
    "char": CHAR, "byte": ByteTokenizer(), "bpe": PAIRS, "trained": TRAINED
}  # fmt: skip
ROTARY = {"architecture": "modern", "mlp": "swiglu", "logit_softcap": 0.0, "n_kv_head": 1}
ALLOWED: dict[str, tuple[str, dict[str, object]]] = {
    "gpt2": ("gpt2", {}),
    "no bias, untied": ("gpt2", {"bias": False, "tied_head": False}),
    "qwen3": ("qwen3", ROTARY),
    "qwen3, tied": ("qwen3", {**ROTARY, "tied_head": True}),
    "llama": ("llama", {**ROTARY, "qk_norm": False}),
    "arcee": ("arcee", {**ROTARY, "qk_norm": False, "mlp": "relu2"}),
}
REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "modern": ({"architecture": "modern"}, 'mlp: found "gelu"; allowed: "swiglu" in qwen3'),
    "soft-cap": ({**ROTARY, "logit_softcap": 5.0}, "logit_softcap: found 5.0; allowed: 0.0"),
    "rotary": ({"positions": "rotary"}, 'positions: found "rotary"; allowed: "learned" in gpt2'),
    "rms": ({"norm": "rms"}, 'norm: found "rms"; allowed: "layer" in gpt2'),
    "qk_norm": ({"qk_norm": True}, "qk_norm: found true; allowed: false in gpt2"),
    "relu2": ({"mlp": "relu2"}, 'mlp: found "relu2"; allowed: "gelu" in gpt2'),
    "swiglu": ({"mlp": "swiglu"}, 'mlp: found "swiglu"; allowed: "gelu" in gpt2'),
    "mlp_conv": ({**ROTARY, "mlp_conv": 4}, "mlp_conv: found 4; allowed: 0 in qwen3"),
    "n_kv_head": ({"n_kv_head": 1}, "n_kv_head: found 1; allowed: 2 in gpt2"),
    "bias": ({**ROTARY, "bias": True}, "bias: found true; allowed: false in qwen3"),
    "gelu": ({**ROTARY, "mlp": "gelu"}, 'mlp: found "gelu"; allowed: "swiglu" in qwen3'),
}


@pytest.fixture(autouse=True)
def gguf() -> Any:
    return pytest.importorskip("gguf")


def export(tokenizer: Tokenizer, **knobs: object) -> GPT:
    """Write `model.gguf` of a random model with rows left over and return the model."""
    model = warmed(get_config({**TINY, "vocab_size": 300, **knobs})).eval()
    export_gguf(Checkpoint(model, tokenizer, {}), tokenizer, "model.gguf")
    return model


def read(gguf: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the values and the tensors of `model.gguf`."""
    reader = gguf.GGUFReader("model.gguf")
    values = {key: field.contents() for key, field in reader.fields.items()}
    return values, {each.name: torch.tensor(each.data) for each in reader.tensors}


def layer_norm(x: Tensor, w: dict[str, Tensor], name: str, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps)


def gpt2_by_file(values: dict[str, Any], w: dict[str, Tensor], idx: Tensor) -> Tensor:
    """Return the logits (T, V) of GPT-2's architecture by the file alone, for `idx` (T,)."""
    eps, heads = values["gpt2.attention.layer_norm_epsilon"], values["gpt2.attention.head_count"]
    x = w["token_embd.weight"][idx] + w["position_embd.weight"][: len(idx)]

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    for layer in range(values["gpt2.block_count"]):
        block = f"blk.{layer}."
        qkv = linear(layer_norm(x, w, f"{block}attn_norm", eps), f"{block}attn_qkv")
        q, k, v = (part.view(len(idx), heads, -1).transpose(0, 1) for part in qkv.chunk(3, -1))
        y = F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]
        x = x + linear(y.transpose(0, 1).flatten(1), f"{block}attn_output")
        h = linear(layer_norm(x, w, f"{block}ffn_norm", eps), f"{block}ffn_up")
        x = x + linear(F.gelu(h, approximate="tanh"), f"{block}ffn_down")
    x = layer_norm(x, w, "output_norm", eps)
    return x @ w.get("output.weight", w["token_embd.weight"]).T


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], weight, eps)


def rotated(x: Tensor, base: float, *, in_pairs: bool) -> Tensor:
    """Return `x` (H, T, D) turned by position, channels 2i with 2i + 1, or i with i + D/2."""
    H, T, D = x.shape
    angles = torch.arange(T)[:, None] * base ** (-torch.arange(0, D, 2) / D)
    pairs = x.view(H, T, D // 2, 2) if in_pairs else x.view(H, T, 2, D // 2).transpose(2, 3)
    turned = torch.view_as_real(torch.view_as_complex(pairs.contiguous()) * torch.exp(1j * angles))
    return (turned if in_pairs else turned.transpose(2, 3)).reshape(H, T, D)


def rotary_by_file(values: dict[str, Any], w: dict[str, Tensor], idx: Tensor) -> Tensor:
    """Return the logits (T, V) of a model like Llama by the file alone, for `idx` (T,)."""
    name = values["general.architecture"]
    eps = values[f"{name}.attention.layer_norm_rms_epsilon"]
    heads, base = values[f"{name}.attention.head_count"], values[f"{name}.rope.freq_base"]
    x = w["token_embd.weight"][idx]
    for layer in range(values[f"{name}.block_count"]):
        p = {key.removeprefix(f"blk.{layer}."): tensor for key, tensor in w.items()}
        h = rms_norm(x, p["attn_norm.weight"], eps)
        size = values[f"{name}.attention.key_length"]
        q, k, v = (
            (h @ p[f"attn_{each}.weight"].T).view(len(idx), -1, size).transpose(0, 1)
            for each in "qkv"
        )
        if name == "qwen3":
            q, k = (rms_norm(t, p[f"attn_{n}_norm.weight"], eps) for t, n in ((q, "q"), (k, "k")))
        q, k = (rotated(t, base, in_pairs=name != "qwen3") for t in (q, k))
        k, v = (t.repeat_interleave(heads // len(t), 0) for t in (k, v))
        y = F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]
        x = x + y.transpose(0, 1).flatten(1) @ p["attn_output.weight"].T
        h = rms_norm(x, p["ffn_norm.weight"], eps)
        up, gate = h @ p["ffn_up.weight"].T, p.get("ffn_gate.weight")
        up = F.relu(up).square() if gate is None else F.silu(h @ gate.T) * up
        x = x + up @ p["ffn_down.weight"].T
    x = rms_norm(x, w["output_norm.weight"], eps)
    return x @ w.get("output.weight", w["token_embd.weight"]).T


@pytest.mark.parametrize("case", list(ALLOWED))
def test_the_file_alone_computes_our_logits(case: str, gguf: Any) -> None:
    architecture, knobs = ALLOWED[case]
    model = export(CHAR, **knobs)
    values, tensors = read(gguf)
    assert values["general.architecture"] == architecture
    assert values[f"{architecture}.context_length"] == model.config.block_size
    by_file = gpt2_by_file if architecture == "gpt2" else rotary_by_file
    idx = torch.randint(CHAR.size, (16,))
    with torch.no_grad():
        expected = model(idx[None])[0]
    logits = by_file(values, tensors, idx)
    torch.testing.assert_close(logits[:, : CHAR.size], expected[:, : CHAR.size])
    # the token that ends texts is never the likeliest
    assert logits.shape[1] == CHAR.size + 1
    assert (logits[:, CHAR.size] < logits[:, : CHAR.size].max(1).values).all()


@pytest.mark.parametrize("case", list(REFUSED))
def test_a_model_that_llama_cpp_has_no_equal_for_is_refused_with_its_knob(case: str) -> None:
    knobs, expected = REFUSED[case]
    with pytest.raises(ConfigError) as error:
        export(CHAR, **knobs)
    assert expected in str(error.value)
    assert "the nearest architecture of llama.cpp" in str(error.value)
    assert list(Path().iterdir()) == []


def spelt(token: str) -> bytes:
    return bytes(BYTES[character] for character in token)


@pytest.mark.parametrize("name", list(TOKENIZERS))
def test_tokens_stand_for_the_same_bytes_and_one_ends_texts(name: str, gguf: Any) -> None:
    tokenizer = TOKENIZERS[name]
    export(tokenizer)
    values, _ = read(gguf)
    tokens, types = values["tokenizer.ggml.tokens"], values["tokenizer.ggml.token_type"]
    end = values["tokenizer.ggml.eos_token_id"]
    assert tokens[end] == "<|endoftext|>"
    assert [at for at, kind in enumerate(types) if kind == gguf.TokenType.CONTROL] == [end]
    assert values["tokenizer.ggml.add_bos_token"] is False
    for number in tokenizer.encode(TEXT).tolist():
        assert spelt(tokens[number]) == tokenizer.token_bytes(number)


def merged(word: str, merges: list[str]) -> list[bytes]:
    """Return the bytes of the parts of `word` after all merges, the first made first."""
    ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(merges)}
    parts = [BYTE_CHARACTERS[byte] for byte in word.encode()]
    while found := [(ranks[pair], at) for at, pair in enumerate(pairwise(parts)) if pair in ranks]:
        _, at = min(found)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return [spelt(part) for part in parts]


@pytest.mark.parametrize("name", list(TOKENIZERS))
def test_the_merges_make_our_tokens(name: str, gguf: Any) -> None:
    tokenizer = TOKENIZERS[name]
    export(tokenizer)
    values, _ = read(gguf)
    merges = values["tokenizer.ggml.merges"]
    assert merges  # llama.cpp reads no file without
    for word in ("the", "é", "日", "🙂", "—", " ", "\n"):
        tokens = tokenizer.encode(word).tolist()
        assert merged(word, merges) == [*map(tokenizer.token_bytes, tokens)]
    assert len(merged("ÿ", merges)) == 2  # a character that char does not know is not made one


def test_a_file_is_written_alike_each_time_and_over_an_older_one() -> None:
    export(CHAR)
    before = Path("model.gguf").read_bytes()
    export(CHAR)
    assert Path("model.gguf").read_bytes() == before
    assert [path.name for path in Path().iterdir()] == ["model.gguf"]


def test_a_tensor_that_is_not_read_back_is_named(gguf: Any) -> None:
    export(CHAR)
    _, tensors = read(gguf)
    tensors["output_norm.bias"] = tensors["output_norm.bias"] + 1
    with pytest.raises(CheckpointError, match=r"model\.gguf: output_norm\.bias: read back otherwi"):
        gguf_out.check_gguf(gguf, Path("model.gguf"), tensors)
    del tensors["output_norm.bias"]
    with pytest.raises(CheckpointError, match=r"model\.gguf: output_norm\.bias: was not written"):
        gguf_out.check_gguf(gguf, Path("model.gguf"), tensors)


def test_a_missing_library_and_a_folder_are_one_line_each(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("model.gguf").mkdir()
    with pytest.raises(DataError, match=r"model\.gguf: cannot be written: it is a folder"):
        export(CHAR)
    Path("model.gguf").rmdir()
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ExtraError, match=r"gguf is not installed: .*nanogpt2\[gguf\]"):
        export(CHAR)


@pytest.mark.parametrize("case", ["gpt2 char", "gpt2 byte", "gpt2 bpe", "qwen3 char"])
def test_llama_cpp_reads_the_same_tokens_and_goes_on_as_we_do(case: str) -> None:
    folder = os.environ.get("NODE_LLAMA_CPP")
    if not folder or not shutil.which("node"):
        pytest.skip("llama.cpp is not here: NODE_LLAMA_CPP=FOLDER says where npm installed it")
    architecture, kind = case.split()
    tokenizer = TOKENIZERS[kind]
    model = export(tokenizer, **ALLOWED[architecture][1])
    prompt = tokenizer.encode("the")
    job: dict[str, Any] = {"texts": [TEXT, "the"], "prompts": [prompt.tolist()], "length": 16}
    script = str(ROOT / "benchmarks/export_llama.mjs")
    done = subprocess.run(
        ["node", script, folder, "model.gguf"],
        input=json.dumps(job), capture_output=True, text=True, encoding="utf-8", check=True,
    )  # fmt: skip
    answer = json.loads(done.stdout)
    for text, found in zip(job["texts"], answer["texts"], strict=True):
        assert found == {"tokens": tokenizer.encode(text).tolist(), "text": text}
    (greedy,) = answer["greedy"]
    with torch.no_grad():
        logits = model(torch.tensor([greedy]))[0, len(prompt) - 1 : -1, : tokenizer.size]
    chosen = logits.gather(1, torch.tensor(greedy[len(prompt) :])[:, None])[:, 0]
    # its GELU is a table in float16
    assert (logits.max(1).values - chosen < 1e-2).all()
