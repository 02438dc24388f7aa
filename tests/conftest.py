"""What all tests share: one torch thread, as virtual devices have, and a Ctrl-C that works.

Sums are split among threads, so a test that recomputes what a device did must do it with as many threads; and on a
machine with few cores the suite is faster this way.
"""

import os
import signal

import torch

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A background job ignores Ctrl-C, and so would the processes that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)

torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for processes that tests start
