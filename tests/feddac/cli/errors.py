"""How a command ends when its user made a mistake."""


def assert_one_clear_line(stderr: str, part: str) -> None:
    """The last line, and no other, is an error; what was begun may have been said before. No traceback."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    assert "Traceback" not in stderr
    errors = [line for line in lines if line.startswith("Error: ")]
    assert len(errors) == 1, stderr
    assert part.lower() in errors[0].lower()
    assert lines[-1] == errors[0]
