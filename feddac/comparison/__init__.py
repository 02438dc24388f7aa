"""Methods x seeds from one experiment file: every run a run folder, the result tables, plots and significance."""
