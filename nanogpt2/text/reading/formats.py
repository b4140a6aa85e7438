"""Files that are named like a text and are none: known by their bytes, and what to do."""

from typing import NamedTuple


class Format(NamedTuple):
    """What `signature` at byte `start` of a file says: its format, and what to do about it."""

    start: int
    signature: bytes
    name: str
    advice: str


OPEN = "open it and save it as plain text in UTF-8"
UNPACK = "unpack it, and put the texts that are in it here"
REMOVE = "remove it"
ZIP, OFFICE, VIDEO = "a zip archive", "a Word or Office file", "a video or a recording"

# The first that fits; a mark that could be the beginning of a plain text is as long as it takes.
FORMATS = (
    Format(0, b"\x1f\x8b", "a gzip archive", f"name it .txt.gz, or {UNPACK}"),
    Format(4, b"1AY&SY", "a bzip2 archive", UNPACK),
    Format(0, b"\xfd7zXZ\0", "an xz archive", UNPACK),
    Format(0, b"\x28\xb5\x2f\xfd", "a zstd archive", f"name it .txt.zst, or {UNPACK}"),
    Format(0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    Format(0, b"Rar!\x1a\x07", "a rar archive", UNPACK),
    Format(0, b"\x04\x22\x4d\x18", "an lz4 archive", UNPACK),
    Format(0, b"\x1f\x9d", "a compress archive", UNPACK),
    Format(257, b"ustar\0", "a tar archive", UNPACK),
    Format(257, b"ustar  \0", "a tar archive", UNPACK),
    Format(30, b"mimetypeapplication/epub", "an EPUB book", OPEN),
    Format(30, b"mimetypeapplication/vnd.oasis", "an OpenDocument file", OPEN),
    Format(0, b"PK\x03\x04", ZIP, UNPACK),
    Format(0, b"PK\x05\x06", "an empty zip archive", REMOVE),
    Format(60, b"BOOKMOBI", "a Kindle book", OPEN),
    Format(0, b"AT&TFORM\0", "a DjVu book", "take its text out, as djvutxt does"),
    Format(0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", OFFICE, OPEN),
    Format(0, b"%PDF-", "a PDF file", "take its text out, as pdftotext does"),
    Format(0, b"{\\rtf1", "an RTF file", OPEN),
    Format(0, b"bplist00", "a property list of macOS", OPEN),
    Format(0, b"\0\x05\x16\x07", "what macOS keeps beside a file", REMOVE),
    Format(0, b"\x89PNG\r\n", "a PNG picture", REMOVE),
    Format(0, b"\xff\xd8\xff", "a JPEG picture", REMOVE),
    Format(0, b"GIF87a", "a GIF picture", REMOVE),
    Format(0, b"GIF89a", "a GIF picture", REMOVE),
    Format(8, b"WAVEfmt ", "a WAV recording", REMOVE),
    Format(8, b"WEBPVP8", "a WebP picture", REMOVE),
    Format(0, b"ID3\x03\0", "an MP3 recording", REMOVE),
    Format(0, b"ID3\x04\0", "an MP3 recording", REMOVE),
    Format(0, b"\xff\xfb\x90", "an MP3 recording", REMOVE),
    Format(0, b"fLaC\0", "a FLAC recording", REMOVE),
    Format(0, b"\0\0\0\x18ftyp", VIDEO, REMOVE),
    Format(0, b"\0\0\0\x1cftyp", VIDEO, REMOVE),
    Format(0, b"\0\0\0\x20ftyp", VIDEO, REMOVE),
    Format(0, b"II*\0", "a TIFF picture", REMOVE),
    Format(0, b"MM\0*", "a TIFF picture", REMOVE),
    Format(0, b"OggS\0", "an Ogg recording", REMOVE),
    Format(0, b"SQLite format 3\0", "an SQLite database", REMOVE),
    Format(0, b"PAR1\x15", "a Parquet table", "name it .parquet"),
    Format(0, b"ARROW1\0", "an Arrow table", "write the texts in it to .txt files"),
    Format(0, b"\x89HDF\r\n", "an HDF5 file", REMOVE),
    Format(0, b"\x93NUMPY", "a NumPy array", REMOVE),
    Format(0, b"\x7fELF", "a program", REMOVE),
    Format(0, b"MZ\x90\0", "a program", REMOVE),
    Format(
        *(0, b"version https://git-lfs.github.com/spec/v1\n"),
        *("a pointer to a file in git LFS", "fetch the text itself: git lfs pull"),
    ),
    Format(
        0, b"/annex/objects/", "a pointer to a file in git-annex", "fetch the text: git annex get"
    ),
)


def name_format(content: bytes) -> Format | None:
    """Return the format that `content` shows by its first bytes, or None where it is none."""
    found = next((each for each in FORMATS if content.startswith(each.signature, each.start)), None)
    if found and found.name == ZIP and b"[Content_Types].xml" in content:
        return found._replace(name=OFFICE, advice=OPEN)
    return found
