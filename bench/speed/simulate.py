"""`gauntlet speed --simulate`: the passes of ours and of the peers, recorded on a small network and priced for a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.registry.settings import parse_named
from gauntlet.attacks.views.tf32 import assumed_tf32
from gauntlet.bench.registries import ATTACKS
from gauntlet.bench.speed.compare_speed import Progress, SpeedConfig, workload
from gauntlet.bench.speed.comparisons import SIMULATED, Comparison, choose_comparisons
from gauntlet.bench.speed.device_costs import (
    DEVICES,
    NETWORKS,
    Call,
    DeviceCosts,
    NetworkCosts,
    assumptions,
    call_seconds,
    operations_seconds,
    passes_seconds,
)
from gauntlet.bench.speed.measure import Workload, torch_threads
from gauntlet.bench.speed.record_calls import CallLog, PartCalls, Recorded, recorded_operations
from gauntlet.bench.speed.rounds import OURS
from gauntlet.bench.speed.whole_run import WholeRun, library_whole_run, our_whole_run

PRECISIONS = ("tf32", "bfloat16")
"""Ours runs once with each setting of `--precision`; the first is what `auto` chooses on such a GPU."""
STANDING = (0.3, 0.7)
"""The share of the images that should stand: where all fall at once, or none does, attacks save nothing or everything."""


@dataclass(frozen=True)
class Recording:
    """The recorded evaluation of a participant."""

    row: Comparison
    participant: str
    run: WholeRun
    log: CallLog


def simulate_speed(setup: SpeedConfig, device: str, out: Path, progress: Progress) -> str:
    """Record and price; writes `speed-simulated.md` and `speed-simulated.csv` to `out` after each; returns the Markdown.

    Raises ValueError for bad arguments, LookupError for unknown names.
    """
    if device not in DEVICES:
        raise ValueError(f"simulate={device!r} is unknown: there are {', '.join(DEVICES)}")
    rows = choose_comparisons(setup.rows, SIMULATED)
    with torch_threads(setup.threads):
        work = workload(setup)
        costs, text = DEVICES[device], ""
        recordings: list[Recording] = []
        out.mkdir(parents=True, exist_ok=True)
        for recording in (one for row in rows for one in _record(row, work, setup, progress)):
            progress(f"{recording.row.name} {recording.participant}: {recording.run.standing} of {work.total} standing")
            recordings.append(recording)
            counts = work.total, len(work.ids)
            table = pd.concat([priced(recordings, network, costs, *counts) for network in NETWORKS])
            text = _markdown(setup, costs, work, recordings, table)
            (out / "speed-simulated.md").write_text(text, encoding="utf-8")
            table.to_csv(out / "speed-simulated.csv", index=False, lineterminator="\n")
    return text


def _record(row: Comparison, work: Workload, setup: SpeedConfig, progress: Progress) -> Iterator[Recording]:
    """Ours in the first precision, the peers, and ours in the others."""
    threat = ThreatModel("Linf", setup.linf) if row.norm == "Linf" else ThreatModel("L2", setup.l2)
    first, *more = PRECISIONS
    yield record_ours(row, work, threat, OURS, first)
    for spec in row.peers:
        library, named = spec.partition(".")[0], parse_named(spec)
        if fnmatchcase(library, setup.peers):
            attack = ATTACKS.get(named.name).make(threat, **named.keywords)
            try:
                recording = _peer(row, work, library, attack)
            except (ImportError, ValueError) as error:
                progress(f"{spec} is left out: {error}")
            else:
                yield recording
    for precision in more:
        yield record_ours(row, work, threat, f"{OURS}, {precision}", precision)


def record_ours(row: Comparison, work: Workload, threat: ThreatModel, name: str, precision: str) -> Recording:
    """The recorded evaluation of our attack of a comparison; `name` is the participant's."""
    assert work.data is not None
    log = CallLog(work.images.shape[1:])
    settings: dict[str, Any] = {"batch_size": work.batch_size, "device": work.images.device, "precision": precision}
    with assumed_tf32(), recorded_operations(log), torch.random.fork_rng():
        run = our_whole_run(row.ours, Recorded(work.model, log), work.data, threat, 0, **settings)
    return Recording(row, name, run, log)


def _peer(row: Comparison, work: Workload, library: str, attack: Any) -> Recording:
    assert work.data is not None
    log = CallLog(work.images.shape[1:])
    settings: dict[str, Any] = {"batch_size": work.batch_size, "device": work.images.device}
    with recorded_operations(log), torch.random.fork_rng():
        run = library_whole_run(attack, Recorded(work.model, log), work.data, 0, **settings)
    return Recording(row, library, run, log)


