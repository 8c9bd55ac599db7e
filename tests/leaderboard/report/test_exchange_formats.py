"""The leaderboard as JSON and as LaTeX."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest
from conftest import run_here

from builders import bits, cell_info, result
from gauntlet.bench.speed.synthetic_store import StoreSize, make_store
from gauntlet.leaderboard.report.latex_tables import latex, latex_tables
from gauntlet.leaderboard.report.leaderboard_json import json_schema, leaderboard_json
from gauntlet.leaderboard.report.model_table import ModelDescription
from gauntlet.leaderboard.results.published_figure import PublishedFigure
from gauntlet.leaderboard.rows.build_rows import build_rows
from gauntlet.leaderboard.rows.references import references
from page_results import CONTEXT, HOSTILE, planted

jsonschema = pytest.importorskip("jsonschema")
pytest.importorskip("jinja2", reason="the extra page is not installed")
SPECIAL = "a_b & 50 % #1 ${x}^2~\\end{document} → [naïve] Ж 中"


def rows(extra=()):
    return build_rows(
        [
            *planted(),
            result((), cell_info("failed", "square"), error=HOSTILE, expected=20),
            result(bits(30, 10), cell_info("net", "naive", attack_kind="naive", threat="L2:0.5")),
            *extra,
        ]
    )


def parsed(found):
    published = [("net", PublishedFigure(model="Net", data="digits", robust=0.4, threat="Linf:0.15", source="a paper"))]
    text = leaderboard_json(
        found, CONTEXT, references(found, published), [ModelDescription("net", name="Net of Somebody")]
    )
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_the_schema_is_one_and_the_file_fits_it():
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(parsed(rows()), schema)
    jsonschema.validate(parsed([]), schema)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema_version",), 2),
        (("rows", 0, "robust", "accuracy"), 1.5),
        (("rows", 0, "status"), "fine"),
        (("rows", 0, "attacks", "pgd"), {"status": "ok"}),
        (("rows", 0, "rank", "interval"), [1]),
        (("rows", 0, "seeds"), "0"),
    ],
)
def test_a_file_that_says_something_else_does_not_fit_the_schema(path, value):
    content = parsed(rows())
    place = content
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, json_schema())


def test_every_field_of_the_file_is_described():
    described = json_schema()["$defs"]["row"]
    for row in parsed(rows())["rows"]:
        assert set(row) == set(described["required"]) == set(described["properties"])


def test_json_has_the_figures_of_the_rows():
    found = rows()
    for row, written in zip(found, parsed(found)["rows"], strict=True):
        assert (written["model"], written["status"]) == (row.model, row.status)
        if row.robust.n:
            assert written["robust"]["accuracy"] == row.robust.estimate
            assert (written["robust"]["low"], written["robust"]["high"]) == row.robust.interval
    net = parsed(found)["rows"][0]
    assert net["rank"]["interval"] == [1, 1]
    assert net["published"][0] | {"published": 0.4, "covered": False} == net["published"][0]
    assert net["description"] == {"model": "net", "name": "Net of Somebody"}


def test_text_for_latex_is_printed_literally():
    assert latex("a_b & 50 % #1 ${x}^2~\\") == (
        "a\\_b \\& 50 \\% \\#1 \\$\\{x\\}\\textasciicircum{}2\\textasciitilde{}\\textbackslash{}"
    )
    assert latex("→ [naïve] Ж") == "$\\rightarrow$ {[}naïve{]} U+0416"
    assert latex("a--b <<c>> ,,d'' ?`") == "a-{}-b <{}<c>{}> ,{},d'{}' ?{}`"


def test_latex_has_a_table_with_booktabs_for_each_threat_model():
    text = latex_tables(rows(), {"net": ModelDescription("net", name="Net & Sons")})
    assert re.findall(r"\\label\{(.*?)\}", text) == ["tab:gauntlet-1", "tab:gauntlet-2"]
    for rule in ("toprule", "midrule", "bottomrule", "begin{table}", "end{table}"):
        assert text.count(f"\\{rule}") == 2
    assert "Net \\& Sons" in text
    body = text.split("\\midrule")[1].split("\\bottomrule")[0].strip().splitlines()
    header = next(line for line in text.splitlines() if line.startswith("Rank"))
    assert all(len(re.findall(r"(?<!\\)&", line)) == len(re.findall(r"(?<!\\)&", header)) for line in body)


def hostile():
    return result(bits(20, 12), cell_info(SPECIAL, SPECIAL, defense=SPECIAL, data=SPECIAL, suite=SPECIAL))


def test_latex_is_balanced_and_every_special_character_is_escaped_whatever_the_names_are():
    text = latex_tables(rows([hostile()]))
    assert text.count("\\begin{table}") == 3
    is_parsed(text)


def is_parsed(text):
    """Fail unless environments and braces are balanced, and every line has the columns of its table and no bare command."""
    open_environments = []
    for command, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if command == "begin":
            open_environments.append(name)
        else:
            assert open_environments.pop() == name
    assert not open_environments
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", text.replace("\\\\", "")):
        depth += 1 if brace == "{" else -1
        assert depth >= 0
    assert depth == 0
    tables = re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", text, re.DOTALL)
    assert len(tables) == text.count("\\begin{table}")
    for columns, body in tables:
        lines = [line for line in body.splitlines() if line.endswith("\\\\")]
        assert len(lines) > 1
        for line in lines:
            assert len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1
            assert not re.search(r"(?<!\\)[#%_^~]", line)
            assert len(re.findall(r"(?<!\\)\$", line)) % 2 == 0
            assert line.isascii() or not re.search(r"[^\x20-\x7e\u00a1-\u017f]", line)


@pytest.fixture(scope="module")
def pdflatex():
    """The program, where booktabs is installed beside it."""
    program, finder = shutil.which("pdflatex"), shutil.which("kpsewhich")
    found = [finder, "booktabs.sty"]
    if program is None or finder is None or subprocess.run(found, capture_output=True, check=False).returncode:
        pytest.skip("pdflatex with booktabs is not installed (Debian: apt-get install texlive-latex-recommended)")
    return program


def test_a_long_name_keeps_its_spaces_and_its_words():
    for name in (
        "Carmon et al., 2019: WideResNet",
        "Robust WideResNet by Engstrom",
        "Wide ResNet 28 10, TRADES, eps 8/255",
    ):
        named = result(bits(20, 12), cell_info(name, "naive", attack_kind="naive"))
        text = latex_tables(build_rows([named])).replace("\\allowbreak{}", "")
        assert name in text


@pytest.mark.parametrize(
    "name",
    [
        "w" * 300,
        "net.py:build_with_all_layers@best-of-ten.safetensors(mean=0.5,std=0.25)",
        "敵対的頑健性" * 6,
        "a name of several words, and another one: as people write them",
    ],
)
def test_long_names_are_broken_so_that_the_table_fits_the_page(pdflatex, tmp_path, name):
    named = result(bits(20, 12), cell_info(name, "naive", attack_kind="naive", defense=name, data=name, suite=name))
    (tmp_path / "leaderboard.tex").write_text(latex_tables(build_rows([named])), encoding="utf-8")
    is_parsed((tmp_path / "leaderboard.tex").read_text(encoding="utf-8"))
    assert "Overfull" not in compiles(pdflatex, tmp_path)


def test_latex_compiles_whatever_the_names_are(pdflatex, tmp_path):
    (tmp_path / "leaderboard.tex").write_text(latex_tables(rows([hostile()])), encoding="utf-8")
    compiles(pdflatex, tmp_path)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A results folder for which `gauntlet leaderboard` wrote both formats."""
    run = make_store(tmp_path_factory.mktemp("formats") / "out", StoreSize(3, 2, 60))
    assert run_here("leaderboard", run.root, "--format=latex,json") == 0
    return run.root


def test_the_commands_files_fit_the_schema_and_are_balanced(written):
    content = json.loads((written / "leaderboard.json").read_text(encoding="utf-8"))
    jsonschema.validate(content, json_schema())
    assert len(content["rows"]) == 3
    is_parsed((written / "leaderboard.tex").read_text(encoding="utf-8"))


def test_the_commands_latex_compiles(pdflatex, written):
    compiles(pdflatex, written)


def compiles(program, folder):
    """What the program says; fail unless it makes a document of the folder's leaderboard.tex, by the preamble it asks for."""
    (folder / "paper.tex").write_text(
        "\\documentclass{article}\\usepackage[utf8]{inputenc}\\usepackage[T1]{fontenc}\\usepackage{booktabs}"
        "\\begin{document}\\input{leaderboard}\\end{document}",
        encoding="utf-8",
    )
    command = [program, "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert (folder / "paper.pdf").stat().st_size > 1000
    return done.stdout
