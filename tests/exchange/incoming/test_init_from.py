"""What is known of `init_from` before a run, and what the stage init writes."""

from pathlib import Path
from typing import Any

import pytest
from variants import warmed

from nanogpt2.base.system.errors import CheckpointError, ConfigError
from nanogpt2.config.config import Config, get_config
from nanogpt2.exchange.incoming.init_from import check_init, open_init, write_start
from nanogpt2.model.checkpoint import save_checkpoint
from nanogpt2.text.survey.preflight import check_tokens
from nanogpt2.tokens.tokenizer import CharTokenizer

KNOWN = CharTokenizer("\nabcdef")


def save(path: Path, config: Config, tokenizer: CharTokenizer | None = KNOWN) -> Path:
    model = warmed(config)
    save_checkpoint(path, model.state_dict(), config, tokenizer=tokenizer, origin={})
    return path


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"lora_rank": 2}, "lora_rank: found 2; allowed: 0 from scratch"),
        ({"freeze": ["h.7"]}, "freeze: found h.7; allowed: the start of"),
        (
            {"tokenizer": "from_init"},
            "tokenizer: found from_init; allowed: another from scratch, such as char",
        ),
    ],
)
def test_new_weights_are_not_fine_tuned(tiny: Config, values: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match=f"^{line}"):
        check_init(get_config(tiny, **values))
    check_init(get_config(tiny, freeze=["h.0"]))


def test_a_text_and_a_prompt_that_the_tokenizer_of_the_weights_does_not_know_are_told(
    tiny: Config, tmp_path: Path
) -> None:
    base, corpus = save(tmp_path / "base.pt", tiny), tmp_path / "text.txt"
    asked = {"init_from": str(base), "tokenizer": "from_init", "corpus": str(corpus)}

    def check(text: str, prompt: str) -> None:
        corpus.write_text(text, encoding="utf-8")
        check_init(get_config(tiny, **asked, sample={"prompt": prompt}), check_tokens=check_tokens)

    check("bad\nface", "bed")
    with pytest.raises(ConfigError) as caught:
        check("bad\nfacet", "be€d")
    assert str(caught.value).splitlines() == [
        f"tokenizer: the tokenizer of init_from does not know 't' (U+0074); allowed: byte for"
        f" {corpus}",
        "sample.prompt: the tokenizer of init_from does not know '€' (U+20AC); allowed: what"
        " init_from knows",
    ]


def test_lora_on_tokens_that_would_start_anew_is_refused_before_the_run(
    tiny: Config, tmp_path: Path
) -> None:
    asked = {"init_from": str(save(tmp_path / "base.pt", tiny)), "lora_rank": 2}
    check_init(get_config(tiny, **asked))
    with pytest.raises(ConfigError, match=r"lora_rank: found 2; allowed: 0, since 7 of 256"):
        check_init(get_config(tiny, **asked, tokenizer="byte", vocab_size=256))
    save(tmp_path / "base.pt", tiny, None)
    with pytest.raises(ConfigError, match=r"0, since init_from has no tokenizer: all tokens"):
        check_init(get_config(tiny, **asked))


def test_how_the_weights_were_trained_is_not_in_the_file_to_start_from(
    tiny: Config, tmp_path: Path
) -> None:
    written = []
    for number, rate in enumerate((1e-3, 2e-3)):
        base = save(tmp_path / f"{number}.pt", get_config(tiny, learning_rate=rate))
        write_start(str(base), tmp_path / "model.pt", tmp_path / "tokenizer.json")
        written.append((tmp_path / "model.pt").read_bytes())
    assert written[0] == written[1]


@pytest.mark.parametrize("name", ["gpt2", "openai-community/gpt2", "../gpt2", "./a/b", "base"])
def test_what_the_hub_may_have_is_told_how_to_bring(name: str) -> None:
    with pytest.raises(CheckpointError, match="no such file or folder") as caught:
        open_init(name)
    assert ("import" in str(caught.value)) == (name in ("gpt2", "openai-community/gpt2"))
