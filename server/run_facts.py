"""What a reader of a run asks that its rounds do not say: on what it ran, and how good it is class by class."""

import os
import platform
from datetime import datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from typing import Any

import torch

from common.learning import Feed
from common.version import version
from server.methods.method import Method
from server.run import Run

PACKAGES = ("torch", "flwr", "ray")


def record_facts(run: Run) -> None:
    """An event `run` when it begins or goes on: versions, host, time, and what it is tested on."""
    reference = run.reference
    run.folder.append("run", **host_facts(), test_images=len(reference.test.images), class_names=reference.class_names)


def host_facts() -> dict[str, Any]:
    """Versions, the machine and the time, ready for JSON."""
    return {
        "versions": {"feddac": version(), "python": platform.python_version(), **_versions()},
        "host": {
            "name": platform.node(),
            "system": f"{platform.system()} {platform.machine()}",
            "cpus": os.cpu_count(),
            "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        },
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def closing_facts(method: Method, run: Run) -> dict[str, Any]:
    """For summary.json: host_facts, `accuracy_before` the first round (as device_accuracy), and accuracy per class.

    `class_accuracy` has a list per cohort in the order of `class_names`, None for a class without test images.
    """
    first = {one["cohort"]: one["accuracy"] for one in run.folder.events("evaluation") if one["round"] == 0}
    known = [(len(one.devices), first[one.name]) for one in method.cohorts if one.name in first]
    devices = sum(count for count, _ in known)
    return {
        **host_facts(),
        "test_images": len(run.reference.test.images),
        "accuracy_before": sum(count * accuracy for count, accuracy in known) / devices if devices else None,
        "class_names": run.reference.class_names,
        "class_accuracy": {
            cohort.name: class_accuracy(method.module(cohort), run.reference.test, run.accelerator)
            for cohort in method.cohorts
        },
    }


@torch.no_grad()
def class_accuracy(module: torch.nn.Module, feed: Feed, accelerator: torch.device) -> list[float | None]:
    """The share of each class's images that the module classifies correctly; None where there are none."""
    module.eval()
    classes = int(feed.images.labels.max()) + 1
    right, all_images = torch.zeros(classes, dtype=torch.int64), torch.zeros(classes, dtype=torch.int64)
    for batch in feed.evaluation(accelerator):
        labels, logits = batch.labels, module(batch.images)
        classes = logits.shape[1]
        if len(right) < classes:
            right, all_images = (torch.cat([one, one.new_zeros(classes - len(one))]) for one in (right, all_images))
        hits = labels[logits.argmax(1) == labels]
        right += torch.bincount(hits.cpu(), minlength=classes)
        all_images += torch.bincount(labels.cpu(), minlength=classes)
    pairs = zip(right.tolist(), all_images.tolist(), strict=True)
    return [hit / count if count else None for hit, count in pairs]


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = installed(package)
        except PackageNotFoundError:
            continue
    return found
