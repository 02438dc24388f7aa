"""The arrows between the packages, read from the source: who may import whom, and what must run without Flower."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from common.methods import CONTRACTS

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("common", "dac", "server", "client", "simulation", "feddac")
FORBIDDEN = {
    "common": {"dac", "server", "client", "simulation", "feddac"},
    "dac": {"server", "client", "simulation", "feddac", "flwr", "flwr_datasets", "ray"},
    "client": {"server", "dac", "simulation", "feddac"},
    "server": {"client", "simulation", "feddac"},
    "simulation": {"feddac"},
    "feddac": set[str](),
}
SOURCES = {package: sorted((ROOT / package).rglob("*.py")) for package in PACKAGES}
FILES = [path for paths in SOURCES.values() for path in paths]


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module named by an import statement, also inside functions, and by importlib.import_module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "" if node.level == 0 else "." * node.level
        elif isinstance(node, ast.Call) and _called(node).endswith(("import_module", "__import__")):
            yield from (str(one.value) for one in node.args[:1] if isinstance(one, ast.Constant))


def _called(node: ast.Call) -> str:
    return ast.unparse(node.func)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def top_level(path: Path) -> frozenset[str]:
    return frozenset(name.partition(".")[0] for name in imports(parsed(path)))


def test_the_reader_of_imports_sees_every_form() -> None:
    text = "import a.b, c\nfrom d.e import f\ndef g():\n import h\n importlib.import_module('i.j')\nfrom . import k"
    assert set(imports(ast.parse(text))) == {"a.b", "c", "d.e", "h", "i.j", "."}


def test_every_package_has_sources() -> None:
    assert all(SOURCES.values())


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_follow_the_arrows(package: str) -> None:
    for path in SOURCES[package]:
        assert not top_level(path) & FORBIDDEN[package], path


def test_the_command_line_is_imported_by_itself_alone() -> None:
    """What commands do can be done without them: by the Python API, a comparison or a tuning."""
    for path in FILES:
        if path.relative_to(ROOT).parts[:2] != ("feddac", "cli"):
            named = set(imports(parsed(path))) | set(_names_from_packages(parsed(path)))
            assert not [name for name in named if f"{name}.".startswith("feddac.cli.")], path


def _names_from_packages(tree: ast.AST) -> Iterator[str]:
    """`a.b` of `from a import b`, which may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{one.name}" for one in node.names)


def test_imports_are_absolute() -> None:
    # one spelling per module, so that the test above cannot be walked around
    assert [path for path in FILES if "" in top_level(path)] == []


def module_graph() -> dict[str, set[str]]:
    """Which of our modules each imports when it is itself imported: not inside functions, nor for types alone."""
    graph: dict[str, set[str]] = {module_name(path): set() for path in FILES}
    for path in FILES:
        for node in run_at_import(parsed(path)):
            for name in imports(node):
                # `from package import module` names modules, `from module import name` does not
                modules = {f"{name}.{one.name}" for one in node.names} & set(graph)
                graph[module_name(path)] |= modules or {name} & set(graph)
    return {name: found - {name} for name, found in graph.items()}


def run_at_import(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from run_at_import(node)


def test_no_module_imports_itself_by_way_of_others() -> None:
    remaining = module_graph()
    while leaves := [name for name, found in remaining.items() if not found & set(remaining)]:
        for name in leaves:
            del remaining[name]
    assert remaining == {}, "these import each other in a circle, or are imported by one"


@pytest.mark.parametrize("package", PACKAGES)
def test_no_method_is_known_by_its_name_outside_the_registry(package: str) -> None:
    """A method is asked, never compared: what differs between methods is in their own files."""
    names = set(CONTRACTS)
    for path in SOURCES[package]:
        if path.relative_to(ROOT).parts[:2] == ("common", "methods"):
            continue
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Compare):
                text = ast.unparse(node)
                assert "method.method" not in text, path
                constants = {one.value for one in ast.walk(node) if isinstance(one, ast.Constant)}
                assert not ("method" in text and constants & names), (path, text)


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.parent.name == "methods" and path.stem in CONTRACTS],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_a_half_of_a_method_can_be_read_in_one_sitting(path: Path) -> None:
    """Those that train averaged weights are shorter than those that bring a search, masks or features of their own."""
    longest = 250 if path.stem in ("autoflip", "fedgkt", "fednas") else 150
    assert len(path.read_text(encoding="utf-8").splitlines()) <= longest


