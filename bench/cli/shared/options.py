"""What the commands share: help in groups with defaults and exit codes, and the options that several commands have."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final

import click

from gauntlet.bench.config.model_ref import MODEL_SETTINGS
from gauntlet.bench.config.options import OPTIONS, Group, Option
from gauntlet.bench.environment.exit_codes import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_PASSED, EXIT_USAGE, MEANINGS

TITLES: Final[Mapping[Group, str]] = {
    "model": "Model",
    "data": "Data",
    "attack": "Attack",
    "training": "Training",
    "gate": "Gate",
    "output": "Output",
    "machine": "Machine",
    "configuration": "Configuration",
}
"""Headings of the groups, in the order of the help."""
OTHER: Final = "Other options"
EXITS: Final = (EXIT_PASSED, EXIT_FAILED, EXIT_USAGE)
"""The codes of most commands."""
RESUMABLE: Final = (*EXITS, EXIT_INTERRUPTED)
"""The codes of commands that resume when they are run again."""

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class GroupedOption(click.Option):
    """An option whose help stands under the heading of its group."""

    def __init__(self, *args: Any, group: Group, **settings: Any) -> None:
        super().__init__(*args, **{"show_default": True, **settings})
        self.group = group


class SectionedHelp(click.Command):
    """Help with the options in groups and the exit codes at the end.

    `arguments` says what the arguments are, `failed` and `interrupted` what exit codes 1 and 130 mean for the command; `exits`
    are the codes that it uses.
    """

    def __init__(
        self,
        *args: Any,
        arguments: Mapping[str, str] | None = None,
        failed: str = "",
        interrupted: str = "",
        exits: Collection[int] = EXITS,
        **settings: Any,
    ) -> None:
        super().__init__(*args, **settings)
        self.arguments = dict(arguments or {})
        own = {EXIT_FAILED: failed, EXIT_INTERRUPTED: interrupted}
        self.exits = {code: own.get(code) or MEANINGS[code] for code in exits}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the arguments, then each group of options under its heading."""
        if self.arguments:
            with formatter.section("Arguments"):
                formatter.write_dl(list(self.arguments.items()))
        sections: dict[str, list[tuple[str, str]]] = {title: [] for title in (*TITLES.values(), OTHER)}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                title = TITLES[parameter.group] if isinstance(parameter, GroupedOption) else OTHER
                sections[title].append((record[0], record[1].replace("  [", " [")))
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the exit codes."""
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), meaning) for code, meaning in self.exits.items()])


class SectionedGroup(SectionedHelp, click.Group):
    """A group of commands, listed in the order in which they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands."""
        return list(self.commands)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, then the options."""
        self.format_commands(ctx, formatter)
        super().format_options(ctx, formatter)


def command(name: str | None = None, **settings: Any) -> Callable[[Callable[..., Any]], SectionedHelp]:
    """As `click.command`, with sectioned help."""
    return click.command(name, cls=SectionedHelp, **settings)


def option(*names: str, group: Group, **settings: Any) -> Decorator:
    """As `click.option`, in a group of the help; the default is shown."""
    return click.option(*names, cls=GroupedOption, group=group, **settings)


def run_option(name: str, *, parameter: str | None = None, **settings: Any) -> Decorator:
    """The option of a run with that name; `parameter` is the function's name for it, and `settings` override click's."""
    (found,) = (one for one in OPTIONS if one.name == name)
    return _click_option(found, *([parameter] if parameter else []), **settings)


def run_options(without: Collection[str] = (), single: Collection[str] = ()) -> Decorator:
    """All options of a run but those named in `without`; the help says of those in `single` nothing of repeating."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for one in reversed(OPTIONS):
            if one.name not in without:
                function = _click_option(one, help=one.text(single=one.name in single))(function)
        return function

    return decorate


def model_options() -> Decorator:
    """The settings of a model that is named once."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for one in reversed(OPTIONS):
            if one.key in MODEL_SETTINGS:
                function = _click_option(one)(function)
        return function

    return decorate


def _click_option(one: Option, *parameter: str, **settings: Any) -> Decorator:
    if one.flag:
        return option(f"--{one.name}", *parameter, group=one.group, **{"is_flag": True, "help": one.text(), **settings})
    # Without a default of its own: what is not given leaves the configuration as it is.
    bare = {} if one.bare is None else {"is_flag": False, "flag_value": one.bare, "show_default": False}
    given = {**bare, "type": one.kind, "multiple": one.many, "metavar": one.metavar, "help": one.text(), **settings}
    return option(f"--{one.name}", *parameter, group=one.group, **given)


def plugin_option() -> Decorator:
    """`--plugin`, as the parameter `plugins`."""
    return run_option("plugin", parameter="plugins")


def trust_option() -> Decorator:
    """`--trust`, as the parameter `trust`."""
    return option(
        "--trust",
        group="configuration",
        is_flag=True,
        help="Run the code that RUN names (plugins, Python files of models and data); without it, it is listed and not run.",
    )


RUN: Final = {"RUN": "Results folder (its latest run), or one of its runs/… folders."}
"""Help of the argument RUN."""


CONDITIONS: Final = {"CONDITIONS": "Patterns of conditions, such as 'cnn.pgd_digits *' or '* L2:*'. [default: all]"}
"""Help of the argument CONDITIONS."""


def conditions_argument() -> Decorator:
    """The argument CONDITIONS of the commands on strength, as the parameter `patterns`."""
    return click.argument("patterns", metavar="[CONDITIONS…]", nargs=-1)


def networks_option() -> Decorator:
    """`--networks`, as the parameter `networks`."""
    return option(
        "--networks",
        group="model",
        type=click.Path(path_type=Path, file_okay=False, exists=True),
        metavar="DIR",
        help="Folder with the files of the published networks (docs/strength.md). [default: the zoo alone]",
    )


def run_argument() -> Decorator:
    """The argument RUN, as the parameter `folder`."""
    return click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))


def load_plugins_named(plugins: tuple[str, ...]) -> None:
    """Load the plugins that the option names, else those of the configuration."""
    from gauntlet.bench.config.files import plugin_files

    if files := plugin_files(plugins, Path.cwd()):
        from gauntlet.bench.registry.plugin_files import load_plugins

        load_plugins(files)
