"""How help is written: in groups, no line cut, and commands on lines of their own, ready to be copied.

Typer's own boxes share a line among flag, kind of value and text, and cut the first two where a terminal is narrow.
"""

import inspect

import click
from typer.core import TyperCommand, TyperGroup

OPTIONS = "Options"
WIDEST_FLAG = 24
"""Letters that a flag may take before its text begins on a line of its own."""


class GroupedCommand(TyperCommand):
    """A command whose options stand in groups, with examples below."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each group of options: those without one first."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                name, text = record
                words = f"{_help_of(self, parameter.name)}  {text}" if isinstance(parameter, click.Argument) else text
                record = name, words.replace("\\[", "[").strip()  # Typer escapes what rich would take for markup
                group = getattr(parameter, "rich_help_panel", None) or OPTIONS
                title = "Arguments" if isinstance(parameter, click.Argument) else group
                groups.setdefault(title, []).append(record)
        first = {name: groups.pop(name) for name in ("Arguments", OPTIONS) if name in groups}
        for title, records in {**first, **groups}.items():
            with formatter.section(title):
                formatter.write_dl(records, col_max=WIDEST_FLAG)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples as they are."""
        if self.epilog:
            formatter.write(f"\n{self.epilog.strip()}\n")


class GroupedCommands(TyperGroup):
    """The list of commands, with the whole first sentence of each."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options of the program itself, then its commands."""
        records = [record for parameter in self.get_params(ctx) if (record := parameter.get_help_record(ctx))]
        with formatter.section(OPTIONS):
            formatter.write_dl(records, col_max=WIDEST_FLAG)
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, _sentence(command)) for name, command in commands if command is not None])


def _help_of(command: click.Command, argument: str | None) -> str:
    """The help of an argument: with click 8.5, Typer's own forgets it."""
    assert command.callback is not None
    for name, one in inspect.signature(command.callback).parameters.items():
        if name == argument:
            found = (getattr(info, "help", None) for info in getattr(one.annotation, "__metadata__", ()))
            return next((text for text in found if text), "")
    return ""


def _sentence(command: click.Command) -> str:
    """The first sentence of a command's help."""
    paragraph = " ".join((command.help or "").partition("\n\n")[0].split())
    return paragraph.partition(". ")[0].removesuffix(".") + "."
