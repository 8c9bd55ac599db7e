"""The parts of the page that are no results: templates and style of our own, and the script of DataTables from `itables`."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gauntlet.leaderboard.page.chart import place
from gauntlet.leaderboard.report import formatting
from gauntlet.leaderboard.results.escape import visible, visible_lines

if TYPE_CHECKING:  # jinja2 is an extra
    from jinja2 import Environment

FIRST: Final = (
    "const root = document.documentElement; root.classList.add('early', 'scripted'); "
    "addEventListener('load', () => root.classList.remove('early'));"
)
"""What runs first: the table is not drawn until the script has left out what is not shown, which takes longer than all else."""
_EXPORTED = re.compile(r"export\s*\{([^}]*)\}\s*;?")
_DEFAULT = re.compile(r"([\w$]+) as default")
_BREAK = re.compile(r"([._/@-])(?=[^._/@-])")
"""Where a name may be broken; no entity of HTML has one of these."""
_WEB = re.compile(r"https?://[^\s\"'<>]+", re.ASCII)


class PageMissingError(RuntimeError):
    """What a page needs is not installed; the message has the command that installs it."""


def missing() -> str:
    """Why no page can be written, with the command that changes it; empty if everything is installed."""
    absent = [name for name in ("jinja2", "itables") if importlib.util.find_spec(name) is None]
    return f"a page needs {' and '.join(absent)}: pip install 'robust-gauntlet[page]'" if absent else ""


def web_address(text: str) -> bool:
    """Whether the text is an address of the web, which may be a link."""
    return _WEB.fullmatch(text) is not None


@cache
def style() -> str:
    """The style of the page."""
    return (files(__package__) / "templates" / "page.css").read_text(encoding="utf-8")


def script() -> str:
    """The script of the page, of one module: DataTables, then ours. Raises PageMissingError."""
    text, problem = _script()
    if problem:
        raise PageMissingError(problem)
    return text


@cache
def _script() -> tuple[str, str]:
    """The script and why there is none, of which one is empty; read once, whatever becomes of the file later."""
    own = (files(__package__) / "templates" / "page.js").read_text(encoding="utf-8")
    try:
        return f"{_datatables()}\n{own}", ""
    except PageMissingError as error:
        return "", str(error)


def _datatables() -> str:
    """The text of DataTables as `itables` ships it, which leaves the class under the name `DataTable`."""
    spec = importlib.util.find_spec("itables")
    if spec is None or spec.origin is None:
        raise PageMissingError(missing())
    path = Path(spec.origin).parent / "html" / "dt_bundle.js"
    try:
        text = path.read_text(encoding="utf-8").replace("\r\n", "\n")
    except OSError as error:
        raise PageMissingError(f"itables has no script at {path} ({error}): pip install 'itables>=2.4,<3'") from error
    found = _EXPORTED.search(text)
    name = _DEFAULT.search(found[1]) if found else None
    if found is None or name is None or "</script" in text.lower():
        raise PageMissingError(f"the script of itables, {path}, has another form: pip install 'itables>=2.4,<3'")
    return f"{text[: found.start()]}const DataTable={name[1]};{text[found.end() :]}"


def policy(*scripts: str) -> str:
    """What a browser may do for the page: run these scripts alone, show pictures that the file holds, and load nothing."""
    digests = (base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
    return (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"script-src {allowed}"
    )


def load() -> None:
    """Read what pages are made of, unless something is not installed: before code that could put files in the place of it.

    A script of another form is no error here: it is when a page is written.
    """
    if not missing():
        style()
        _script()
        for name in environment().list_templates(extensions=["html"]):
            environment().get_template(name)


def _order(value: float | None) -> str:
    """What an entry is sorted by; empty where there is no figure."""
    return "" if value is None else f"{value:.7g}"


@cache
def environment() -> Environment:
    """The templates, in which every text is escaped and every character visible. Raises PageMissingError."""
    if lacking := missing():
        raise PageMissingError(lacking)
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup, escape

    def shown(value: object) -> object:
        return value if isinstance(value, Markup | StrictUndefined) else visible(str(value))

    made = Environment(
        loader=PackageLoader("gauntlet.leaderboard.page"),
        autoescape=True,
        undefined=StrictUndefined,
        # Code that is evaluated may change the files once the templates are loaded.
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=shown,
    )
    made.tests["web_address"] = web_address
    made.filters |= {
        "verbatim": lambda text: escape(visible_lines(text)),
        "counted": formatting.counted,
        "percent": formatting.percent,
        "with_interval": formatting.with_interval,
        "place": place,
        "order": _order,
        "breakable": lambda text: Markup(_BREAK.sub(r"\1<wbr>", str(escape(visible(text))))),  # noqa: S704
    }
    return made
