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
    yield f"written: {out}"
    yield f"{result}"
