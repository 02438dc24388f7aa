"""`flwr run .` starts from the same defaults as `feddac simulate`."""

import tomllib

from flwr.common.config import get_fused_config_from_dir, validate_config
from flwr.supercore.fab_format_version import normalize_and_validate_fab_format, validate_fab_files_for_format

from common.config import Config
from simulation.environment import CODE_ROOT


def test_the_flower_table_is_the_default_configuration() -> None:
    project = tomllib.loads((CODE_ROOT / "pyproject.toml").read_text())
    assert project["tool"]["flwr"]["app"]["config"] == Config().to_mapping()


def test_the_app_is_of_flowers_present_format() -> None:
    project = tomllib.loads((CODE_ROOT / "pyproject.toml").read_text())
    found = normalize_and_validate_fab_format(project)
    assert (found.fab_format_version, found.flwr_version_min, found.flwr_version_target) == (1, "1.41", "1.41.0")
    validate_fab_files_for_format(project, ["LICENSE", "pyproject.toml"])


def test_flower_accepts_the_project_and_gives_the_defaults() -> None:
    project = tomllib.loads((CODE_ROOT / "pyproject.toml").read_text())
    valid, errors, _ = validate_config(project, check_module=False)
    assert (valid, errors) == (True, [])
    assert Config.from_mapping(get_fused_config_from_dir(CODE_ROOT, {})) == Config()
