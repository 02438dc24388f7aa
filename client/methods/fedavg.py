"""FedAvg on a device: train the model that all have (McMahan et al. 2017, algorithm 1, ClientUpdate)."""

from client.training import train_step
from common.methods.training import TRAIN

STEPS = {TRAIN: train_step}
