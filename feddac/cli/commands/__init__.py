"""One module per command of `feddac`."""
