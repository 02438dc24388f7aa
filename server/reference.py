"""The server's images: the reference set of the search, the validation split, and the test set."""

from dataclasses import dataclass

from common.config import Config
from common.data.augment import Preprocessor
from common.data.images import DataSet, mean_std
from common.data.sources import load
from common.data.split import split_reference
from common.groups import ModelSettings
from common.learning import Feed
from common.models.description import BaseNetwork
from dac.model_file import Preparation
from dac.strides import base_of


@dataclass(frozen=True)
class Reference:
    """The base network for the data set, and what the server trains the search on, chooses by, and reports.

    `shared_images` is how many training images of the run's data set the devices share.
    """

    base: BaseNetwork
    train: Feed
    validation: Feed
    test: Feed
    class_names: tuple[str, ...]
    shared_images: int = 0

    @property
    def preparation(self) -> Preparation:
        """How images are prepared for every network of the run, and what their outputs are called."""
        return Preparation.of(self.train.preprocessor, self.class_names)


def load_reference(config: Config) -> Reference:
    """Load and split the run's data set as every device does; raises DataError if that is impossible."""
    data = load(config.data)
    split = split_reference(data, config.data, config.run.seed)
    train = data.train.subset(split.reference_train)
    preprocessor = Preprocessor(*mean_std(train.images), config.data.augment)
    batch_size = config.federation.test_batch_size
    return Reference(
        base_network(config.model, data),
        Feed(train, preprocessor, config.search.search_batch_size),
        Feed(data.train.subset(split.reference_validation), preprocessor, batch_size),
        Feed(data.test, preprocessor, batch_size),
        data.class_names,
        len(split.devices),
    )


def base_network(settings: ModelSettings, data: DataSet) -> BaseNetwork:
    """The base network that the settings describe, for the images and classes of `data`.

    Strides that are not chosen yet are those that suit the size of the images.
    """
    return base_of(settings, data.input_shape, data.classes)
