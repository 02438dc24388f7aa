"""Random networks for property tests: every base model, several strides, widths and image shapes."""

from hypothesis import strategies as st

from common.architecture import Architecture
from common.models import describe
from common.models.description import BaseNetwork

SHAPES = [(3, 32, 32), (1, 28, 28), (1, 8, 8), (2, 17, 23)]
CLASSES = [2, 10, 100]
STRIDES = [(1, 1, 2, 2, 1, 2, 1), (1, 2, 2, 2, 1, 2, 1), (2, 1, 3, 1, 1, 4, 1)]


def bases(widths: tuple[float, ...] = (0.25, 0.5, 1.0, 1.4)) -> st.SearchStrategy[BaseNetwork]:
    """A base network that can be built, one of a few of each model: a description takes a tenth of a second."""
    choices = [
        BaseNetwork(model, SHAPES[n % 4], CLASSES[n % 3], widths[n % len(widths)], 1 + n % 3, STRIDES[n // 2 % 3])
        for n in range(8)
        for model in ("mobilenet_v2", "cnn", "mlp")
    ]
    return st.sampled_from(choices)


@st.composite
def subsets(draw: st.DrawFn, architecture: Architecture) -> Architecture:
    """An architecture inside `architecture`, cut in any of its inner groups."""
    kept = {}
    for group in architecture.description.prunable:
        channels = architecture.indices[group.name]
        generator = draw(st.randoms(use_true_random=False))
        count = generator.randint(1, len(channels))
        kept[group.name] = sorted(generator.sample(channels, count))
    return Architecture.with_kept(architecture.base, kept)


@st.composite
def architectures(draw: st.DrawFn, widths: tuple[float, ...] = (0.25, 0.5, 1.0, 1.4)) -> Architecture:
    """A random architecture of a random base."""
    return draw(subsets(Architecture.full(draw(bases(widths)))))


def published(inner: list[int]) -> Architecture:
    """The first `inner[i]` channels of each block of the published base network."""
    base = BaseNetwork("mobilenet_v2", (3, 32, 32), 10)
    names = [group.name for group in describe(base).prunable]
    return Architecture.with_kept(base, {name: range(count) for name, count in zip(names, inner, strict=True)})
