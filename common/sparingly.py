"""Work beside the main one, such as writing down how far it has come: often, but never so often that it costs much."""

import time
from collections.abc import Callable


class Sparingly:
    """Does such work the first time after `first_seconds`, and again so that it takes at most `share` (0 to 1) of time.

    What takes long is therefore done seldom, and what takes no time whenever it is asked for.
    """

    def __init__(self, share: float, first_seconds: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._share, self._clock = share, clock
        self._next = clock() + first_seconds

    def do(self, work: Callable[[], object], *, surely: bool = False) -> None:
        """Do `work`, unless the last time is not long enough ago; `surely` does it in any case."""
        begin = self._clock()
        if begin < self._next and not surely:
            return
        work()
        end = self._clock()
        self._next = end + (end - begin) * (1 - self._share) / self._share
