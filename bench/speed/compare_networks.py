"""`gauntlet speed --device cuda`: whole evaluations of four kinds of networks beside those of the peers, in a given time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.ops.validators import whole_number
from gauntlet.attacks.registry.settings import parse_named
from gauntlet.bench.config.schema import ConfigError
from gauntlet.bench.data.samples.dataset import Data
from gauntlet.bench.data.samples.in_memory import from_arrays
from gauntlet.bench.environment.clock import synchronised_time
from gauntlet.bench.environment.device import peak_memory
from gauntlet.bench.registries import ATTACKS
from gauntlet.bench.speed.comparisons import SIMULATED, Comparison, choose_comparisons
from gauntlet.bench.speed.measure import BarePasses, Counted, Workload, bare_passes, torch_threads
from gauntlet.bench.speed.networks import NETWORKS, SMALL
from gauntlet.bench.speed.networks_report import NetworkTurn, markdown, table
from gauntlet.bench.speed.rounds import OURS
from gauntlet.bench.speed.synchronisations import counted_synchronisations
from gauntlet.bench.speed.trained_network import TrainedNetwork, trained_network
from gauntlet.bench.speed.whole_run import WholeRun, library_whole_run, our_whole_run

Progress = Callable[[str], None]
_TRAINING = 0.02
"""Share of the time that training a network may take."""
_FALLING, _MARGIN = 0.6, 1.5
"""Share of the full budget that a cascade is expected to make, since samples that fall make no more passes; and by how much more
than bare passes everything is expected to take."""
_FEWEST = 16
"""A row with fewer images is not run; synchronisations are counted on so many."""
_COUNTED = 200
"""Passes of a budget up to which synchronisations are counted: counting takes an evaluation of its own."""


@dataclass(frozen=True)
class NetworksConfig:
    """The settings of the measurement."""

    device: torch.device
    rows: tuple[str, ...] = ()
    peers: str = "*"
    minutes: float = 10.0
    small: bool = False
    """Tiny networks in place of the real ones."""
    threads: int = 1
    """Threads of the CPU."""


class TimeUpError(RuntimeError):
    """The time of the measurement is up."""


class _Limited(Counted):
    """Counts passes, and ends an attack of a library when the time is up."""

    def __init__(self, model: nn.Module, end: float) -> None:
        super().__init__(model)
        self.end = end

    def forward(self, images: Tensor) -> Tensor:
        if time.monotonic() > self.end:
            raise TimeUpError("the time was up")
        return super().forward(images)


@dataclass(frozen=True)
class _Case:
    """A row on a network, and the seconds that one participant is expected to take for all images."""

    row: Comparison
    trained: TrainedNetwork
    bare: BarePasses
    expected: float


def compare_networks(setup: NetworksConfig, out: Path, progress: Progress) -> str:
    """Train the networks and measure; writes `speed-networks.md` and `.csv` to `out` after each turn; returns the Markdown.

    Turns that the time does not suffice for are named as not run. Raises ValueError for bad arguments, ConfigError for tiny
    networks on a GPU or real ones on a CPU.
    """
    if (setup.device.type == "cuda") == setup.small:
        if setup.small:
            raise ConfigError("small is for the CPU, to see that the measurement runs: leave it out on a GPU")
        raise ConfigError(
            f"device={str(setup.device)!r} is too slow for these networks: use cuda, or --small to try them"
        )
    if not setup.minutes > 0:
        raise ValueError(f"minutes={setup.minutes} is not above 0")
    rows = choose_comparisons(setup.rows, SIMULATED)
    whole_number("threads", setup.threads, 1)
    with torch_threads(setup.threads):
        return _compare(setup, rows, out, progress)


def _compare(setup: NetworksConfig, rows: Sequence[Comparison], out: Path, progress: Progress) -> str:
    end = time.monotonic() + 60 * setup.minutes
    trained = []
    for network in SMALL if setup.small else NETWORKS:
        trained.append(trained_network(network, setup.device, 60 * setup.minutes * _TRAINING))
        progress(trained[-1].said)
    out.mkdir(parents=True, exist_ok=True)
    turns: list[NetworkTurn] = []
    text = ""
    for turn in _turns(_cases(rows, trained), setup, end):
        turns.append(turn)
        progress(turn.said)
        text = markdown(turns, [one.said for one in trained], setup.device, setup.minutes)
        (out / "speed-networks.md").write_text(text, encoding="utf-8")
        table(turns).to_csv(out / "speed-networks.csv", index=False, lineterminator="\n")
    return text


def _cases(rows: Sequence[Comparison], trained: Sequence[TrainedNetwork]) -> list[_Case]:
    """Short rows first, on all networks. The bare passes that they are measured by are those that warm up, too."""
    bare = [bare_passes(_workload(one), one.model) for one in trained]
    cases = []
    for row in rows:
        for one, passes in zip(trained, bare, strict=True):
            seconds = _MARGIN * passes.seconds(*row.passes) * one.network.images
            cases.append(_Case(row, one, passes, seconds * (_FALLING if row.passes[0] > _COUNTED else 1.0)))
    return cases


def _turns(cases: Sequence[_Case], setup: NetworksConfig, end: float) -> Iterator[NetworkTurn]:
    for number, case in enumerate(cases):
        # What is left is shared by what each case is expected to take.
        later = sum(one.expected * _participants(one, setup.peers) for one in cases[number:])
        share = min(1.0, max(0.0, end - time.monotonic()) / later)
        count = int(share * case.trained.network.images)
        for name, spec in _entrants(case.row, setup.peers):
            turn = NetworkTurn(case.trained.network.name, case.row.name, name, count)
            if count < min(_FEWEST, case.trained.network.images):
                yield replace(turn, why=f"time suffices for {count} of {case.trained.network.images} images")
            elif time.monotonic() + case.expected * share > end:
                yield replace(turn, why=f"it would take about {case.expected * share:.0f} s")
            else:
                yield _turn(turn, spec, case, end)


def _participants(case: _Case, peers: str) -> int:
    return len(_entrants(case.row, peers))


def _entrants(row: Comparison, peers: str) -> list[tuple[str, str]]:
    """The names and the attacks of the participants, ours first."""
    named = [(spec.partition(".")[0], spec) for spec in row.peers]
    return [(OURS, row.ours), *(one for one in named if fnmatchcase(one[0], peers))]


def _turn(turn: NetworkTurn, spec: str, case: _Case, end: float) -> NetworkTurn:
    one = case.trained
    device = next(one.model.parameters()).device
    few, data = (_first(one.data, count) for count in (min(_FEWEST, turn.images), turn.images))
    try:
        _run(spec, one, _first(one.data, 2), device, end)
        with peak_memory(device) as peak:
            run = _run(spec, one, data, device, end)
        waits = None
        if case.row.passes[0] <= _COUNTED:
            with counted_synchronisations() as counted:
                _run(spec, one, few, device, end)
            waits = counted.total / len(few)
    except (ImportError, ValueError) as error:
        return replace(turn, why=str(error))
    except RuntimeError as error:
        return replace(turn, why=f"{type(error).__name__}: {error}")
    bare = case.bare.seconds(*run.passes)
    return replace(turn, run=run, bare=bare, peak_mib=peak.mib, waits=waits, eps=one.eps)


def _run(spec: str, one: TrainedNetwork, data: Data, device: torch.device, end: float) -> WholeRun:
    threat = ThreatModel("Linf", one.eps)
    settings: dict[str, Any] = {"batch_size": one.network.batch, "device": device, "now": synchronised_time}
    named = parse_named(spec)
    with torch.random.fork_rng():
        if "." not in named.name:
            return our_whole_run(spec, one.model, data, threat, 0, **settings)
        attack: Any = ATTACKS.get(named.name).make(threat, **named.keywords)
        return library_whole_run(attack, _Limited(one.model, end), data, 0, **settings)


def _first(data: Data, count: int) -> Data:
    return from_arrays(data.images[:count], data.labels[:count], name=data.name, classes=data.classes)


def _workload(one: TrainedNetwork) -> Workload:
    device = next(one.model.parameters()).device
    images, labels = one.data.images[:].to(device), one.data.labels.to(device)
    return Workload(one.model, images, labels, one.data.ids, images.new_empty(0), len(labels), one.network.batch)
