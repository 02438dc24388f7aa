"""Devices of one cohort trained together in one process: stacked weights, one batched product where there were many."""
