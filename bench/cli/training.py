"""`gauntlet train`: a model of the embedded zoo again, with a progress bar."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from gauntlet.bench.training import train


def train_model(name: str, seed: int, out: Path) -> Iterator[str]:
    """Train, then say what came out and how it compares with the card."""
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as bars:
        bar = bars.add_task(f"training {name}", total=None)

        def tell(done: int, total: int, loss: float) -> None:
            bars.update(bar, completed=done, total=total, description=f"training {name}, loss {loss:.3f}")

        result = train(name, seed=seed, out=out, progress=tell)
    yield f"written: {out} (sha256 {result.sha256})"
    claim = (
        ""
        if result.expected is None
        else f", the card says {100 * result.expected:.1f} % ± {100 * result.tolerance:.0f}"
    )
    yield f"clean accuracy {100 * result.clean:.1f} % of {result.n} test images{claim}"
    threat = "Linf:0.15"
    yield f"attack it: gauntlet run --model gauntlet.bench.models.cnn:cnn --weights {out} --data digits --threat {threat}"
