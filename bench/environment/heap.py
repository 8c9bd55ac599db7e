"""The C library's heap: memory of large arrays goes back to the system as soon as they are freed."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from functools import cache
from typing import Final

_M_MMAP_THRESHOLD: Final = -3
_LARGE: Final = 2**24
"""Bytes of an array that is no longer put between others."""


@cache
def give_large_arrays_back() -> None:
    """Have arrays of `_LARGE` bytes and more lie apart from now on: their memory is free again once they are.

    glibc begins so, but raises that size, up to 32 MiB, to the largest array that was freed (mallopt(3), M_MMAP_THRESHOLD). Then
    smaller ones leave gaps between those that live on, and the peak of a run grows with the number of its groups of large images.
    Another C library is left as it is.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
