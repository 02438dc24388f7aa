"""Help that is short, whole in a narrow terminal, and the same as what the commands accept."""

import re

import click
import pytest
import typer

from feddac.cli.main import application, run, with_changes

COMMANDS = typer.main.get_command(application()).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_no_flag_and_no_kind_of_value_is_cut_at_80_columns(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    options = [one for one in COMMANDS[command].params if isinstance(one, click.Option)]
    everything = "--help-all" if any("--help-all" in one.opts for one in options) else "--help"
    assert run([command, everything]) == 0
    text = capsys.readouterr().out
    help_part = text.partition("Examples:")[0]
    assert max(map(len, help_part.splitlines())) <= 80
    assert "…" not in text
    assert "\\[" not in text
    for option in options:
        for flag in (*option.opts, *option.secondary_opts):
            assert re.search(rf"{re.escape(flag)}(?![\w-])", text), flag


def test_the_short_help_is_a_fraction_of_the_whole(capsys: pytest.CaptureFixture[str]) -> None:
    run(["simulate", "--help"])
    short = capsys.readouterr().out
    run(["simulate", "--help-all"])
    whole = capsys.readouterr().out
    assert len(short.splitlines()) < len(whole.splitlines()) / 2
    assert "--preset default|recommended|paper" in short
    assert "--trim-share" not in short
    assert "--trim-share" in whole


def test_arguments_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    run(["compare", "--help"])
    assert "EXPERIMENT  Experiment file, or one that FedDAC ships" in capsys.readouterr().out


def test_every_command_is_listed_with_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    run(["--help"])
    text = capsys.readouterr().out
    for name in COMMANDS:
        assert re.search(rf"^  {name} +[A-Z]", text, re.MULTILINE)
    assert "..." not in text.partition("Commands:")[2]


def test_the_shell_completes_flags(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    variables = {"_FEDDAC_COMPLETE": "complete_bash", "COMP_WORDS": "feddac simulate --max-m", "COMP_CWORD": "2"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        run([])
    assert capsys.readouterr().out.split() == ["--max-macs", "--max-memory"]


def test_presets_and_profiles_are_listed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["presets"]) == 0
    flags = capsys.readouterr().out
    assert "--distillation-epochs 1" in flags
    assert "--no-device-evaluation" in flags
    assert " False" not in flags
    assert run(["profiles", "--max-latency-ms", "40"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"microcontroller +4\.98 M +786 k +983 kB", text)
    assert "…" not in text


def test_the_command_that_works_replaces_flags() -> None:
    given = ["simulate", "--width=2", "--seed", "1", "--max-macs", "5"]
    assert with_changes(given, {"width": 0.5, "max-macs": "1M"}) == "feddac simulate --seed 1 --width 0.5 --max-macs 1M"


def test_export_says_that_it_tests_on_the_data_of_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "or package.module:function. [default: the run's]" in shown
    assert "default: digits" not in shown
