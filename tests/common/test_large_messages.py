"""A message is as large as its arrays: Flower itself cuts them into pieces, so nothing of ours has to."""

import numpy as np
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from common.arrays import ArraySpec
from common.messages import Result

PIECE = 5 * 2**20


def test_flower_carries_an_array_in_pieces_far_below_the_limits_of_grpc_and_of_our_proxy() -> None:
    """FedGKT's features are 64 KiB an image; docs/threat-model.md and deploy/ allow requests of 16 MB."""
    features = np.random.default_rng(0).random((200, 16, 32, 32), np.float32)
    content = Result("fedgkt", "extract", 1, 200, 0.5, 0.1, 1, {"features": features}).encode()
    sizes = [len(one.deflate()) for one in get_all_nested_objects(content).values()]
    assert len(sizes) > features.nbytes / PIECE
    assert sum(sizes) > features.nbytes
    assert max(sizes) < PIECE + 1024
    spec = ArraySpec("<f4", (None, 16, 32, 32))
    assert np.array_equal(Result.decode(content, {"features": spec}, 200).arrays["features"], features)
