"""A small client app that Ray workers can import: it counts, raises, dies or hangs on demand."""

import os
import time

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.app.typing import ConfigRecordValues
from flwr.clientapp import ClientApp

app = ClientApp()


@app.query("environment")
def environment(message: Message, context: Context) -> Message:
    facts: dict[str, ConfigRecordValues] = {
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
        "malloc": os.environ.get("MALLOC_MMAP_THRESHOLD_", ""),
        "folder": os.getcwd(),
        "process": os.getpid(),
    }
    return Message(RecordDict({"facts": ConfigRecord(facts)}), reply_to=message)


@app.query("code")
def code(message: Message, context: Context) -> Message:
    import client

    return Message(RecordDict({"facts": ConfigRecord({"client": str(client.__file__)})}), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Adds partition id + 1 and this device's number of visits to the array it is sent."""
    partition = int(context.node_config["partition-id"])
    misbehaviour = str(message.content.config_records["config"]["misbehave"])
    if partition == int(context.run_config["bad-partition"]):
        if misbehaviour == "raise":
            raise ValueError("out of battery")
        if misbehaviour == "die":
            os._exit(3)
        if misbehaviour == "hang":
            time.sleep(3600)
    visits = int(str(context.state.metric_records["visits"]["count"])) if "visits" in context.state else 0
    context.state["visits"] = MetricRecord({"count": visits + 1})
    weights = message.content.array_records["arrays"]["weights"].numpy() + np.float32(partition + 1 + 100 * visits)
    arrays = ArrayRecord({"weights": Array(weights)})
    metrics = MetricRecord({"partition": partition, "of": int(context.node_config["num-partitions"])})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)
