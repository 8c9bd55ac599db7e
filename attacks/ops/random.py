"""Random numbers keyed by their purpose, never by the order in which they are drawn.

Every draw is a pure function of (seed, attack, sample id, restart, step, purpose): it does not depend on the batch size,
the order of samples, the device, or other runs. The generator is the counter-based Philox4x32-10 of Salmon et al.,
"Parallel random numbers: as easy as 1, 2, 3" (SC 2011), vectorised over samples in torch integers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def philox(counter: Sequence[Tensor], key: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10 on int64 tensors of unsigned 32-bit words; counter and key broadcast against each other."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # The product of two 32-bit words wraps in int64, but keeps all its 64 bits.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = ((p1 >> 32) & _MASK) ^ c1 ^ k0, p1 & _MASK, ((p0 >> 32) & _MASK) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def sample_keys(seed: int, purpose: str, ids: Sequence[str], device: torch.device | str = "cpu") -> Tensor:
    """A 63-bit key for each sample, int64 (N,), from the run's seed, a purpose (an attack's name) and the sample's id."""
    begun = hashlib.blake2b(f"{seed}\0{purpose}\0".encode(), digest_size=8)
    digests = bytearray()
    for one in ids:
        # A copy saves hashing the same beginning for every sample.
        digest = begun.copy()
        digest.update(one.encode())
        digests += digest.digest()
    words = (np.frombuffer(digests, dtype="<u8") >> 1).astype(np.int64)
    return torch.from_numpy(words).to(device)


@dataclass(frozen=True)
class Draws:
    """The random numbers of a batch of samples.

    `keys`: int64 (N,), from `sample_keys`. `restart` and `step`: int64 (N,), those of each sample.
    """

    keys: Tensor
    restart: Tensor
    step: Tensor

    @classmethod
    def start(cls, keys: Tensor) -> Draws:
        """Draws at restart 0, step 0."""
        zero = torch.zeros_like(keys)
        return cls(keys, zero, zero)

    def at(self, *, restart: Tensor | None = None, step: Tensor | None = None) -> Draws:
        """The same samples at another restart or step."""
        return replace(
            self, restart=self.restart if restart is None else restart, step=self.step if step is None else step
        )

    def bits(self, count: int, tag: int) -> Tensor:
        """`count` independent 32-bit words for each sample, int64 (N, count). Each `tag` (0 to 255) gives other words."""
        blocks = -(-count // 4)
        index = torch.arange(blocks, device=self.keys.device)[None, :]
        key = ((self.keys & _MASK)[:, None], ((self.keys >> 32) & _MASK)[:, None])
        zero = torch.zeros_like(index)
        words = philox((index, self.step[:, None] + zero, self.restart[:, None] + zero, zero + tag), key)
        return torch.stack(words, dim=-1).flatten(1)[:, :count]

    def uniform(self, shape: Sequence[int], tag: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
        """Uniform in [0, 1) with 24 random bits each, (N, *shape)."""
        words = self.bits(math.prod(shape), tag)
        return ((words >> 8).to(torch.float64) / 2**24).to(dtype).view(len(self.keys), *shape)

    def normal(self, shape: Sequence[int], tag: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal by the inverse distribution function in float64, (N, *shape)."""
        words = self.bits(math.prod(shape), tag).to(torch.float64)
        values: Tensor = torch.special.ndtri((words + 0.5) / 2**32)
        return values.to(dtype).view(len(self.keys), *shape)

    def integers(self, high: int, shape: Sequence[int], tag: int = 0) -> Tensor:
        """Integers in [0, high), int64 (N, *shape); the bias is below high / 2**32."""
        return (self.bits(math.prod(shape), tag) * high >> 32).view(len(self.keys), *shape)


_active: ContextVar[Draws | None] = ContextVar("active_draws", default=None)


@contextmanager
def model_randomness(draws: Draws) -> Iterator[None]:
    """Within this context `active_draws` returns `draws`, from which randomised defenses take their randomness."""
    token = _active.set(draws)
    try:
        yield
    finally:
        _active.reset(token)


def active_draws() -> Draws | None:
    """The draws for the model's own randomness; None outside `model_randomness`."""
    return _active.get()
