"""Running a federation on one machine: engines and virtual devices."""

from simulation.environment import set_defaults

# Flower and Ray read these when they are imported, so they are set before any module below this one imports them.
set_defaults()
