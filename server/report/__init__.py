"""The report of a run: one HTML file that needs neither a network nor a server."""

from server.report.build import build_report

__all__ = ["build_report"]
