"""Names of data sets: their grammar, and the form in which tables show them.

    NAME[/PART][(setting=value, …)][@FOLDER]        imagenet/robustbench-5000(interpolation=bicubic)@/data/imagenet
    PATH[(setting=value, …)]                        photos(resize=256, crop=224)

`NAME` is a registered name; anything else is `module:function` or a path. A path that begins with a registered name is taken
as a path only if NAME has no such part.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gauntlet.attacks.registry.settings import Setting, parse_named
from gauntlet.bench.data.catalog import DATA
from gauntlet.bench.data.formats.suffixes import FILE_FORMS, is_data_file
from gauntlet.bench.data.samples.card import DataEntry
from gauntlet.bench.data.samples.preprocessing import PLAIN, SETTINGS, with_settings

FORMS = (
    f"write a registered name, {FILE_FORMS}, a folder with one sub-folder per class or "
    "with Parquet files, or module:function or path/to/file.py:function"
)
FORM = "NAME, NAME/PART, NAME(setting=value, …), NAME@FOLDER, or all of it in this order"
_REGISTERED = re.compile(r"(?P<name>[^/(@]+)(/(?P<part>[^/(@]+))?(?P<settings>\([^@]*\))?(@(?P<root>.+))?")
_PATH = re.compile(r"(?P<path>.+?)(?P<settings>\([^()]*=[^()]*\))", re.DOTALL)


@dataclass(frozen=True)
class DataName:
    """The parsed name of a registered data set or of a part of it."""

    name: str
    part: str = ""
    settings: Mapping[str, Setting] = field(default_factory=dict)
    root: Path | None = None

    @property
    def entry(self) -> DataEntry:
        """The entry in the registry."""
        return DATA.get(self.name)

    @property
    def title(self) -> str:
        """The name in tables: with the settings that determine the pixels, without the folder on this machine."""
        description = self.entry.describe(self.settings)
        return self.name + (f"/{self.part}" if self.part else "") + (f"({description})" if description else "")


def parse_data_name(spec: str) -> DataName | None:
    """Parse a registered name, with or without part, settings and folder; None for any other `spec`.

    Raises ValueError if the name is registered and the rest does not fit it.
    """
    if spec in DATA:
        return DataName(spec)
    match = _REGISTERED.fullmatch(spec)
    if match is None and re.split(r"[(@]", spec)[0] in DATA:
        raise ValueError(f"data {spec!r} is not understood: write {FORM}")
    if match is None or match["name"] not in DATA:
        return None
    name, part = match["name"], match["part"] or ""
    entry = DATA.get(name)
    if part and (entry.subset is None or not any(_fits(part, form) for form in entry.subsets)):
        if Path(spec).exists() or ":" in part:  # a path, or a function in a file
            return None
        parts = ", ".join(f"{name}/{form}" for form in entry.subsets) or "none"
        raise ValueError(f"data {name!r} has no part {part!r}: its parts are {parts}")
    settings = parse_named(f"{name}{match['settings']}").keywords if match["settings"] else {}
    unknown = [key for key in settings if key not in entry.settings]
    if unknown:
        known = ", ".join(entry.settings) or "none"
        raise ValueError(f"data {name!r} has no setting {unknown[0]!r}: its settings are {known}")
    if part and settings.get("split", "test") != "test":
        raise ValueError(f"data {spec!r}: {name}/{part} is a part of the test split: leave out split")
    if match["root"] and not entry.local:
        raise ValueError(f"data {name!r} needs no files: leave out the folder {match['root']!r} and write {name}")
    return DataName(name, part, settings, Path(match["root"]).expanduser() if match["root"] else None)


def path_settings(spec: str) -> tuple[Path, Mapping[str, Setting]]:
    """Split a path from the settings in brackets after it; an existing file or folder of the whole name has no settings."""
    match = _PATH.fullmatch(spec)
    if match is None or Path(spec).exists():
        return Path(spec), {}
    settings = parse_named(f"data{match['settings']}").keywords
    unknown = [key for key in settings if key not in SETTINGS]
    if unknown:
        raise ValueError(f"{spec!r} has the unknown setting {unknown[0]!r}: files have {', '.join(SETTINGS)}")
    return Path(match["path"]), settings


def require_file(spec: str) -> None:
    """Raise FileNotFoundError if the data set `spec` is a data file that does not exist, ValueError for wrong settings."""
    if parse_data_name(spec) is None and is_data_file(path := path_settings(spec)[0]) and not path.exists():
        raise FileNotFoundError(f"data file {str(path)!r} does not exist: {FORMS}")


def data_title(spec: str) -> str:
    """The name in tables of the data set `spec`; nothing is loaded. Raises ValueError for wrong settings."""
    known = parse_data_name(spec)
    if known is not None:
        return known.title
    path, settings = path_settings(spec)
    if ":" in spec and not path.exists():
        return spec
    description, name = str(with_settings(PLAIN, settings)), path.name or path.resolve().name
    return f"{name}({description})" if description else name


def _fits(part: str, form: str) -> bool:
    """Whether the part has a form such as `robustbench-N`."""
    return re.fullmatch(re.escape(form).replace("N", r"\d+"), part) is not None
