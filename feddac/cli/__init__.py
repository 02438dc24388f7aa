"""The `feddac` command: options, commands, progress, and how failures are told."""

# Flower and Ray read environment variables when they are imported; this sets them before any module below does.
import simulation  # noqa: F401
