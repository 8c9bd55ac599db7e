"""Memory of large arrays goes back to the system, whatever was freed before."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

PROBE = """
import ctypes
import numpy as np
from gauntlet.bench.environment.heap import give_large_arrays_back


class Counts(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in
                ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]


libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Counts
apart = lambda: libc.mallinfo2().hblkhd


def laid_apart(mib):
    before = apart()
    kept.append(np.ones(mib * 2**20, np.uint8))
    return apart() - before >= mib * 2**20


kept = []
first = laid_apart(30)
kept.clear()
second, third = laid_apart(20), laid_apart(20)
give_large_arrays_back()
print(first, second, third, laid_apart(20), laid_apart(20))
"""


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="another C library, or an older one"
)
def test_large_arrays_lie_apart_though_others_of_their_size_were_freed():
    done = subprocess.run([sys.executable, "-c", PROBE], check=True, capture_output=True, text=True)
    # The second and the third show what the C library does by itself.
    assert done.stdout.split() == ["True", "False", "False", "True", "True"]
