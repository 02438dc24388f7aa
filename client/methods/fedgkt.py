"""FedGKT on a device: learn from the server's answers, then send what the stem sees (He et al. 2020, arXiv:2007.14513).

Every image goes by its id, its position among the device's images, in what is sent and in what comes back: training is
shuffled, and no order of batches survives it.

The features are those of images that were augmented as in training, anew in every round, so that the server sees as
many variants of an image as there are rounds; logits are of the same variant. So does the authors' program.
"""

import numpy as np
import torch

from client.models import module_for
from client.steps import Here, Work
from client.training import training_epochs
from common.arrays import Array
from common.errors import MessageError
from common.knowledge import Answers, Taught
from common.learning import Feed
from common.messages import WEIGHTS, Task
from common.methods.fedgkt import EXTRACT, FEATURES, IDS, LABELS, LARGEST_LOGIT, LOGITS, TYPES, TransferOrder
from common.models.bottleneck import BottleneckResNet


def extract_step(task: Task, here: Here) -> Work:
    """Train on labels and on what the server answered, then say of every image what the stem and the classifier do.

    Raises FederationError if training diverges or misses its deadline, MessageError for answers to images that this
    device does not have.
    """
    order = task.order_as(TransferOrder)
    module = module_for(task, here.accelerator)
    if not isinstance(module, BottleneckResNet) or not module.has_stem:
        raise MessageError(f"{type(module).__name__} has no stem whose features could be sent")
    feed = Feed(here.images, here.preprocessor, order.batch_size)
    loss_of = Taught(_answers(task, here), order.fedgkt_temperature, order.fedgkt_alpha)
    losses = list(training_epochs(module, task, order, here, loss_of=loss_of))
    features, logits = _extract(module, feed, order, here)
    arrays = {
        WEIGHTS: task.network.layout.flatten(module.state_dict()),
        IDS: np.arange(len(here.images), dtype="<i4"),
        FEATURES: features,
        LOGITS: logits,
        LABELS: here.images.labels.numpy().astype("<i4"),
    }
    return Work(arrays, losses[-1])


def _answers(task: Task, here: Here) -> Answers:
    """The server's logits for this device's images; none known before it has answered."""
    images = len(here.images)
    if LOGITS not in task.arrays:
        return Answers.none(images, task.network.classes)
    ids, logits = task.arrays.get(IDS, np.zeros(0)), task.arrays[LOGITS]
    if logits.shape != (len(ids), task.network.classes) or ids.ndim != 1:
        raise MessageError("the server's answers do not say which images they are of")
    if len(ids) and not 0 <= ids.min() <= ids.max() < images:
        raise MessageError(f"the server answers for image {ids.max()}, this device has {images}")
    return Answers.by_id(ids, logits, images)


@torch.no_grad()
def _extract(module: BottleneckResNet, feed: Feed, order: TransferOrder, here: Here) -> tuple[Array, Array]:
    """Features (N, 16, H, W) of the order's type and logits (N, classes), of all images by id."""
    module.eval()
    rows = len(feed.images)
    features = np.empty((rows, *module.feature_shape), TYPES[order.fedgkt_feature_type])
    logits = np.empty((rows, module.classes), "<f4")
    for ids in torch.split(torch.arange(rows), feed.batch_size):
        images = feed.images.images[ids].to(here.accelerator)
        seen = module.features(feed.preprocessor.train_batch(images, here.generator))
        logits[ids.numpy()] = module.classify(seen).clamp(-LARGEST_LOGIT, LARGEST_LOGIT).cpu().numpy()
        features[ids.numpy()] = seen.clamp(max=order.largest_feature).cpu().numpy()
        here.check_deadline()
    return features, logits


STEPS = {EXTRACT: extract_step}
