"""The options of a run, once: the command line and the pytest plugin (behind `--gauntlet-`) are both made from this list."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Option:
    """One option. `many`: may be repeated, and each value may be a comma-separated list."""

    name: str
    help: str
    many: bool = False
    flag: bool = False
    metavar: str | None = None
    kind: type[str] | type[int] = str

    @property
    def key(self) -> str:
        """The name as a Python identifier."""
        return self.name.replace("-", "_")


OPTIONS: tuple[Option, ...] = (
    Option(
        "model", "Registered name (wildcards), package.module:factory or file.py:factory.", many=True, metavar="MODEL"
    ),
    Option(
        "weights", "Weights for the model: .safetensors, or a torch file (loaded with weights_only).", metavar="FILE"
    ),
    Option("mean", "Per-channel mean subtracted before the model, for instance 0.485,0.456,0.406.", metavar="M,…"),
    Option("std", "Per-channel standard deviation to divide by before the model.", metavar="S,…"),
    Option("defense", "Defense at inference, with settings like jpeg(quality=50).", many=True, metavar="DEFENSE"),
    Option("attacks", "A suite, or attacks with settings like pgd(steps=100).", many=True, metavar="ATTACKS"),
    Option(
        "data",
        "Registered data (also NAME/PART, NAME@FOLDER), FILE.npz, FILE.parquet, a folder by class, or module:function.",
        metavar="DATA",
    ),
    Option(
        "samples",
        "Which samples: 500 (the first), 0:500, stratified:500, or ids.txt (an id a line).",
        metavar="SAMPLES",
    ),
    Option(
        "threat",
        "Threat model NORM:EPS[:target=CLASS|next|random], for instance Linf:8/255; may be repeated.",
        many=True,
        metavar="THREAT",
    ),
    Option(
        "plugin", "Python file that registers models, attacks, defenses or data of yours.", many=True, metavar="FILE.py"
    ),
    Option("seed", "Seed of the attacks' random numbers (default 0).", metavar="N", kind=int),
    Option("device", "auto, cpu, cuda or cuda:1 (default auto: a GPU where there is one).", metavar="DEVICE"),
    Option(
        "precision",
        "Form of the model that native attacks see: auto (a faster one where it pays), float32 (the model as it is), "
        "bfloat16 or float16; verified is always on the model itself (default auto).",
        metavar="PRECISION",
    ),
    Option(
        "checks",
        "Of what attacks can be fooled by: default, all (also those that run attacks of their own) or none.",
        metavar="CHECKS",
    ),
    Option(
        "batch-size", "Samples attacked at once (default: by the size of an image, 32 to 1024).", metavar="N", kind=int
    ),
    Option("out", "Folder of the results (default gauntlet-results).", metavar="FOLDER"),
    Option("config", "Config file; else gauntlet.toml, or [tool.gauntlet] of pyproject.toml.", metavar="FILE"),
    Option("fresh", "Run every cell again, also what the store holds, and compare.", flag=True),
    Option("no-adversarials", "Do not store the adversarial examples (verify and replay need them).", flag=True),
    Option(
        "gate",
        "Baseline that the run is judged against when it is done (default: the configuration's).",
        metavar="BASELINE",
    ),
    Option("gate-early", "Attack no more samples than the gate's verdicts need, and write no leaderboard.", flag=True),
    Option(
        "no-gate",
        "Judge nothing, though the configuration names a baseline: what a new baseline is made of.",
        flag=True,
    ),
    Option("allow-undecided", "The gate passes where the samples are too few to decide.", flag=True),
)
