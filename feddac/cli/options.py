"""Command-line options made from the settings dataclasses, so that every setting is defined once."""

import dataclasses
import inspect
from collections.abc import Callable, Collection
from typing import Annotated, Any

import click
import typer

from common.config import GROUPS
from common.groups import SearchSettings, TrainSettings
from common.presets import PRESET, PRESETS
from common.settings import Settings, key_of
from feddac.cli.display import quiet

OURS = (*GROUPS, TrainSettings)
FEW = 12
"""So many settings all stand in the short help."""


def config_option(panel: str | None = None) -> Any:
    """`--config`, in a panel of the help."""
    return typer.Option(help="TOML file of settings; flags win over it.", metavar="FILE.toml", rich_help_panel=panel)


def resume_option(help_text: str, panel: str | None = None) -> Any:
    """`--resume`, in a panel of the help."""
    return typer.Option(help=help_text, metavar="RUN_FOLDER", rich_help_panel=panel)


def with_settings(
    *groups: type[Settings], omit: Collection[str] = (), default: str = ""
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a Typer command one option for every field of `groups`, `local_epochs` becoming `--local-epochs`.

    Fields named in `omit` get none. Where there are many, the help shows those that are common or of a group that is
    not ours, and the others with `--help-all`; it shows the defaults of the groups, or says in the words of `default`
    where else those come from. Every such command also has `--quiet`, and `--preset` if it takes settings of the
    search.

    It must have a parameter `settings`: the options the user gave, as kebab-case keys. Those left out are not in it, so
    that a configuration file can fill them.
    """
    chosen = [
        (one, group)
        for group in groups
        for one in dataclasses.fields(group)  # type: ignore[arg-type]
        if one.name not in omit
    ]
    few = len(chosen) <= FEW
    fields = {
        one.name: _option(one, group, few or one.metadata["common"] or group not in OURS, default)
        for one, group in chosen
    }
    if SearchSettings in groups:
        fields[PRESET] = _PRESET

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [one for one in inspect.signature(command, eval_str=True).parameters.values() if one.name != "settings"]

        def run(**given: Any) -> None:
            given.pop("help_all", None)
            settings = {key_of(name): given.pop(name) for name in fields}
            with quiet(given.pop("quiet")):
                command(settings={key: value for key, value in settings.items() if value is not None}, **given)

        options = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
            for name, annotation in fields.items()
        ]
        keyword = inspect.Parameter.KEYWORD_ONLY
        own = [*(one.replace(kind=keyword) for one in own), inspect.Parameter("quiet", keyword, **_QUIET)]
        own += [] if few else [inspect.Parameter("help_all", keyword, **_HELP_ALL)]
        run.__signature__ = inspect.Signature([*own, *options])  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in [*own, *options]}
        run.__doc__ = command.__doc__
        run.__name__ = command.__name__
        return run

    return decorate


def flag_words(key: str, value: object) -> list[str]:
    """How a command line gives a setting: a boolean as --KEY or --no-KEY, anything else as --KEY VALUE."""
    return [f"--{'' if value else 'no-'}{key}"] if isinstance(value, bool) else [f"--{key}", str(value)]


def _option(one: "dataclasses.Field[Any]", group: type[Settings], shown: bool, default: str) -> Any:
    """An annotation of None or the field's type; None stands for an option that was not given."""
    flag = f"--{key_of(one.name)}"
    boolean = isinstance(one.default, bool)
    note = "" if one.default == "" else f" [default: {default or _shown(one.default)}]"
    choices = one.metadata["choices"]
    option = typer.Option(
        f"{flag}/--no-{key_of(one.name)}" if boolean else flag,
        help=one.metadata["help"] + note,
        hidden=not shown,
        show_default=False,
        metavar=None if boolean else "|".join(choices) or _metavar(type(one.default)),
        rich_help_panel=_panel(group),
    )
    return Annotated[type(one.default) | None, option]


_QUIET: dict[str, Any] = {
    "default": False,
    "annotation": Annotated[bool, typer.Option("--quiet", help="Show no progress; the result is printed as ever.")],
}


def _print_all_help(context: typer.Context, wanted: bool) -> None:
    if wanted:
        for parameter in context.command.params:
            if isinstance(parameter, click.Option):
                parameter.hidden = False
        click.echo(context.get_help())
        raise typer.Exit


_HELP_ALL: dict[str, Any] = {
    "default": False,
    "annotation": Annotated[
        bool,
        typer.Option("--help-all", help="Show every option and exit.", callback=_print_all_help, is_eager=True),
    ],
}
_PRESET = Annotated[
    str | None,
    typer.Option(
        f"--{PRESET}",
        help="Settings that go together, in one word; other flags win over it (feddac presets).",
        metavar="|".join(PRESETS),
    ),
]


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return "on" if default else "off"
    return f"{default:g}" if isinstance(default, float) else str(default)


def _metavar(kind: type) -> str:
    return {int: "N", float: "X", str: "TEXT"}[kind]


def _panel(group: type[Settings]) -> str:
    """`DataSettings` -> `Data`."""
    return group.__name__.removesuffix("Settings")
