"""Processes that work off the tasks, and end with the main one."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

import torch

from common.process import end_with


def pool_of(workers: int) -> ProcessPoolExecutor:
    """Fresh processes of one thread each, which also end if this one is killed."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(os.getpid(),))


def _begin(parent: int) -> None:
    torch.set_num_threads(1)
    end_with(parent)
