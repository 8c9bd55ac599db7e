"""Random damage to a results folder, and whether the commands that read it still say nothing wrong."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np

TABLES = ("leaderboard.csv", "cells.csv", "classes.csv", "leaderboard.md")
"""Written by commands, read by `verify` alone."""


def files_of(folder):
    """The files of a results folder in a fixed order."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def flip_bits(random, path, folder):
    content = bytearray(path.read_bytes())
    for _ in range(int(random.integers(1, 9))):
        if content:
            content[int(random.integers(len(content)))] ^= 1 << int(random.integers(8))
    path.write_bytes(content)


def truncate(random, path, folder):
    content = path.read_bytes()
    path.write_bytes(content[: int(random.integers(len(content) + 1))])


def fill_with_zeros(random, path, folder):
    content = bytearray(path.read_bytes())
    start = int(random.integers(max(1, len(content))))
    end = start + int(random.integers(1, 400))
    content[start:end] = bytes(len(content[start:end]))
    path.write_bytes(content)


def delete(random, path, folder):
    path.unlink()


def swap(random, path, folder):
    """With a file of the same kind, as a careless copy would."""
    others = [other for other in files_of(folder) if other.suffix == path.suffix and other != path]
    if not others:
        path.unlink()
        return
    other = others[int(random.integers(len(others)))]
    mine, its = path.read_bytes(), other.read_bytes()
    path.write_bytes(its)
    other.write_bytes(mine)


def copy_over(random, path, folder):
    others = [other for other in files_of(folder) if other.suffix == path.suffix and other != path]
    if others:
        path.write_bytes(others[int(random.integers(len(others)))].read_bytes())


def rename(random, path, folder):
    """A block or another file under the name of one that might be."""
    name = "".join(random.choice(list("0123456789abcdef"), size=64))
    path.rename(path.with_name(name + path.suffix))


def edit_json(random, path, folder):
    """A number, a text or an entry of a JSON file becomes another."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        places = list(_places(value))
    except (ValueError, RecursionError):
        places = []
    if not places:
        path.unlink()
        return
    holder, key = places[int(random.integers(len(places)))]
    others = [0, 1, -1, 0.5, 1e308, None, True, "", "x", [], {}, [[]], {"a": 1}, "9" * 400, [["0" * 64, 100]]]
    if random.random() < 0.2 and isinstance(holder, dict):
        del holder[key]
    elif random.random() < 0.5 and isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
        holder[key] = holder[key] * 2 + 1
    else:
        holder[key] = others[int(random.integers(len(others)))]
    path.write_text(json.dumps(value), encoding="utf-8")


def nest_deeply(random, path, folder):
    path.write_text("[" * 100_000 + "]" * 100_000)


def _places(value):
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


DAMAGES = (
    flip_bits,
    flip_bits,
    truncate,
    fill_with_zeros,
    delete,
    swap,
    copy_over,
    rename,
    edit_json,
    edit_json,
    edit_json,
    nest_deeply,
)


def damage(folder, number):
    """Damage one to three files of the folder, by this seed. Returns what was done."""
    random = np.random.default_rng([2026, number])
    done = []
    for _ in range(int(random.integers(1, 4))):
        files = [path for path in files_of(folder) if path.name not in TABLES or random.random() < 0.2]
        path = files[int(random.integers(len(files)))]
        kind = DAMAGES[int(random.integers(len(DAMAGES)))]
        done.append(f"{kind.__name__} {path.relative_to(folder)}")
        kind(random, path, folder)
    return done


def figures(shown):
    """The lines of cells as `show` prints them, without their seconds: what could be wrong."""
    found = re.findall(r"^(\S.* × .* × .*): (robust|accuracy|clean|proven) ([\d.]+) % of (\d+)", shown, re.MULTILINE)
    return {(title, kind, percent, int(n)) for title, kind, percent, n in found}


def fresh_copy(template, folder):
    """A copy of the folder `template` at `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder)
    return Path(folder)
