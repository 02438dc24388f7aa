"""The answer to what a device cannot do."""

import logging

from flwr.app import Error, Message
from flwr.common.constant import ErrorCode

from common.errors import FedDACError


def refusal(message: Message, error: FedDACError) -> Message:
    """An error reply of one line; the owner of the device finds the same line in its log."""
    logging.getLogger("flwr").error("%s: %s", type(error).__name__, error)
    return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, str(error)), reply_to=message)