def priced(
    recordings: Sequence[Recording], network: NetworkCosts, device: DeviceCosts, total: int, right: int
) -> pd.DataFrame:
    """A line per recording: seconds end to end and of the attack alone, on a network and a device.

    `total`, `right`: number of images, and of those that are classified correctly when clean.
    """
    lines = []
    for one in recordings:
        whole, attack = one.log.total(), one.log.total("attack")
        budget = _full_budget(one.row, right, network, device)
        lines.append(
            {
                "network": network.name,
                "row": one.row.name,
                "participant": one.participant,
                "simulated_whole_s": _seconds(whole, network, device),
                "simulated_attack_s": _seconds(attack, network, device),
                "simulated_passes_s": passes_seconds(attack.calls, network, device),
                "simulated_bare_s": budget,
                "images": sum(call.images * count for call, count in attack.calls.items()),
                "calls": sum(attack.calls.values()),
                "operations": sum(attack.operations.values()),
                "waits": attack.waits,
                "standing": one.run.standing,
                "share_standing": one.run.standing / total,
            }
        )
    return pd.DataFrame(lines)


def _seconds(part: PartCalls, network: NetworkCosts, device: DeviceCosts) -> float:
    return passes_seconds(part.calls, network, device) + operations_seconds(part.operations, network, device)


def _full_budget(row: Comparison, count: int, network: NetworkCosts, device: DeviceCosts) -> float:
    """Seconds of the passes of the full budget for every image, in one batch and PyTorch's default arithmetic."""
    forwards, backwards = row.passes
    alone, both = (call_seconds(Call(count, backward, "default"), network, device) for backward in (False, True))
    return alone * (forwards - backwards) + both * backwards


def fastest_ratios(table: pd.DataFrame, column: str) -> dict[tuple[str, str, str], float]:
    """Ours divided by the fastest peer, by network, row and the name of ours; empty without peers."""
    ratios = {}
    for (network, row), lines in table.groupby(["network", "row"], sort=False):
        ours = lines["participant"].str.startswith(OURS)
        if ours.all():
            continue
        for name, seconds in zip(lines["participant"][ours], lines[column][ours], strict=True):
            ratios[str(network), str(row), str(name)] = float(seconds / lines[column][~ours].min())
    return ratios


def _markdown(
    setup: SpeedConfig, device: DeviceCosts, work: Workload, recordings: Sequence[Recording], table: pd.DataFrame
) -> str:
    low, high = STANDING
    outside = sorted({one.row.name for one in recordings if not low <= one.run.standing / work.total <= high})
    parts = [
        f"# Simulated speed on {device.name}: priced, not measured",
        "",
        f"The passes were recorded on {setup.model}, {work.total} images of {setup.data}, Linf:{setup.linf:g}, batch "
        f"{work.batch_size}, torch {torch.__version__}, and priced for other networks on a {device.name} by the constants below. "
        "No GPU was used. A pass takes the larger of the time to launch its kernels and the images' time; an operation between "
        "passes takes the larger of a launch and its images' way through memory. Waiting for the device, files and Python's own "
        'time are not priced. Ours is `gauntlet.evaluate(…, checks="none")` with that precision for the attack, and with '
        "float32 for clean passes and verification. The peers have PyTorch's defaults.",
    ]
    if outside:
        parts += ["", f"Beyond {100 * low:g} to {100 * high:g} % standing: {', '.join(outside)}."]
    whole, alone = (fastest_ratios(table, name) for name in ("simulated_whole_s", "simulated_attack_s"))
    if whole:
        parts += ["", "| network | attack | ours | end to end, × fastest peer | attack alone |"]
        parts.append("| --- | --- | --- | ---: | ---: |")
        for key, value in whole.items():
            parts.append(f"| {' | '.join(key)} | {value:.2f} | {alone[key]:.2f} |")
    for network, lines in table.groupby("network", sort=False):
        parts += ["", f"## Simulated: {network}", "", *_table(lines, work.total)]
    return "\n".join([*parts, "", "## Constants", "", assumptions(device, NETWORKS), ""])


def _table(lines: pd.DataFrame, total: int) -> list[str]:
    out = [
        "| attack | participant | end to end, s | images/s | attack alone, s | × bare budget | passes' share | calls "
        "| images a call | operations a call | waits a call | standing % |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for line in lines.to_dict("records"):
        calls = max(line["calls"], 1)
        cells = [
            line["row"],
            line["participant"],
            f"{line['simulated_whole_s']:.3g}",
            f"{total / line['simulated_whole_s']:.3g}",
            f"{line['simulated_attack_s']:.3g}",
            f"{line['simulated_attack_s'] / line['simulated_bare_s']:.2f}",
            f"{100 * line['simulated_passes_s'] / line['simulated_attack_s']:.0f} %",
            str(line["calls"]),
            f"{line['images'] / calls:.0f}",
            f"{line['operations'] / calls:.0f}",
            f"{line['waits'] / calls:.1f}",
            f"{100 * line['share_standing']:.1f}",
        ]
        out.append(f"| {' | '.join(cells)} |")
    return out
