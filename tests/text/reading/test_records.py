"""Records: the texts in JSON Lines and Parquet, by field, by parts, with the place of an error."""

import gzip
import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanogpt2.base.system.errors import DataError, ExtraError
from nanogpt2.text.reading.records import count_row_groups, kind_of, read_records
from nanogpt2.text.reading.streams import ZSTD

RECORDS = ["one", "", "zwei\n", 'a "b" \\ \u2028 \x85', "🙂é", "\ufeff", "long " * 9]


@pytest.fixture(params=["orjson", "json"], autouse=True)
def _library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test runs with the quick reader of JSON, and where it is not installed."""
    if request.param == "json":
        monkeypatch.setitem(sys.modules, "orjson", None)


def lines(records: list[str], **also: Any) -> bytes:
    return "".join(json.dumps({"id": 1, "text": text, **also}) + "\n" for text in records).encode()


def texts(path: Path, **options: Any) -> list[str]:
    return list(read_records(path, **options))


def problem(path: Path, **options: Any) -> str:
    with pytest.raises(DataError) as error:
        texts(path, **options)
    line = str(error.value)
    assert "\n" not in line
    assert line.startswith(f"{path}: ")
    return line.removeprefix(f"{path}: ")


def test_the_ending_tells_records_from_texts() -> None:
    for name in ("a.jsonl", "A.JSONL", "a.jsonl.gz", "a.JSONL.zst", "a.parquet"):
        assert kind_of(Path(name)) == "records"
    for name in ("a.txt", "a.txt.gz", "a.gz", "jsonl", "a.json", "a.jsonl.txt"):
        assert kind_of(Path(name)) == "text"


# --- JSON Lines ---


def test_a_record_is_a_line_and_its_text_is_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    content = lines(RECORDS, half=float("nan"), large=10**30)
    for form in (
        content,
        content.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + content,
        content.removesuffix(b"\n"),
        b"\n  \n" + content.replace(b"\n", b"\n\n"),
        "".join(json.dumps({"text": t}, ensure_ascii=False) + "\n" for t in RECORDS).encode(),
    ):
        path.write_bytes(form)
        assert texts(path) == RECORDS


def test_another_field_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": 1, "body": "here"}\n', encoding="utf-8")
    assert texts(path, field="body") == ["here"]


def test_packed_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(lines(RECORDS[:3])) + gzip.compress(lines(RECORDS[3:])))
    assert texts(path) == RECORDS
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(pytest.importorskip(ZSTD).compress(lines(RECORDS)))
    assert texts(path) == RECORDS


@given(cuts=st.sets(st.integers(0, 400)), newline=st.booleans())
def test_parts_of_a_file_give_each_record_once(
    cuts: set[int], newline: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "parts.jsonl"
    content = b"\n" + lines(RECORDS).removesuffix(b"" if newline else b"\n")
    path.write_bytes(content)
    bounds = [0, *sorted(cuts), None]
    parts = [
        text
        for start, end in pairwise(bounds)
        for text in read_records(path, start=start or 0, end=end)
    ]
    assert parts == RECORDS


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("plain text", "no JSON: Expecting value; allowed: a JSON object a line"),
        ('{"text": "a', "no JSON: Unterminated string starting at; allowed"),
        ('["text"]', "found a list; allowed: a JSON object a line"),
        ("null", "found null; allowed: a JSON object a line"),
        ('{"body": "a", "id": 3}', "no field 'text'; there are: body, id"),
        ("{}", "no field 'text'; there are: none"),
        ('{"text": 5}', "the field 'text' is a number; allowed: a text"),
        ('{"text": null}', "the field 'text' is null; allowed: a text"),
        ('{"text": true}', "the field 'text' is true or false; allowed: a text"),
        ('{"text": {"en": "a"}}', "the field 'text' is an object; allowed: a text"),
        ('{"text": "\\ud83d"}', "the field 'text' holds half a surrogate pair"),
        ("[" * 100_000, "JSON nested too deeply"),
        (b'{"text": "gr\xf6\xdfer"}', "not UTF-8 text (byte 12 of the line)"),
        ('{"text": "a"}'.encode("utf-16"), "not UTF-8 text (byte 0 of the line)"),
    ],
)
def test_a_line_that_is_no_record_is_told_with_its_number(
    line: str | bytes, expected: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    before = b"\n" + lines(RECORDS)
    content = line if isinstance(line, bytes) else line.encode()
    path.write_bytes(before + content + b"\n" + lines(RECORDS))
    number = len(RECORDS) + 2
    assert problem(path).startswith(f"line {number}: {expected}")
    for start in (1, 2, len(before) - 1, len(before)):
        assert problem(path, start=start).startswith(f"line {number}: {expected}")
    assert texts(path, end=len(before)) == RECORDS
    assert texts(path, start=len(before) + 1) == RECORDS


def test_a_json_array_of_all_records_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps([{"text": "a"}], indent=2), encoding="utf-8")
    assert problem(path).startswith("line 1: no JSON")


# --- Parquet ---


@pytest.fixture
def arrow() -> Any:
    pytest.importorskip("pyarrow.parquet", reason="needs the extra parquet")
    return pytest.importorskip("pyarrow")


def save(arrow: Any, path: Path, column: Any, *, name: str = "text", **options: Any) -> Path:
    table = arrow.table({"id": list(range(len(column))), name: column})
    arrow.parquet.write_table(table, path, **options)
    return path


@pytest.mark.parametrize("kind", ["string", "large_string", "dictionary"])
@pytest.mark.parametrize("compression", ["snappy", "zstd"])
def test_a_table_is_read_row_by_row(
    kind: str, compression: str, arrow: Any, tmp_path: Path
) -> None:
    column = arrow.array(RECORDS * 50)
    column = column.dictionary_encode() if kind == "dictionary" else column.cast(kind)
    path = save(arrow, tmp_path / "a.parquet", column, row_group_size=60, compression=compression)
    assert texts(path) == RECORDS * 50
    assert count_row_groups(path) == 6
    assert texts(path, start=1, end=3) == (RECORDS * 50)[60:180]
    assert texts(path, start=5) == (RECORDS * 50)[300:]


def test_a_table_without_rows_gives_nothing(arrow: Any, tmp_path: Path) -> None:
    assert texts(save(arrow, tmp_path / "a.parquet", arrow.array([], "string"))) == []


def test_a_column_that_is_no_text_is_told(arrow: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    for column, expected in (
        (arrow.array([1]), "the field 'text' is of the type int64; allowed: string"),
        (arrow.array([["a"]]), "the field 'text' is of the type list<"),
        (arrow.array([{"en": "a"}]), "the field 'text' is of the type struct<en: string>"),
        (arrow.array([b"a"]), "the field 'text' is of the type binary"),
    ):
        assert problem(save(arrow, path, column)).startswith(expected)


def test_a_column_that_is_not_there_is_told(arrow: Any, tmp_path: Path) -> None:
    path = save(arrow, tmp_path / "a.parquet", arrow.array([{"en": "a"}]))
    assert problem(path, field="body") == "no field 'body'; there are: id, text"
    assert problem(path, field="text.en") == (
        "no field 'text.en'; there are: id, text; a field within another is not read"
    )


def test_a_column_whose_name_has_a_dot_is_no_nested_one(arrow: Any, tmp_path: Path) -> None:
    path = save(arrow, tmp_path / "a.parquet", arrow.array(["a"]), name="text.en")
    assert texts(path, field="text.en") == ["a"]


def test_a_row_without_text_has_its_number(arrow: Any, tmp_path: Path) -> None:
    column = arrow.array([*RECORDS, None], "string")
    path = save(arrow, tmp_path / "a.parquet", column, row_group_size=3)
    expected = f"row {len(RECORDS) + 1}: the field 'text' is null; allowed: a text"
    assert problem(path) == problem(path, start=1) == expected


def test_a_damaged_table_is_told(arrow: Any, tmp_path: Path) -> None:
    path = save(arrow, tmp_path / "a.parquet", arrow.array(RECORDS * 500))
    whole = path.read_bytes()
    for content in (b"", b"PAR1", b"no table at all", whole[:-9], whole[100:]):
        path.write_bytes(content)
        assert problem(path).startswith("no Parquet table, or a damaged one: ")


def test_without_its_library_one_line_says_what_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ExtraError, match=r"pyarrow is not installed: .*nanogpt2\[parquet\]"):
        texts(tmp_path / "a.parquet")