@pytest.mark.parametrize("package", PACKAGES)
def test_a_device_is_a_participant_and_a_torch_device_an_accelerator(package: str) -> None:
    for path in SOURCES[package]:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.arg) and node.annotation is not None:
                assert "torch.device" not in ast.unparse(node.annotation) or node.arg == "accelerator", path


def test_flower_enters_common_only_through_the_messages() -> None:
    found = {path.name for path in SOURCES["common"] if "flwr" in top_level(path)}
    assert found == {"handshake.py", "messages.py", "message_arrays.py", "message_fields.py"}


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_is_unpickled(package: str) -> None:
    for path in SOURCES[package]:
        assert not top_level(path) & {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}, path
        for node in ast.walk(parsed(path)):
            if not isinstance(node, ast.Call):
                continue
            options = {one.arg: ast.unparse(one.value) for one in node.keywords}
            assert options.get("allow_pickle", "False") == "False", path
            if _called(node) == "torch.load":
                assert options.get("weights_only") == "True", path


BLOCKED = (
    "flwr",
    "flwr_datasets",
    "ray",
    "typer",
    "rich",
    "sklearn",
    "datasets",
    "tensorboard",
    "matplotlib",
    "jinja2",
    "loky",
)
NEEDS_MORE = {
    "common.handshake",
    "common.messages",
    "common.message_arrays",
    "common.message_fields",
    "common.fleet",
    "common.data.partition",
}

PROGRAM = """
import importlib, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1].split(","):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
sys.path.insert(0, sys.argv[2])
for name in sys.argv[3:]:
    importlib.import_module(name)
print("imported", len(sys.argv) - 3)
"""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def run_blocked(names: list[str]) -> subprocess.CompletedProcess[str]:
    arguments = [",".join(BLOCKED), str(ROOT), *names]
    return subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=False)


def test_search_and_training_import_without_flower_and_the_rest() -> None:
    """A bare machine with a GPU needs torch, torchvision, numpy, pillow and pyarrow alone."""
    names = [module_name(path) for path in [*SOURCES["common"], *SOURCES["dac"]]]
    names = [name for name in names if name not in NEEDS_MORE]
    result = run_blocked(names)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == f"imported {len(names)}"


def test_the_blocker_blocks() -> None:
    result = run_blocked(["common.messages"])
    assert result.returncode != 0
    assert "flwr is blocked" in result.stderr


@pytest.mark.parametrize(
    "arguments", [["--version"], ["--help"], ["simulate", "--help"], ["simulate", "--no-such-flag"]]
)
def test_help_and_a_mistyped_flag_wait_for_no_library(arguments: list[str]) -> None:
    """The command line itself is there at once: PyTorch, Flower and plotting are imported by what needs them."""
    program = "\n".join(
        [
            PROGRAM.partition("for name in")[0],
            "from feddac.cli.main import run",
            "sys.exit(run(sys.argv[3:]))",
        ]
    )
    blocked = ",".join({"torch", "torchvision", "flwr", "ray", "matplotlib", "sklearn", "pyarrow"})
    done = subprocess.run(
        [sys.executable, "-c", program, blocked, str(ROOT), *arguments], capture_output=True, text=True
    )
    assert "is blocked" not in done.stderr
    assert done.returncode == (2 if arguments[-1] == "--no-such-flag" else 0)
