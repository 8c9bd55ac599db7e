"""Reading text files that people write: UTF-8, with the byte order mark that editors on Windows put before it, or without."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Final

MOST_BYTES: Final = 2**28
"""Largest size in bytes of a text file that is read."""


def read_user_text(path: Path) -> str:
    """The text of a file, without a byte order mark, its lines ended by `\\n`.

    Raises OSError, and ValueError for another encoding than UTF-8 and for more than `MOST_BYTES`.
    """
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES} bytes, the most that are read of a text file")
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError("it is UTF-16 text by its byte order mark: save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 text ({error}): save it as UTF-8") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")
