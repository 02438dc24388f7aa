"""DAC on a device: train the architecture it was given."""

from client.training import train_step
from common.methods.training import TRAIN

STEPS = {TRAIN: train_step}
