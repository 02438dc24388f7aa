"""What every command ends up importing, imported once for all that are forked from here (tests/forked.py)."""

import os

import flwr_datasets
import matplotlib.backends.backend_svg
import scipy.stats
import sklearn.datasets
import torch
import torch.utils.tensorboard

import client.app
import feddac.cli.main
import server.app
import server.report.build
import simulation.engines

LIBRARIES = (flwr_datasets, matplotlib.backends.backend_svg, scipy.stats, sklearn.datasets, torch.utils.tensorboard)
OURS = (client.app, feddac.cli.main, server.app, server.report.build, simulation.engines)

os.fsync = lambda descriptor: None  # as in tests/conftest.py
torch.set_num_threads(1)
torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)  # the first imports torch._dynamo
