"""`feddac presets` and `feddac profiles`: what may be named in a flag, in a table."""

from itertools import starmap
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from common.settings import Scalar
from feddac.cli.display import result_console
from feddac.cli.options import flag_words

PROFILE_EXAMPLES = """
Examples:
  feddac profiles
  feddac profiles --max-latency-ms 5
"""


def presets() -> None:
    """List the presets: settings that go together, for --preset."""
    from common.presets import PRESETS

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("preset", no_wrap=True)
    table.add_column("what for")
    table.add_column("the same as", overflow="fold")
    for name, preset in PRESETS.items():
        flags = "\n".join(starmap(_as_flag, preset.settings.items()))
        table.add_row(name, preset.purpose, flags or "no flag")
    result_console().print(table)


def _as_flag(key: str, value: Scalar) -> str:
    return " ".join(flag_words(key, f"{value:g}" if isinstance(value, float) else value))


def profiles(
    max_latency_ms: Annotated[
        float, typer.Option(min=0.001, metavar="X", help="Time one image may take; decides the MACs.")
    ] = 20.0,
) -> None:
    """List the device profiles: kinds of hardware and the budgets they stand for, for --fleet."""
    from common.fleet import PROFILES
    from common.simulated_time import LINKS
    from common.wording import count, plain, size

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("profile", no_wrap=True)
    for heading in ("MACs of plain\nconvolutions", "params", "peak\nmemory"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("what it is, and where the figures come from", overflow="fold")
    for name, profile in PROFILES.items():
        budget = profile.budget(max_latency_ms)
        macs = max_latency_ms / 1000 / profile.rates.of("conv", "mac")
        figures = (count(macs), count(budget.bound("params")), size(budget.bound("peak_memory_bytes")))
        source = f"{profile.source}. Network: {LINKS[name].source}"
        table.add_row(name, *map(plain, figures), source)
    result_console().print(table)
