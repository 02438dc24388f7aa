"""What all tests share: one torch thread, as virtual devices have.

Sums are split among threads, so a test that recomputes what a device did must do it with as many threads; and on a
machine with few cores the suite is faster this way.
"""

import torch

torch.set_num_threads(1)
