"""A client app for tests: the name of a device says how it misbehaves. It travels in the app bundle as hostile.app.

| name | behaviour |
|---|---|
| hostile-a, hostile-b, hostile-c | another malformed reply in each round, see MALFORMED |
| raising | raises in every round |
| silent | never answers |
| slow | trains as it should, after some seconds |
| patient | trains as it should, in rounds 2 and 3 only once the files exist that AWAITED names |
| any other | trains as it should |

In the folder `marks`, `NAME-0` says that a device has answered the handshake, `NAME-3` that it was asked in round 3.
"""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from hostile.marks import FOLDER  # type: ignore[import-not-found]  # of the package that the test makes

from client.app import handshake as honest_handshake
from client.app import train as honest_train

SLOW_SECONDS = 6.0
PATIENCE_SECONDS = 120.0
OVERSIZED_BYTES = 64 * 2**20
AWAITED = {2: "late-connected", 3: "late-0"}

app = ClientApp()


@app.query("handshake")
def handshake(message: Message, context: Context) -> Message:
    """Report as every device does."""
    reply = honest_handshake(message, context)
    Path(FOLDER, f"{context.node_config.get('device-name', '')}-0").touch()
    return reply


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train, or not."""
    name = str(context.node_config.get("device-name", ""))
    number = int(message.content["task"]["round"])
    Path(FOLDER, f"{name}-{number}").touch()
    if name == "raising":
        raise RuntimeError("out of memory")
    if name == "silent":
        while True:
            time.sleep(1000)
    if name == "patient" and number in AWAITED:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not Path(FOLDER, AWAITED[number]).exists() and time.monotonic() < deadline:
            time.sleep(0.1)
    if name in ("slow", "patient"):
        time.sleep(SLOW_SECONDS)
    reply = honest_train(message, context)
    if name in MALFORMED:
        return Message(MALFORMED[name][number - 1](reply.content, context), reply_to=message)
    return reply


def _with_weights(content: RecordDict, values: np.ndarray) -> RecordDict:
    content["arrays"] = ArrayRecord({"weights": Array(values)})
    return content


def _values(content: RecordDict) -> np.ndarray:
    return content["arrays"]["weights"].numpy()


def not_finite(content: RecordDict, context: Context) -> RecordDict:
    """One NaN among the weights; the honest reply is kept for `replayed`."""
    context.state["earlier"] = ArrayRecord({"weights": Array(_values(content))})
    context.state["echo"] = ConfigRecord(dict(content["echo"]))
    context.state["result"] = MetricRecord(dict(content["result"]))
    values = _values(content).copy()
    values[3] = np.nan
    return _with_weights(content, values)


def huge(content: RecordDict, context: Context) -> RecordDict:
    """Finite weights of absurd size."""
    return _with_weights(content, _values(content) * np.float32(1e20))


def misshaped(content: RecordDict, context: Context) -> RecordDict:
    """One value that numpy would broadcast."""
    return _with_weights(content, np.ones((1,), dtype=np.float32))


def mistyped(content: RecordDict, context: Context) -> RecordDict:
    """The right shape in another type."""
    return _with_weights(content, _values(content).astype(np.float64))


def replayed(content: RecordDict, context: Context) -> RecordDict:
    """The sound reply of the first round."""
    return RecordDict(
        {
            "arrays": ArrayRecord({"weights": context.state["earlier"]["weights"]}),
            "echo": context.state["echo"],
            "result": context.state["result"],
        }
    )


def empty(content: RecordDict, context: Context) -> RecordDict:
    """Nothing."""
    return RecordDict()


def oversized(content: RecordDict, context: Context) -> RecordDict:
    """A thousand times the bytes of the model."""
    return _with_weights(content, np.zeros(OVERSIZED_BYTES // 4, dtype=np.float32))


def lying(content: RecordDict, context: Context) -> RecordDict:
    """A weight in the mean that no number of images justifies."""
    content["result"]["num-examples"] = 10**9
    return content


def other_round(content: RecordDict, context: Context) -> RecordDict:
    """A reply to a question that was never asked."""
    content["echo"]["round"] = 10**6
    return content


MALFORMED: dict[str, list[Callable[[RecordDict, Context], RecordDict]]] = {
    "hostile-a": [not_finite, huge, replayed],
    "hostile-b": [misshaped, mistyped, empty],
    "hostile-c": [oversized, lying, other_round],
}
