"""A ReLU network over one box as a mixed-integer program: Tjeng, Xiao, Tedrake, ICLR 2019, arXiv 1711.07356."""

from __future__ import annotations

import ctypes
import itertools
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from gauntlet.defenses.certificates.relu_network import Network

Array: TypeAlias = NDArray[np.float64]
_ENTRIES = 2**26
_STDOUT = 1
_silence = threading.Lock()


@dataclass(frozen=True, eq=False)
class Program:
    """The program of a region: a @ v <= b, 0 <= v <= 1, logits = map @ v + offset; the first variables are pixels."""

    a: Array
    b: Array
    integer: NDArray[np.int64]
    """1 for binary variables, else 0."""
    map: Array
    offset: Array


def fits(net: Network) -> bool:
    """Whether `dense` supports every stage of the network."""
    return all(inputs * outputs <= _ENTRIES for inputs, outputs in itertools.pairwise(net.widths))


def dense(net: Network, k: int) -> tuple[Array, Array]:
    """Weights and bias of stage `k` as dense matrices. Raises ValueError if they would not fit into memory."""
    inputs, outputs = net.widths[k], net.widths[k + 1]
    if inputs * outputs > _ENTRIES:
        raise ValueError(
            f"a layer maps {inputs} values to {outputs}: the integer program takes matrices of {_ENTRIES} entries at most; "
            "use gauntlet.defenses.certificates.ibp_crown_bounds.margin_bounds for larger networks"
        )
    row, bias = torch.eye(outputs, dtype=torch.float64), torch.zeros(outputs, dtype=torch.float64)
    for affine in reversed(net.stages[k]):
        bias = bias + row @ affine.bias
        row = affine.pull(row)
    return row.numpy(), bias.numpy()


def program(
    matrices: Sequence[tuple[Array, Array]], box: tuple[Array, Array], hidden: Sequence[tuple[Array, Array]]
) -> Program:
    """Build the program of a sample's region; all variables are in [0, 1], so that HiGHS' tolerances are relative.

    A ReLU with input h in [low, high], low < 0 < high, becomes high · a with a >= 0, high · a >= h, a <= d and
    high · a <= h - low · (1 - d), where d is the binary (section 4.1); the others are linear and need no variables.

    `matrices`: weights and bias of each stage, from `dense`. `box`: smallest and largest pixels, (D,). `hidden`: bounds
    of the inputs of each ReLU.
    """
    split = [(low < 0) & (high > 0) for low, high in hidden]
    low, high = box
    pixels, binaries = len(low), int(sum(s.sum() for s in split))
    integer = np.zeros(pixels + 2 * binaries, dtype=np.int64)
    value, constant = np.zeros((pixels, len(integer))), low
    value[:, :pixels] = np.diag(high - low)
    a, b, used = [np.zeros((0, len(integer)))], [np.zeros(0)], pixels
    for (weight, bias), (low, high), both in zip(matrices, hidden, split, strict=False):
        value, constant = weight @ value, weight @ constant + bias
        count = int(both.sum())
        out, gate = np.zeros((2, count, len(integer)))
        out[:, used : used + count] = np.eye(count)
        gate[:, used + count : used + 2 * count] = np.eye(count)
        integer[used + count : used + 2 * count] = 1
        used += 2 * count
        below, above, width = low[both], high[both], (high - low)[both]
        slack = (value[both] - above[:, None] * out) / width[:, None]
        a += [slack, -slack - (below / width)[:, None] * gate, out - gate]
        b += [-constant[both] / width, (constant[both] - below) / width, np.zeros(count)]
        value, constant = value * (low >= 0)[:, None], constant * (low >= 0)
        value[both], constant[both] = above[:, None] * out, 0
    weight, bias = matrices[-1]
    return Program(np.concatenate(a), np.concatenate(b), integer, weight @ value, weight @ constant + bias)


def minimise(row: Array, side: float, written: Program, seconds: float) -> Any:
    """Minimise row @ v over a program's points with row @ v <= side: the result of scipy's `milp`, solved by HiGHS."""
    from scipy.optimize import Bounds, LinearConstraint, milp  # slow to import, and few runs search

    constraints = LinearConstraint(np.vstack([written.a, row]), -np.inf, np.append(written.b, side))
    with _quiet():
        return milp(
            row,
            integrality=written.integer,
            bounds=Bounds(0, 1),
            constraints=constraints,
            options={"time_limit": seconds, "mip_rel_gap": 0.0},
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the process's standard output within the context: HiGHS sometimes prints from C++ in spite of its options.

    C keeps what is printed in a buffer of its own unless the output is a terminal: it is flushed before the output changes.
    """
    with _silence:
        try:
            kept = os.dup(_STDOUT)
        except OSError:  # closed, as in some services
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            _flush()
            os.dup2(nowhere, _STDOUT)
            yield
        finally:
            _flush()
            os.dup2(kept, _STDOUT)
            os.close(nowhere)
            os.close(kept)


def _flush() -> None:
    """Write out the buffers of C."""
    try:
        ctypes.CDLL(None).fflush(None)
    except (OSError, TypeError, AttributeError):  # Windows finds no library by this name
        return
