"""FedDAC for programs: simulate, search, train, compare and export as functions.

    import feddac

    run = feddac.simulate(fleet="phone,microcontroller", rounds=5)
    model = run.load("phone")
    print(model.classify(images))

A part is imported when it is first used, so that `import feddac` itself takes no time. See docs/api.md.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from common.architecture import Architecture
    from common.budget import DeviceBudget
    from common.errors import FedDACError
    from common.progress import Progress
    from dac.classifier import Classifier
    from feddac.comparing import Comparison, compare
    from feddac.runs import Run, export, load, read_run
    from feddac.working import search, simulate, train

    __version__: str

__all__ = [
    "Architecture",
    "Classifier",
    "Comparison",
    "DeviceBudget",
    "FedDACError",
    "Progress",
    "Run",
    "__version__",
    "compare",
    "export",
    "load",
    "read_run",
    "search",
    "simulate",
    "train",
]

_MODULES = {
    "common.architecture": ["Architecture"],
    "common.budget": ["DeviceBudget"],
    "common.errors": ["FedDACError"],
    "common.progress": ["Progress"],
    "dac.classifier": ["Classifier"],
    "feddac.comparing": ["Comparison", "compare"],
    "feddac.runs": ["Run", "export", "load", "read_run"],
    "feddac.working": ["search", "simulate", "train"],
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import what is asked for, once."""
    if name == "__version__":
        _check_own_code()
        value: Any = import_module("common.version").version()
    elif name in _MODULE_OF:
        _check_own_code()
        value = getattr(import_module(_MODULE_OF[name]), name)
    else:
        raise AttributeError(f"feddac has no {name!r}; it has {', '.join(__all__)}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


def _check_own_code() -> None:
    """Raise ImportError where another package of a plain name such as `common` hides FedDAC's."""
    root = Path(__file__).resolve().parent.parent
    for name in ("common", "dac", "server", "client", "simulation"):
        found = getattr(import_module(name), "__file__", None)
        if found is None or Path(found).resolve().parent.parent != root:
            raise ImportError(
                f"FedDAC's package {name!r} is hidden by {found or name}: rename that, or start Python elsewhere"
            )
