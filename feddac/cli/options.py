"""Command-line options made from the settings dataclasses, so that every setting is defined once."""

import dataclasses
import inspect
from collections.abc import Callable, Collection
from typing import Annotated, Any

import typer
from rich.markup import escape

from common.settings import Settings, key_of
from feddac.cli.display import quiet


def with_settings(
    *groups: type[Settings], omit: Collection[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a Typer command one option for every field of `groups`, `local_epochs` becoming `--local-epochs`.

    Fields named in `omit` get none.

    Every such command also has `--quiet`. It must have a parameter `settings`: the options the user gave, as kebab-case
    keys. Those left out are not in it, so that a configuration file can fill them.
    """
    fields = {
        one.name: _option(one, group)
        for group in groups
        for one in dataclasses.fields(group)  # type: ignore[arg-type]
        if one.name not in omit
    }

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [one for one in inspect.signature(command, eval_str=True).parameters.values() if one.name != "settings"]

        def run(**given: Any) -> None:
            settings = {key_of(name): given.pop(name) for name in fields}
            with quiet(given.pop("quiet")):
                command(settings={key: value for key, value in settings.items() if value is not None}, **given)

        options = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
            for name, annotation in fields.items()
        ]
        keyword = inspect.Parameter.KEYWORD_ONLY
        own = [*(one.replace(kind=keyword) for one in own), inspect.Parameter("quiet", keyword, **_QUIET)]
        run.__signature__ = inspect.Signature([*own, *options])  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in [*own, *options]}
        run.__doc__ = command.__doc__
        run.__name__ = command.__name__
        return run

    return decorate


def _option(one: "dataclasses.Field[Any]", group: type[Settings]) -> Any:
    """An annotation of None or the field's type; None stands for an option that was not given."""
    flag = f"--{key_of(one.name)}"
    boolean = isinstance(one.default, bool)
    default = "" if one.default == "" else f" [dim]\\[default: {_shown(one.default)}][/dim]"
    choices = one.metadata["choices"]
    option = typer.Option(
        f"{flag}/--no-{key_of(one.name)}" if boolean else flag,
        help=escape(one.metadata["help"]) + default,
        show_default=False,
        metavar=None if boolean else "|".join(choices) or _metavar(type(one.default)),
        rich_help_panel=_panel(group),
    )
    return Annotated[type(one.default) | None, option]


_QUIET: dict[str, Any] = {
    "default": False,
    "annotation": Annotated[bool, typer.Option("--quiet", help="Show no progress; the result is printed as ever.")],
}


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return "on" if default else "off"
    return f"{default:g}" if isinstance(default, float) else str(default)


def _metavar(kind: type) -> str:
    return {int: "N", float: "X", str: "TEXT"}[kind]


def _panel(group: type[Settings]) -> str:
    """`DataSettings` -> `Data`."""
    return group.__name__.removesuffix("Settings")
