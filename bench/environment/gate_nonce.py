"""The variable by which a gated run learns the number that its gate.json must repeat (`gauntlet.bench.gate.supervised_run`)."""

from __future__ import annotations

from typing import Final

NONCE: Final = "GAUNTLET_GATE_NONCE"
