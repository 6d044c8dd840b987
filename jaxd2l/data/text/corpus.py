"""Where text comes from: a file, or the English that ships with Python; the book's clean-up."""

import os
import re
from pathlib import Path

BOM = b"\xef\xbb\xbf"


def check_text(text: object, where: str) -> str:
    """`text`, refused unless it is a str that UTF-8 can hold.

    Raises:
      TypeError: not a str.
      ValueError: a lone surrogate (half a character, as from a file read with errors ignored).
    """
    if not isinstance(text, str):
        raise TypeError(f"{where} must be a str, got {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{where} holds a lone surrogate, U+{ord(text[error.start]):04X}, at character "
            f"{error.start}; read the text as UTF-8 (see read_text), or drop it"
        ) from None
    return text


def read_text(path: str | os.PathLike[str], max_bytes: int = 256 << 20) -> str:
    """A UTF-8 text file as one str; a byte order mark is dropped, \\r\\n and \\r become \\n.

    Raises:
      ValueError: a folder, an empty file, bytes that are not UTF-8 or NUL (with the byte offset and
        the line), a file larger than `max_bytes`.
      OSError: the file cannot be opened.

    Source: D2L 9.2.1.

    Example:
      >>> import tempfile
      >>> file = Path(tempfile.mkdtemp()) / "a.txt"
      >>> _ = file.write_bytes(b"The Time Machine\\r\\n")
      >>> read_text(file)
      'The Time Machine\\n'
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path}: this is a folder; name one text file")
    with path.open("rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ValueError(
            f"{path}: more than the limit of {max_bytes:,} bytes; if that is right, raise max_bytes"
        )
    if len(data) == 0 or data == BOM:
        raise ValueError(f"{path}: the file is empty; name a file with text in it")

    def at(offset: int) -> str:
        line = data.count(b"\n", 0, offset) + 1
        return f"{path}, byte {offset} (line {line})"

    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{at(error.start)} is not UTF-8 text: {error.reason}; save the file as UTF-8, for "
            f"example with iconv -f LATIN1 -t UTF-8"
        ) from None
    if (nul := data.find(0)) >= 0:
        raise ValueError(f"{at(nul)} is NUL; this is not a text file")
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def english() -> str:
    """The default corpus: the help topics that ship with Python, about 450,000 characters.

    Real English prose about the language, with some code and grammar in it, topics in alphabetical
    order. It differs between versions of Python.

    Raises:
      ImportError: a Python that was packaged without its help.

    Example:
      >>> english()[:22]
      'The "assert" statement'
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise ImportError(
            "english: this Python comes without pydoc_data, whose text is the default corpus; "
            "name a text file instead"
        ) from error
    return "\n".join(topics[name] for name in sorted(topics))


def normalize(text: str) -> str:
    """The book's clean-up: lower case, and one space for every run of what is no letter a-z.

    Letters with accents are not in a-z and become spaces too, so this is for English only.

    Source: D2L 9.2.1; 28 different characters of The Time Machine with the unknown one.

    Example:
      >>> normalize("The Time Machine, by H. G. Wells [1898]")
      'the time machine by h g wells '
    """
    return re.sub("[^A-Za-z]+", " ", check_text(text, "normalize: text")).lower()
