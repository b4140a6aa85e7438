"""Records: the texts in JSON Lines files (https://jsonlines.org) and Parquet tables, as they stand.

They are not normalised.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any, Literal, cast

from nanogpt2.base.system.errors import DataError
from nanogpt2.base.system.extras import import_extra
from nanogpt2.base.system.words import name_some
from nanogpt2.config.yaml12 import printable
from nanogpt2.text.reading.streams import (
    BLOCK_BYTES,
    MAKE_ANEW,
    count_newlines,
    open_bytes,
    packing,
)

FIELD = "text"  # what most data sets call it
MOST_LINE_BYTES = 2**28  # of one record, which is held whole
MOST_NAMED = 10  # fields that an error names
BATCH_ROWS = 128  # of a table, which are in memory together
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def kind_of(path: Path) -> Literal["text", "records"]:
    """Return what a file holds, by the ending of its name: one text, or records with a text each.

    What has another ending is taken for a text.
    """
    return "records" if is_table(path) or _is_lines(path) else "text"


def is_table(path: Path) -> bool:
    """Return whether a file is a .parquet table."""
    return path.suffix.lower() == ".parquet"


def _is_lines(path: Path) -> bool:
    return (path.with_suffix("") if packing(path) else path).suffix.lower() == ".jsonl"


def read_records(
    path: Path, *, field: str = FIELD, start: int = 0, end: int | None = None
) -> Iterator[str]:
    """Yield the text `field` of each record of a .jsonl file, packed or not, or a .parquet table.

    `start` and `end` bound what is read: the lines that begin in these bytes of an unpacked
    .jsonl, the row groups of a table. Raises DataError with the file and the line or row where a
    line is no JSON object, or `field` is missing or no text; ExtraError where the library for the
    kind of file is missing. Memory is bounded by the longest record.
    """
    if is_table(path):
        return _read_table(path, field, start, end)
    assert not (packing(path) and (start or end)), "the bytes of an archive are no lines"
    return _read_lines(path, field, start, end)


# --- JSON Lines ---


def _read_lines(path: Path, field: str, start: int, end: int | None) -> Iterator[str]:
    number, quick = 0, _find_orjson()
    try:
        for line in _lines(path, start, end):
            number += 1
            if line.isspace():
                continue
            value = _parse(line.removeprefix(BYTE_ORDER_MARK), quick)
            text = value.get(field) if isinstance(value, dict) else None
            if not isinstance(text, str):
                raise _RecordError(_explain(value, field))
            if b"\\u" in line and not _is_whole(text):
                raise _RecordError(f"the field {field!r} holds half a surrogate pair")
            yield text
    except _RecordError as error:
        number += 1 + count_newlines(path, start - 1) if start else 0
        raise DataError(printable(f"{path}: line {number}: {error}")) from error


class _RecordError(Exception):
    """What is wrong with one record."""


def _lines(path: Path, start: int, end: int | None) -> Iterator[bytes]:
    """Yield the lines that begin in the bytes from `start` to before `end`."""
    with open_bytes(path) as file:
        if start:
            file.seek(start - 1)
            start += len(file.readline()) - 1
        while end is None or start < end:
            line = file.readline(MOST_LINE_BYTES)
            if not line:
                return
            if len(line) == MOST_LINE_BYTES:
                raise _RecordError(f"longer than {MOST_LINE_BYTES} bytes; write a record a line")
            yield line
            start += len(line)


def _parse(line: bytes, quick: Callable[[bytes], Any] | None) -> Any:
    """Return the JSON value of a line; _RecordError where it is none."""
    try:
        return quick(line) if quick else _parse_slowly(line)
    except ValueError:
        return _parse_slowly(line)  # Python's own reader takes more, such as NaN


def _parse_slowly(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8").rstrip("\r\n"))
    except UnicodeDecodeError as error:
        raise _RecordError(f"not UTF-8 text (byte {error.start} of the line)") from error
    except RecursionError as error:
        raise _RecordError("JSON nested too deeply") from error
    except ValueError as error:  # also a number of more digits than Python reads
        reason = str(error).partition(": line 1 ")[0]
        raise _RecordError(f"no JSON: {reason}; allowed: a JSON object a line") from error


def _find_orjson() -> Callable[[bytes], Any] | None:
    """Return a reader that is two to three times as quick as Python's, where it is installed."""
    try:
        return cast("Callable[[bytes], Any]", import_module("orjson").loads)
    except ImportError:
        return None


def _explain(value: Any, field: str) -> str:
    """Return why a JSON value is no record with a text `field`."""
    if not isinstance(value, dict):
        return f"found {_kind(value)}; allowed: a JSON object a line"
    if field not in value:
        return _name_missing(field, list(value))
    return f"the field {field!r} is {_kind(value[field])}; allowed: a text"


def _is_whole(text: str) -> bool:
    """Return whether `text` holds no half of a surrogate pair."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _name_missing(field: str, there: list[str]) -> str:
    """Say that there is no such field, and which there are."""
    return f"no field {field!r}; there are: {name_some(there, MOST_NAMED) or 'none'}"


def _kind(value: Any) -> str:
    """Return what JSON calls a value."""
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    return "null" if value is None else kinds.get(type(value), "a number")


# --- Parquet ---


def count_row_groups(path: Path) -> int:
    """Return how many row groups a .parquet table has; DataError where it is none."""
    with _open_table(path) as table:
        return int(table.num_row_groups)


def _read_table(path: Path, field: str, start: int, end: int | None) -> Iterator[str]:
    with _open_table(path) as table:
        names = table.schema_arrow.names
        if names.count(field) != 1:
            raise DataError(printable(f"{path}: {_name_wrong(field, names)}"))
        column = str(table.schema_arrow.field(field).type)
        if "string" not in column or "<" in column.removeprefix("dictionary<"):
            problem = f"the field {field!r} is of the type {column}; allowed: string"
            raise DataError(printable(f"{path}: {problem}"))
        groups = range(table.num_row_groups)[start:end]
        first = sum(table.metadata.row_group(group).num_rows for group in range(start))
        numbers = count(first + 1)
        for batch in table.iter_batches(
            BATCH_ROWS, row_groups=groups, columns=[field], use_threads=False
        ):
            for number, text in zip(numbers, batch.column(0).to_pylist(), strict=False):
                if text is None:
                    problem = f"row {number}: the field {field!r} is null; allowed: a text"
                    raise DataError(printable(f"{path}: {problem}"))
                yield text


def _name_wrong(field: str, names: list[str]) -> str:
    if field in names:
        return f"{names.count(field)} fields are called {field!r}; allowed: one"
    nested = field.partition(".")[0] in names
    return _name_missing(field, names) + "; a field within another is not read" * nested


@contextmanager
def _open_table(path: Path) -> Iterator[Any]:
    """Open a Parquet file; an error while it is open becomes one line that names it."""
    library = import_extra("pyarrow", extra="parquet")
    parquet = import_extra("pyarrow.parquet", extra="parquet")
    # buffered, as a column of a row group would be read whole otherwise
    buffered = {"buffer_size": BLOCK_BYTES, "pre_buffer": False}
    try:
        with parquet.ParquetFile(str(path), **buffered) as table:
            yield table
    except (OSError, UnicodeDecodeError, library.ArrowException) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        line = f"{path}: no Parquet table, or a damaged one: {reason}; {MAKE_ANEW}"
        raise DataError(printable(line)) from error
