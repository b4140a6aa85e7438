"""A tokenizer in files that transformers' AutoTokenizer opens; `tokens.files` reads them back."""

from pathlib import Path

from nanogpt2.base.system import files
from nanogpt2.tokens.description import SpecialTokens, describe, special_tokens
from nanogpt2.tokens.files import SETTINGS, TOKENIZER
from nanogpt2.tokens.tokenizer import Tokenizer


def write_tokenizer(
    tokenizer: Tokenizer, folder: str | Path, *, block_size: int, vocab_size: int | None = None
) -> SpecialTokens:
    """Write `tokenizer` into `folder` for transformers' AutoTokenizer; the same bytes each time.

    Batches are padded with the end of text, with the byte that no text has, or with a row of the
    embedding that the tokenizer leaves over, where a model with `vocab_size` rows has one.
    DataError where a character is half a surrogate pair.
    """
    special = special_tokens(tokenizer, vocab_size or tokenizer.size)
    data = describe(tokenizer, special)
    names = {added["id"]: added["content"] for added in data["added_tokens"]}
    ids = {"bos_token": special.bos, "eos_token": special.eos, "pad_token": special.pad}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": block_size,
        "clean_up_tokenization_spaces": False,  # else spaces before punctuation are lost
        "split_special_tokens": True,  # a special token's name in a text is text
        "padding_side": "left",  # texts go on at the right
        "model_input_names": ["input_ids", "attention_mask"],  # GPT-2 would add up token types
        **{key: names[number] for key, number in ids.items() if number is not None},
    }
    files.write_json(Path(folder, TOKENIZER), data)
    files.write_json(Path(folder, SETTINGS), settings)
    return special
