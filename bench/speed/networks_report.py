"""The report of `gauntlet speed --device cuda`, as Markdown and as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch

from gauntlet.bench.speed.rounds import OURS
from gauntlet.bench.speed.whole_run import WholeRun

NOTE = (
    "End to end: clean accuracy, the attack, and accuracy on its result, once everything is imported and warm; ours is "
    '`gauntlet.evaluate(…, checks="none")`, with verification and records, and `precision="auto"`; the peers have PyTorch\'s '
    "defaults. Ratios: ours to the fastest peer. Bare passes: the time of as many forward and backward passes in full "
    "batches, in PyTorch's default arithmetic, as a share of the attack's; above 100 % where a faster form of the model is "
    "attacked. Peak memory: of the whole evaluation. Occupancy: the share of our slots that were filled. Waits: how often the "
    "host waits for the device an image, in a whole evaluation of a few images (`bench/speed/synchronisations.py`), not "
    "counted for cascades. One seed, one run of each."
)


@dataclass(frozen=True)
class NetworkTurn:
    """A participant in a row on a network."""

    network: str
    row: str
    participant: str
    images: int
    run: WholeRun | None = None
    """None where it was not run."""
    why: str = ""
    """Why it was not run."""
    eps: float = 0.0
    bare: float = 0.0
    """Seconds of as many passes alone."""
    peak_mib: float = 0.0
    waits: float | None = None

    @property
    def said(self) -> str:
        """A line of progress."""
        head = f"{self.network} {self.row} {self.participant}"
        if self.run is None:
            return f"{head}: not run, {self.why}"
        seconds = f"{self.run.seconds:.2f} s, attack {self.run.attack_seconds:.2f} s"
        return f"{head}: {seconds}, {self.run.standing} of {self.images} standing"


def table(turns: Sequence[NetworkTurn]) -> pd.DataFrame:
    """A line per turn; `not_run` says why a turn has no figures."""
    lines = []
    for turn in turns:
        run = turn.run
        lines.append(
            {
                "network": turn.network,
                "row": turn.row,
                "participant": turn.participant,
                "eps": turn.eps,
                "images": turn.images,
                "standing": run and run.standing,
                "whole_s": run and run.seconds,
                "attack_s": run and run.attack_seconds,
                "forwards": run and run.passes[0],
                "backwards": run and run.passes[1],
                "bare_s": turn.bare if run else None,
                "peak_mib": turn.peak_mib if run else None,
                "occupancy": run and run.occupancy,
                "waits_an_image": turn.waits,
                "not_run": turn.why,
            }
        )
    return pd.DataFrame(lines)


def markdown(turns: Sequence[NetworkTurn], said: Sequence[str], device: torch.device, minutes: float) -> str:
    """The tables, how the networks came about, and what was not run."""
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else "CPU, tiny networks: figures say nothing of speed"
    )
    head = [
        f"# Speed of whole evaluations: {name}",
        "",
        f"torch {torch.__version__}, at most {minutes:g} minutes.",
        "",
        *(f"- {line}" for line in said),
        "",
        "| network | attack | end to end, × fastest peer | attack alone |",
        "| --- | --- | ---: | ---: |",
        *_ratios(turns),
        "",
        NOTE,
        "",
        "| network | attack | participant | images | end to end, s | images/s | attack alone, s | bare passes | peak MiB "
        "| occupancy | waits an image | standing % |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines = [_line(turn, turn.run) for turn in turns if turn.run is not None]
    left = [f"- {turn.network}, {turn.row}, {turn.participant}: {turn.why}" for turn in turns if turn.run is None]
    return "\n".join([*head, *lines, "", *(["Not run:", "", *left, ""] if left else [])])


def _ratios(turns: Sequence[NetworkTurn]) -> list[str]:
    lines = []
    for network, row in dict.fromkeys((turn.network, turn.row) for turn in turns):
        runs = {turn.participant: turn.run for turn in turns if (turn.network, turn.row) == (network, row) and turn.run}
        peers = [run for name, run in runs.items() if name != OURS]
        if OURS in runs and peers:
            ours = runs[OURS]
            whole = ours.seconds / min(run.seconds for run in peers)
            alone = ours.attack_seconds / min(run.attack_seconds for run in peers)
            lines.append(f"| {network} | {row} | {whole:.2f} | {alone:.2f} |")
    return lines


def _line(turn: NetworkTurn, run: WholeRun) -> str:
    cells = [
        turn.network,
        turn.row,
        turn.participant,
        str(turn.images),
        f"{run.seconds:.3g}",
        f"{turn.images / run.seconds:.3g}",
        f"{run.attack_seconds:.3g}",
        f"{100 * turn.bare / run.attack_seconds:.0f} %" if run.attack_seconds else "–",
        f"{turn.peak_mib:.0f}",
        "–" if run.occupancy is None else f"{100 * run.occupancy:.0f} %",
        "–" if turn.waits is None else f"{turn.waits:.1f}",
        f"{100 * run.standing / turn.images:.0f}",
    ]
    return f"| {' | '.join(cells)} |"
