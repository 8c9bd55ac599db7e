"""The options of a run, listed once for the command line and for the pytest plugin, which adds the prefix `--gauntlet-`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from gauntlet.bench.config.cluster_options import FOUND

Group = Literal["model", "data", "attack", "training", "gate", "output", "machine", "configuration"]


@dataclass(frozen=True)
class Option:
    """One option of a run."""

    name: str
    help: str
    group: Group
    default: str = ""
    """The value that applies when neither an option nor the configuration gives one, as the help shows it."""
    many: bool = False
    """Whether the option may be repeated; each value may be a comma-separated list."""
    flag: bool = False
    metavar: str | None = None
    kind: type[str] | type[int] | type[float] = str
    bare: str | None = None
    """The value of the option where it is given without one; None: it needs one."""

    @property
    def key(self) -> str:
        """The name as a Python identifier."""
        return self.name.replace("-", "_")

    def text(self, *, single: bool = False) -> str:
        """The help with the default; `single`: for a command that takes the option once."""
        repeated = " May be repeated." if self.many and not single else ""
        return f"{self.help}{repeated}{f' [default: {self.default}]' if self.default else ''}"


OPTIONS: Final[tuple[Option, ...]] = (
    Option(
        "model",
        "Model: a registered name or wildcard, file.py:factory, package.module:factory, or SOURCE:NAME such as timm:resnet50, "
        "with its weights and settings: net.py:build@best.pth(mean=0.5, std=0.25).",
        "model",
        default="cnn.*_digits",
        many=True,
        metavar="MODEL",
    ),
    Option(
        "weights",
        "Weights to load into the model: a .safetensors file or a torch checkpoint.",
        "model",
        default="those that the model comes with",
        metavar="FILE",
    ),
    Option(
        "mean",
        "Per-channel mean to subtract before the model, such as 0.485,0.456,0.406.",
        "model",
        default="that of the model's card, if it has one",
        metavar="M,…",
    ),
    Option(
        "std",
        "Per-channel standard deviation to divide by before the model, such as 0.229,0.224,0.225.",
        "model",
        default="that of the model's card, if it has one",
        metavar="S,…",
    ),
    Option(
        "randomised",
        "Declare that the model answers the same image differently. Without it, this is measured once.",
        "model",
        flag=True,
    ),
    Option(
        "not-differentiable",
        "Declare that autograd gives no useful gradient through the model: attacks use BPDA, and adaptive ones search too.",
        "model",
        flag=True,
    ),
    Option(
        "logits",
        "Name of the entry of a dict, attribute of an object, or place in a tuple, that holds the logits in the model's output.",
        "model",
        default="logits, the only tensor, or the first place",
        metavar="NAME",
    ),
    Option(
        "binary",
        "The model returns one logit z for each image, positive for class 1 of two: it is evaluated as [-z, z].",
        "model",
        flag=True,
    ),
    Option(
        "classes",
        "File with the classes that the model may predict, by index or name; labels of the data are mapped.",
        "model",
        default="all",
        metavar="FILE",
    ),
    Option(
        "defense",
        "Defense at inference, with its settings in brackets: jpeg(quality=50).",
        "model",
        default="none",
        many=True,
        metavar="DEFENSE",
    ),
    Option(
        "data",
        "Data set: a registered name (also NAME/PART and NAME@FOLDER), FILE.npz, FILE.parquet, a folder of images by class, or "
        "module:function.",
        "data",
        default="digits",
        metavar="DATA",
    ),
    Option(
        "samples",
        "Samples to evaluate: 500 (the first 500), 100:200, stratified:500, or a text file with one id per line.",
        "data",
        default="all",
        metavar="SAMPLES",
    ),
    Option(
        "attacks",
        "Attack suite, or attacks with their settings in brackets: pgd(steps=100).",
        "attack",
        default="standard; adaptive without any configuration",
        many=True,
        metavar="ATTACKS",
    ),
    Option(
        "threat",
        "Threat model NORM:EPS, such as Linf:8/255. Append :target=CLASS, :target=next or :target=random for targeted attacks.",
        "attack",
        default="Linf:0.15 for the digits, else Linf:8/255",
        many=True,
        metavar="THREAT",
    ),
    Option("seed", "Seed of the attacks.", "attack", default="0", metavar="N", kind=int),
    Option(
        "checks",
        "Gradient-masking checks to run: default, all (adds the checks that run attacks of their own) or none.",
        "attack",
        default="default",
        metavar="CHECKS",
    ),
    Option(
        "gate",
        "Baseline file to judge the finished run against.",
        "gate",
        default="the configured baseline",
        metavar="BASELINE",
    ),
    Option(
        "baseline-from",
        "Commit (a branch, a tag, HEAD^1) from which git gives the baseline and its artifact, whatever the working folder has.",
        "gate",
        default="the files of the working folder",
        metavar="REF",
    ),
    Option(
        "gate-early",
        "Attack only as many samples as the gate needs for its verdicts. No leaderboard is written.",
        "gate",
        flag=True,
    ),
    Option("no-gate", "Ignore the configured baseline; use this to create a new one.", "gate", flag=True),
    Option("allow-undecided", "Let the gate pass when the samples are too few for a verdict.", "gate", flag=True),
    Option("out", "Folder for the results.", "output", default="gauntlet-results", metavar="FOLDER"),
    Option(
        "reuse",
        "Results folder of earlier runs whose stored blocks are taken where they fit. It is only read.",
        "output",
        default="none",
        metavar="FOLDER",
    ),
    Option(
        "fresh",
        "Run every cell again, even if the store holds its result, and compare the two results.",
        "output",
        flag=True,
    ),
    Option("profile", "Say where the seconds went, part by part, and write profile.csv.", "output", flag=True),
    Option(
        "no-adversarials",
        "Do not store the adversarial examples, which `gauntlet verify` and replays need.",
        "output",
        flag=True,
    ),
    Option(
        "device",
        "Device: auto (a GPU if available), cpu, cuda or cuda:1.",
        "machine",
        default="auto",
        metavar="DEVICE",
    ),
    Option(
        "precision",
        "Precision of the model copy that native attacks use: auto (the fastest safe form), float32, bfloat16, on CUDA tf32 or "
        "float16. What low precision leaves faces float32, and examples are verified on the model itself.",
        "machine",
        default="auto",
        metavar="PRECISION",
    ),
    Option(
        "compile",
        "Compile the model copy that native attacks use (torch.compile), where this is measured to be faster.",
        "machine",
        flag=True,
    ),
    Option(
        "batch-size",
        "Number of samples attacked at once.",
        "machine",
        default="measured on a GPU; else 32 to 384, by the size of an image",
        metavar="N",
        kind=int,
    ),
    Option(
        "ray",
        "Run on all GPUs, else all CPUs, of a Ray cluster: that of ADDRESS (HOST:PORT, auto, local), or without an address the "
        "one of RAY_ADDRESS or of this machine, else this machine alone.",
        "machine",
        default="without Ray",
        metavar="ADDRESS",
        bare=FOUND,
    ),
    Option(
        "gpus-per-task",
        "With --ray: the part of a GPU for each worker, above 0 and at most 1.",
        "machine",
        default="1",
        metavar="X",
        kind=float,
    ),
    Option(
        "config",
        "Configuration file.",
        "configuration",
        default="gauntlet.toml, else [tool.gauntlet] in pyproject.toml",
        metavar="FILE",
    ),
    Option(
        "plugin",
        "Python file that registers models, attacks, defenses or data sets.",
        "configuration",
        default="the configured plugins",
        many=True,
        metavar="FILE.py",
    ),
)
"""In the order of the help."""
