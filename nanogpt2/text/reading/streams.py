"""Files as streams of bytes in bounded memory: unpacked, and brought to UTF-8 where one asks."""

import codecs
import gzip
import io
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

from nanogpt2.base.system.errors import DataError
from nanogpt2.base.system.extras import import_extra
from nanogpt2.config.yaml12 import printable
from nanogpt2.text.reading.encoding import find_codec, is_ascii

BLOCK_BYTES = 2**20
MAKE_ANEW = "make it anew"
# Python 3.14 has the same library as its own
ZSTD = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"


def open_bytes(path: Path) -> BinaryIO:
    """Return the content of a file as a stream, unpacked where its name ends in .gz or .zst.

    All members and frames of an archive are read. Opening and reading raise DataError, naming the
    file, where it cannot be read or its archive is damaged or cut; ExtraError where the library
    for .zst is missing.
    """
    unpack, damage = _find_unpacker(path)
    try:
        file = path.open("rb", buffering=0)
    except OSError as error:
        raise DataError(printable(f"{path}: cannot be read: {error.strerror}")) from error
    return io.BufferedReader(_Named(file, unpack(file), path, damage), BLOCK_BYTES)


def packing(path: Path) -> str:
    """Return the name of the archive, gzip or zstd, that a file is by its ending; else none."""
    return {".gz": "gzip", ".zst": "zstd"}.get(path.suffix.lower(), "")


def _find_unpacker(path: Path) -> tuple[Callable[[Any], Any], tuple[type[Exception], ...]]:
    """Return what unpacks the stream of a file, and the errors that mean a damaged archive."""
    if packing(path) == "gzip":
        damage = (gzip.BadGzipFile, zlib.error, EOFError)
        return lambda file: gzip.GzipFile(fileobj=file, mode="rb"), damage
    if packing(path) == "zstd":
        zstd = import_extra(ZSTD, extra="zst")
        return zstd.ZstdFile, (zstd.ZstdError, EOFError)
    return lambda file: file, ()


class _Named(io.RawIOBase):
    """The content of a file, as `source` gives it, with DataErrors that name the file."""

    def __init__(
        self, file: io.FileIO, source: Any, path: Path, damage: tuple[type[Exception], ...]
    ) -> None:
        self.file, self.source, self.path, self.damage = file, source, path, damage

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return not packing(self.path)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return int(self.source.seek(offset, whence))

    def readinto(self, buffer: Any) -> int:
        try:
            return int(self.source.readinto(buffer))
        except self.damage as error:
            problem = "is cut off" if isinstance(error, EOFError) else "is none, or damaged"
            line = f"{self.path}: the {packing(self.path)} archive {problem}; {MAKE_ANEW}"
            raise DataError(printable(line)) from error
        except OSError as error:
            line = f"{self.path}: cannot be read: {error.strerror or error}"
            raise DataError(printable(line)) from error

    def close(self) -> None:
        self.source.close()
        self.file.close()
        super().close()


def open_utf8(
    path: Path, *, any_encoding: bool = False, say: Callable[[str], object] | None = None
) -> BinaryIO:
    """Return `open_bytes`, and with `any_encoding` what it reads in UTF-8.

    The encoding is the likeliest for the first bytes that are not ASCII (`find_codec`); `say` is
    told Python's name of one that is not UTF-8. Where none fits, the bytes stay as they are. What
    breaks the rules of the encoding later raises DataError with its place.
    """
    stream = open_bytes(path)
    return io.BufferedReader(_Utf8(stream, path, say), BLOCK_BYTES) if any_encoding else stream


def count_newlines(path: Path, size: int, *, any_encoding: bool = False) -> int:
    """Return how many newlines are in the first `size` bytes of what `open_utf8` gives."""
    newlines = 0
    with open_utf8(path, any_encoding=any_encoding) as file:
        while block := file.read(min(BLOCK_BYTES, size)):
            newlines += block.count(b"\n")
            size -= len(block)
    return newlines


class _Utf8(io.RawIOBase):
    """A stream in UTF-8 of a stream in an encoding that its own bytes tell."""

    def __init__(self, source: BinaryIO, path: Path, say: Callable[[str], object] | None) -> None:
        self.source, self.path, self.say = source, path, say
        self.codec, self.decoder = "", cast("codecs.IncrementalDecoder | None", None)
        self.as_it_is = False  # an encoding was looked for, and the bytes stay
        self.ready = memoryview(b"")
        self.bytes, self.lines = 0, 0  # decoded so far, of the source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = b"begin"
        while block and not self.ready:
            block = self.source.read(BLOCK_BYTES)
            self.ready = memoryview(self._to_utf8(block))
        size = min(len(buffer), len(self.ready))
        buffer[:size], self.ready = self.ready[:size], self.ready[size:]
        return size

    def close(self) -> None:
        self.source.close()
        super().close()

    def _to_utf8(self, block: bytes) -> bytes:
        if self.decoder is None and not self.as_it_is and not is_ascii(block):
            block += self.source.read(BLOCK_BYTES)  # more to tell the encoding by
            codec = find_codec(block)
            self.as_it_is = codec in ("utf-8", None)
            if codec is not None and not self.as_it_is:
                self.codec, self.decoder = codec, codecs.getincrementaldecoder(codec)()
                if self.say:
                    self.say(codec)
        text = self._decode(block) if self.decoder else None
        self.bytes += len(block)
        if text is None:
            self.lines += block.count(b"\n") if not self.as_it_is else 0
            return block
        self.lines += text.count("\n")
        return text.encode("utf-8")

    def _decode(self, block: bytes) -> str:
        """Return the text of the next `block`, empty at the end; DataError where it is none."""
        decoder = self.decoder
        assert decoder is not None
        before = decoder.getstate()
        try:
            return decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            at = error.start - len(before[0])  # what waited for its rest comes first
            decoder.setstate(before)
            line = self.lines + 1 + decoder.decode(block[: max(0, at)]).count("\n")
            problem = f"not {self.codec} text (line {line}, byte {self.bytes + at})"
            raise DataError(
                printable(f"{self.path}: {problem}, though it begins so; mend that place")
            ) from error
