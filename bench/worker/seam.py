"""The interface of the seam: what answers requests, in this process or in another. Importing it imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from gauntlet.bench.config.schema import Config
from gauntlet.bench.planning.plan_request import PlanRequest
from gauntlet.bench.worker.messages import Failure, Message
from gauntlet.bench.worker.request import DrawExamples, Request, TryExamples

AnyRequest: TypeAlias = PlanRequest | Request | TryExamples | DrawExamples
Work: TypeAlias = Callable[[AnyRequest], Generator[Message]]
Watch: TypeAlias = Callable[[float], None]
"""Called now and then with the share of a request's blocks that is done, in 0..1, while they are attacked."""


def answer(work: Work, request: AnyRequest) -> Message:
    """The last message for a request that is answered by one; a `Failure` where there is none."""
    none = Failure("WorkerMessageError", f"the worker sent no answer while {request.described}", "", {})
    *_, message = none, *work(request)
    return message


class StoredResultError(RuntimeError):
    """The model or the attack does not reproduce a stored result with the same key."""


class KeysDifferError(RuntimeError):
    """A worker was asked for blocks of other keys than those that it prepares."""


@dataclass(frozen=True)
class WorkerSettings:
    """What holds for all requests to a worker; see `Config`."""

    device: str = "auto"
    precision: str = "auto"
    checks: str = "default"
    compiled: bool = False
    plugins: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: Config) -> WorkerSettings:
        """The settings of a configuration."""
        return cls(config.device, config.precision, config.checks, config.compile, config.plugins)


class Worker(Protocol):
    """Answers requests, one after another. Several workers may work side by side; they share nothing."""

    watch: Watch | None

    @property
    def device(self) -> str:
        """The name of the device, as results record it."""
        ...

    @property
    def versions(self) -> Mapping[str, str]:
        """The versions of Gauntlet, of its verifier and rules."""
        ...

    def work(self, request: AnyRequest) -> Generator[Message]:
        """The messages for a request; a `Failure` is the last one. Close the generator in every case."""
        ...

    def allow(self, seconds: float | None) -> None:
        """Limit all further work to so many seconds from now; None: no limit. A worker in this process has no limit."""
        ...

    def close(self) -> None:
        """End the worker."""
        ...
