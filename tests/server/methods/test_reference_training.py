"""What the server does to averaged models on its reference set."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from common.architecture import Architecture
from common.config import Config
from common.data.augment import Preprocessor
from common.data.images import Images
from common.learning import CrossEntropy, Feed, train_epoch
from common.models.description import BaseNetwork
from server.cohorts import Cohort
from server.methods.reference_training import distil, recalibrate_cohorts
from server.reference import Reference
from server.run import Run

BASE = BaseNetwork("mobilenet_v2", (1, 8, 8), 3, width=0.25)
CPU = torch.device("cpu")
GENERATOR = torch.Generator().manual_seed(5)
LABELS = torch.arange(48) % 3
NOISE = torch.randint(0, 60, (48, 1, 8, 8), dtype=torch.uint8, generator=GENERATOR)
IMAGES = Images(NOISE + (90 * LABELS).to(torch.uint8)[:, None, None, None], LABELS)  # a class is a brightness
FEED = Feed(IMAGES, Preprocessor(torch.tensor([0.5]), torch.tensor([0.3]), "none"), 16)


REFERENCE = Reference(BASE, FEED, FEED, FEED, ("dark", "grey", "bright"))

MakeRun = Callable[..., Run]


def cohorts() -> list[Cohort]:
    full = Architecture.full(BASE)
    small = Architecture.with_kept(BASE, {group.name: range(8) for group in full.description.prunable})
    return [
        Cohort(f"cohort-{number}", one, one.layout.flatten(one.build(number).state_dict()), 0.5, ["device-00"])
        for number, one in enumerate((full, small))
    ]


def test_recalibration_touches_statistics_alone_and_makes_them_those_of_the_images(make_run: MakeRun) -> None:
    run = make_run(Config.from_mapping({"test-batch-size": 16}), REFERENCE)
    both = cohorts()
    before = [cohort.weights.copy() for cohort in both]
    recalibrate_cohorts(both, run)
    for cohort, old in zip(both, before, strict=True):
        layout = cohort.network.layout
        changed = {
            name
            for name, tensor in layout.unflatten(cohort.weights).items()
            if not torch.equal(tensor, layout.unflatten(old)[name])
        }
        assert changed
        assert all(name.endswith(("running_mean", "running_var")) for name in changed)
        # the first batch norm sees the first convolution's outputs, whose statistics can be computed by hand
        module = cohort.module(CPU)
        first = next(child for child in module.modules() if isinstance(child, torch.nn.Conv2d))
        norm = next(child for child in module.modules() if isinstance(child, torch.nn.BatchNorm2d))
        with torch.no_grad():
            means = [first(batch.images).mean((0, 2, 3)) for batch in FEED.evaluation(CPU)]
        assert norm.running_mean is not None
        assert torch.allclose(norm.running_mean, torch.stack(means).mean(0), atol=1e-5)


def test_recalibration_repeats_itself(make_run: MakeRun) -> None:
    run = make_run(reference=REFERENCE)
    first, second = cohorts(), cohorts()
    recalibrate_cohorts(first, run)
    recalibrate_cohorts(second, run)
    recalibrate_cohorts(second, run)
    assert all(np.array_equal(a.weights, b.weights) for a, b in zip(first, second, strict=True))


def distance(student: Cohort, teacher: Cohort) -> float:
    """KL divergence of the student's answers from the teacher's, with batch norms as in training and in use."""
    with torch.no_grad():
        images = next(FEED.evaluation(CPU)).images
        ours = student.module(CPU).train()(images).log_softmax(1)
        theirs = teacher.module(CPU).eval()(images).log_softmax(1)
    return float(torch.nn.functional.kl_div(ours, theirs, reduction="batchmean", log_target=True))


def test_distillation_brings_the_small_cohort_nearer_to_the_largest_one_and_leaves_that_alone(
    make_run: MakeRun,
) -> None:
    config = Config.from_mapping({"distillation-epochs": 40, "distillation-learning-rate": 0.005})
    run = make_run(config, REFERENCE)
    both = cohorts()
    module = both[0].module(CPU)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.02, momentum=0.9)
    for _ in range(10):
        train_epoch(module, FEED, optimizer, GENERATOR, CPU, CrossEntropy())
    both[0].keep(module)
    recalibrate_cohorts(both[:1], run)
    teacher, before = both[0].weights.copy(), distance(both[1], both[0])
    distil(both, run, 1)
    assert np.array_equal(both[0].weights, teacher)
    assert distance(both[1], both[0]) < 0.5 * before


@pytest.mark.parametrize(("seed", "round", "same"), [(0, 1, True), (1, 1, False), (0, 2, False)])
def test_distillation_follows_from_seed_and_round(seed: int, round: int, same: bool, make_run: MakeRun) -> None:
    results = []
    for where in ((0, 1), (seed, round)):
        both = cohorts()
        config = Config.from_mapping({"distillation-epochs": 1, "seed": where[0]})
        distil(both, make_run(config, REFERENCE), where[1])
        results.append(both[1].weights)
    assert np.array_equal(*results) == same
