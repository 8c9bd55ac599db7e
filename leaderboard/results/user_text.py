"""Reading text files that people write: UTF-8, with the byte order mark that editors on Windows put before it, or without."""

from __future__ import annotations

import codecs
from pathlib import Path


def read_user_text(path: Path) -> str:
    """The text of a file, without a byte order mark, its lines ended by `\\n`.

    Raises OSError, and ValueError for another encoding than UTF-8.
    """
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError("it is UTF-16 text by its byte order mark: save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 text ({error}): save it as UTF-8") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")
