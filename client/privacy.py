"""Local differential privacy as an option: Flower's LocalDpMod around training, with what our messages need."""

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp.mod import LocalDpMod
from flwr.clientapp.typing import ClientAppCallable

from client.methods import received_task
from client.refusal import refusal
from common.config import Config
from common.errors import ConfigurationError, FedDACError
from common.local_dp import LOCAL_DP_KEYS, sensitivity
from common.message_arrays import encode_arrays
from common.messages import WEIGHTS
from common.methods import contract_of
from common.methods.training import weight_bounds


def local_dp(message: Message, context: Context, train: ClientAppCallable) -> Message:
    """A mod for training: clip the update to `local-dp-clipping-norm` and add Gaussian noise; nothing where that is 0.

    The settings are the run's, unless the owner of the device put others into its node configuration; what they mean is
    in `common.local_dp`. The noise comes from the system and not from the run's seed, for whoever knows the seed could
    take it off again. Weights that the noise took beyond the limits of the method's contract, such as variances below
    0, return to those, which tells nothing more about the data.
    """
    own = {key: context.node_config[key] for key in LOCAL_DP_KEYS if key in context.node_config}
    try:
        config = Config.from_mapping({**context.run_config, **own})
        settings = config.federation
        if settings.local_dp_clipping_norm == 0:
            return train(message, context)
        layout = received_task(message, context, config).network.layout
    except FedDACError as error:
        return refusal(message, error)
    norm = settings.local_dp_clipping_norm
    np.random.seed()  # the generator that Flower draws from

    def weights_alone(message: Message, context: Context) -> Message:
        """What training answers; a refusal of what Flower's mod cannot make private."""
        reply = train(message, context)
        if reply.has_error() or list(reply.content.array_records["arrays"]) == [WEIGHTS]:
            return reply
        more = "local differential privacy needs a method whose devices send weights and no more"
        return refusal(message, ConfigurationError(more))

    mod = LocalDpMod(norm, sensitivity(settings), settings.local_dp_epsilon, settings.local_dp_delta)
    reply = mod(message, context, weights_alone)
    if not reply.has_error():
        low, high = weight_bounds(layout, contract_of(config.method.method).weight_limits)
        noised = reply.content.array_records["arrays"][WEIGHTS].numpy().astype(np.float32)
        reply.content["arrays"] = encode_arrays({WEIGHTS: noised.clip(low, high)})
    return reply
