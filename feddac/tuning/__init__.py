"""Settings of every method of an experiment, chosen by the same procedure on validation images."""
