"""The ClientApp: decode a message, call, encode the answer."""

from collections.abc import Callable
from dataclasses import replace

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client.asked import asked
from client.batched.ahead import Ahead
from client.data import device_data
from client.evaluation import evaluate_task
from client.identity import identify, own_model
from client.measure import measured_profile, network_to_measure
from client.methods import received_task
from client.privacy import local_dp
from client.refusal import refusal
from client.steps import run_step
from common.config import Config
from common.errors import FedDACError
from common.fleet import DeviceProfile
from common.handshake import DeviceReport, Hello
from common.learning import pick_accelerator
from common.search_space import SearchSpace

app = ClientApp()


@app.query("handshake")
def handshake(message: Message, context: Context) -> Message:
    """Report who this device is, what it can afford and how many training images it has."""

    def report() -> RecordDict:
        hello = Hello.decode(message.content)
        hello.require_match(Hello.mine())
        config = Config.from_mapping(context.run_config)
        data = device_data(context.node_config, config, hello.class_names)

        def measured() -> DeviceProfile:
            own = replace(config.model, model=own_model(context.node_config, config.model))
            return measured_profile(network_to_measure(own, data.train), SearchSpace.of(config.search))

        identity = identify(context.node_config, config.fleet, config.federation.local_training, measured)
        name, profile, partition = identity.name, identity.profile, identity.partition
        held_out = 0 if data.held_out is None else len(data.held_out)
        return DeviceReport(name, profile, partition, len(data.train), identity.budget, held_out).encode()

    return _answer(message, report)


@app.train(mods=[local_dp])
def train(message: Message, context: Context) -> Message:
    """Do the step of the method that was asked for, on this device's images, and send back what came of it."""

    def trained() -> RecordDict:
        todo = asked(message, context)
        steps = context.steps if isinstance(context, Ahead) else todo.steps
        return run_step(steps, todo.task, todo.data, todo.name, todo.accelerator).encode()

    return _answer(message, trained)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Score the model that was sent on this device's held-out images."""

    def evaluated() -> RecordDict:
        config = Config.from_mapping(context.run_config)
        task = received_task(message, context, config)
        data = device_data(context.node_config, config, task.class_names)
        return evaluate_task(task, data.held_out, data.preprocessor, pick_accelerator(config.run.accelerator)).encode()

    return _answer(message, evaluated)


def _answer(message: Message, work: Callable[[], RecordDict]) -> Message:
    """The reply; what a person can act on becomes one line for the server, and a bug the traceback it is."""
    try:
        return Message(work(), reply_to=message)
    except FedDACError as error:
        return refusal(message, error)
