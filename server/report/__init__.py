"""The report of a run: one HTML file that needs neither a network nor a server; `server.report.build` makes it."""
