"""Text as it comes: whole characters, and no more than a stop string allows."""

from hypothesis import given
from hypothesis import strategies as st

from nanogpt2.sample.stream import TextStream
from nanogpt2.tokens.bpe.bpe import BYTE_CHARACTERS, BytePairTokenizer
from nanogpt2.tokens.tokenizer import ByteTokenizer, CharTokenizer


@given(st.binary(max_size=40), st.integers(1, 5))
def test_the_pieces_make_up_the_text_whatever_the_bytes(content: bytes, size: int) -> None:
    stream = TextStream(ByteTokenizer(), stop=())
    pieces = [stream.push(list(content[at : at + size])) for at in range(0, len(content), size)]
    assert "".join([*pieces, stream.finish()]) == content.decode("utf-8", "replace")


@given(st.text(st.sampled_from("aé日🙂\ufffd"), max_size=20))
def test_no_piece_holds_half_a_character(text: str) -> None:
    stream = TextStream(ByteTokenizer(), stop=())
    for byte in text.encode():
        assert set(stream.push([byte])) <= set(text)


@given(st.lists(st.integers(0, 258), max_size=20), st.integers(1, 5))
def test_tokens_of_several_bytes_show_each_character_as_soon_as_it_is_whole(
    tokens: list[int], size: int
) -> None:
    # " 🙂" without its last byte, and that byte with a letter: characters end within tokens
    merges = ["ð Ł", "ðŁ Ļ", "Ġ ðŁĻ", "Ĥ a"]
    made = [merge.replace(" ", "") for merge in merges]
    tokenizer = BytePairTokenizer([*made, *BYTE_CHARACTERS], merges)
    for part in (tokens, [2, 3, 3, 2, 3]):
        stream = TextStream(tokenizer, stop=())
        pieces = [stream.push(part[at : at + size]) for at in range(0, len(part), size)]
        assert "".join([*pieces, stream.finish()]) == tokenizer.decode(part)
    stream = TextStream(tokenizer, stop=())
    assert [stream.push([token]) for token in (2, 3)] == [" ", "🙂a"]


@given(st.text(st.sampled_from("ab"), max_size=20), st.lists(st.sampled_from(["ab", "bba", "aaa"])))
def test_the_text_ends_before_the_first_stop_string(text: str, stop: list[str]) -> None:
    tokenizer = CharTokenizer("ab")
    stream = TextStream(tokenizer, stop=stop)
    pieces = [stream.push([token]) for token in tokenizer.encode(text).tolist()]
    ends = [end for end in range(len(text) + 1) if any(text[:end].endswith(s) for s in stop)]
    shown = "".join([*pieces, stream.finish()])
    assert stream.stopped == bool(ends)
    if ends:
        longest = max((s for s in stop if text[: ends[0]].endswith(s)), key=len)
        assert shown == text[: ends[0] - len(longest)]
    else:
        assert shown == text


def test_a_stop_string_is_found_across_pieces_and_text_after_it_is_dropped() -> None:
    tokenizer = CharTokenizer("abc\n")
    stream = TextStream(tokenizer, stop=["\n\n"])
    pieces = [stream.push(tokenizer.encode(part).tolist()) for part in ("ab\n", "\nc", "abc")]
    assert pieces == ["ab", "", ""]
    assert stream.finish() == ""
