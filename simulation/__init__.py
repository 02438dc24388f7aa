"""Running FedDAC on one machine: engines, command line, progress."""

from simulation.environment import set_defaults

# Flower and Ray read these when they are imported, so they are set before any module below this one imports them.
set_defaults()
