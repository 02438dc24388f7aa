"""Random networks for property tests: every base model, several strides, widths and image shapes."""

from hypothesis import strategies as st

from common.architecture import Architecture
from common.models import describe
from common.models.description import BaseNetwork

SHAPES = [(3, 32, 32), (1, 28, 28), (1, 8, 8), (2, 17, 23)]


@st.composite
def bases(draw: st.DrawFn, widths: tuple[float, ...] = (0.25, 0.5, 1.0, 1.4)) -> BaseNetwork:
    """A base network that can be built."""
    return BaseNetwork(
        model=draw(st.sampled_from(["mobilenet_v2", "cnn", "mlp"])),
        input_shape=draw(st.sampled_from(SHAPES)),
        classes=draw(st.sampled_from([2, 10, 100])),
        width=draw(st.sampled_from(widths)),
        stem_stride=draw(st.integers(1, 3)),
        strides=draw(st.sampled_from([(1, 1, 2, 2, 1, 2, 1), (1, 2, 2, 2, 1, 2, 1), (2, 1, 3, 1, 1, 4, 1)])),
    )


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
