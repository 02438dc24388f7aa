"""Random streams: named, independent, the same everywhere, and none of them is a global one."""

import random

import numpy as np
import pytest
import torch

from common.seeds import derive_seed, numpy_generator, seeded, torch_generator


def test_a_derived_seed_is_the_same_on_every_machine() -> None:
    # the first 63 bits of `printf 0/partition | sha256sum`
    assert derive_seed(0, "partition") == 6_712_963_682_098_796_405


def test_every_name_matters() -> None:
    seeds = [
        derive_seed(0),
        derive_seed(1),
        derive_seed(0, "sample"),
        derive_seed(0, "sample", 1),
        derive_seed(0, "sample", 2),
        derive_seed(0, "sample", 1, 2),
        derive_seed(0, "sample", 12),
        derive_seed(0, "train", 1),
        derive_seed(10, "train"),
        derive_seed(1, 0, "train"),
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_streams_repeat_and_differ_by_name() -> None:
    assert np.array_equal(numpy_generator(3, "a").random(4), numpy_generator(3, "a").random(4))
    assert not np.array_equal(numpy_generator(3, "a").random(4), numpy_generator(3, "b").random(4))
    assert torch.equal(
        torch.rand(4, generator=torch_generator(3, "a")), torch.rand(4, generator=torch_generator(3, "a"))
    )
    assert not torch.equal(
        torch.rand(4, generator=torch_generator(3, "a")), torch.rand(4, generator=torch_generator(4, "a"))
    )


def test_no_global_state_changes() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # type: ignore[index]
    torch.rand(4, generator=torch_generator(0, "x"))
    numpy_generator(0, "x").random(4)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # type: ignore[index]
    assert before[2] == random.getstate()


def test_seeded_draws_as_a_fresh_generator_and_then_goes_on() -> None:
    state = torch.get_rng_state()
    with seeded(5):
        drawn = torch.rand(4)
        with seeded(6):
            inner = torch.rand(4)
        after = torch.rand(4)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(torch.cat([drawn, after]), torch.rand(8, generator=torch.Generator().manual_seed(5)))
    assert torch.equal(inner, torch.rand(4, generator=torch.Generator().manual_seed(6)))


def test_what_was_drawn_from_is_restored_when_the_work_fails() -> None:
    state = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), seeded(5):
        _ = torch.rand(4)[0] / (1 // 0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_its_generator_is_seeded_and_one_seeded_for_the_cpu_leaves_it_alone() -> None:
    gpu = torch.device("cuda")
    state = torch.cuda.get_rng_state()
    wanted = torch.rand(8, device=gpu, generator=torch.Generator(gpu).manual_seed(5))
    with seeded(5, gpu):
        with seeded(6):
            torch.rand(4)
        assert torch.equal(torch.rand(8, device=gpu), wanted)
    assert torch.equal(torch.cuda.get_rng_state(), state)
