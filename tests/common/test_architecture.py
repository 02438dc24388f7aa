"""Architectures are immutable data: equality, a partial order, and JSON that a stranger may have written."""

import json
import random
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.architecture import Architecture
from common.errors import ArchitectureError
from common.models import describe
from common.models.description import BaseNetwork
from tests.common.strategies import architectures, subsets
from tests.examples import examples

CNN = BaseNetwork("cnn", (3, 32, 32), 10)
FULL = Architecture.full(CNN)
SMALL = Architecture.with_kept(CNN, {"conv1": [0, 1, 2, 5], "hidden2": range(84)})


def test_kept_channels_by_hand() -> None:
    assert SMALL.indices["conv1"] == (0, 1, 2, 5)
    assert SMALL.sizes == {"input": 3, "conv1": 4, "conv2": 16, "hidden1": 120, "hidden2": 84, "classes": 10}


def test_json_by_hand() -> None:
    assert SMALL.to_json() == (
        '{"base":{"classes":10,"input_shape":[3,32,32],"model":"cnn","stem_stride":1,"strides":[1,1,2,2,1,2,1],'
        '"width":1.0},"kept":{"conv1":"0-2,5"}}'
    )
    assert Architecture.from_json(SMALL.to_json()) == SMALL


def test_equal_architectures_are_one_key_and_one_text() -> None:
    again = Architecture.with_kept(BaseNetwork("cnn", (3, 32, 32), 10, width=1), {"conv1": (0, 1, 2, 5)})
    assert again == SMALL != FULL
    assert len({again, SMALL, FULL}) == 2
    assert again.to_json() == SMALL.to_json()


def test_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        FULL.kept = ()  # type: ignore[misc]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # each base is traced once
@given(architectures())
def test_json_round_trip(architecture: Architecture) -> None:
    again = Architecture.from_json(architecture.to_json())
    assert again == architecture
    assert hash(again) == hash(architecture)
    assert again.to_json() == architecture.to_json()


def test_the_file_around_an_architecture_may_hold_more() -> None:
    assert Architecture.from_dict({**SMALL.to_dict(), "costs": {"macs": 1}}) == SMALL


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"conv1": []}, "conv1 keeps no channel"),
        ({"conv1": [1, 0]}, "ascending order"),
        ({"conv1": [1, 1]}, "ascending order"),
        ({"conv1": [-1, 0]}, "channels 0 to 5"),
        ({"conv1": [5, 6]}, "channels 0 to 5, not 6"),
        ({"input": [0]}, "input cannot be reduced"),
        ({"classes": range(9)}, "classes cannot be reduced"),
        ({"conv9": [0]}, "no channel group 'conv9'"),
    ],
)
def test_impossible_channels_are_named(kept: dict[str, Any], message: str) -> None:
    with pytest.raises(ArchitectureError, match=message):
        Architecture.with_kept(CNN, kept)


def test_every_group_must_be_given() -> None:
    with pytest.raises(ArchitectureError, match="6 channel groups, not 1"):
        Architecture(CNN, ((0,),))


# (key of the base, value) that no architecture has
BASES = [
    ("model", "vgg"),
    ("model", 5),
    ("model", "v" * 10**6),
    ("input_shape", [3, 32]),
    ("input_shape", [3, 0, 32]),
    ("input_shape", [3, -32, 32]),
    ("input_shape", [3, 32.0, 32]),
    ("input_shape", [3, 10**9, 32]),
    ("input_shape", [[3], [32], [32]]),
    ("input_shape", "3,32,32"),
    ("input_shape", [1, 2, 2]),
    ("classes", 0),
    ("classes", -1),
    ("classes", 10**9),
    ("classes", 10.0),
    ("classes", True),
    ("width", float("nan")),
    ("width", float("inf")),
    ("width", 0),
    ("width", -1.0),
    ("width", 5),
    ("width", 10**400),
    ("width", "1.0"),
    ("stem_stride", 0),
    ("stem_stride", 1.0),
    ("strides", [1, 1, 2, 2, 1, 2, 0]),
    ("strides", [1, 1, 2, 2, 1, 2]),
    ("strides", [1] * 10**5),
    ("strides", None),
    ("stride", [1]),
]


@pytest.mark.parametrize(("key", "value"), BASES, ids=[f"{key}={value!r:.20}" for key, value in BASES])
def test_an_impossible_base_is_refused(key: str, value: Any) -> None:
    data = FULL.to_dict()
    data["base"][key] = value
    with pytest.raises(ArchitectureError) as caught:
        Architecture.from_json(json.dumps(data))
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "-1",
        "-3-5",
        "0-999999",
        "0-9999999999",
        "6",
        "5-6",
        "3-1",
        "0-3,5-4",
        "0,0",
        "2,1",
        "0-2,2",
        "0,,1",
        "0-",
        "1.0",
        "0-1-2",
        "all",
        "٣",
        "0\n",
        None,
        [0, 1],
        0,
    ],
)
def test_damaged_ranges_are_refused(text: Any) -> None:
    with pytest.raises(ArchitectureError):
        Architecture.from_json(json.dumps({**FULL.to_dict(), "kept": {"conv1": text}}))


def test_repeated_ranges_are_refused_before_they_fill_the_memory() -> None:
    data = {
        **Architecture.full(BaseNetwork("mlp", (1, 8, 8), 10)).to_dict(),
        "kept": {"hidden": "0-199," * 10**6 + "0"},
    }
    with pytest.raises(ArchitectureError, match="must ascend"):
        Architecture.from_dict(data)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "5",
        '"text"',
        "[]",
        "{}",
        '{"base":{}}',
        '{"base":[],"kept":{}}',
        '{"base":null,"kept":{}}',
        "1" * 5000,
        "[" * 100_000,
        "\x00",
        '{"base":{"model":"\\ud800"}}',
    ],
    ids=lambda text: repr(text[:20]),
)
def test_text_that_is_no_architecture_is_refused(text: str) -> None:
    with pytest.raises(ArchitectureError):
        Architecture.from_json(text)


@pytest.mark.parametrize("missing", ["base", "kept"])
def test_missing_parts_are_refused(missing: str) -> None:
    data = FULL.to_dict()
    del data[missing]
    with pytest.raises(ArchitectureError, match=missing):
        Architecture.from_dict(data)


@pytest.mark.parametrize("kept", [None, [], "0-3", 5, {"conv1": {"0": "1"}}, {"conv9": "0"}, {"": "0"}])
def test_kept_maps_known_groups_to_ranges(kept: Any) -> None:
    with pytest.raises(ArchitectureError):
        Architecture.from_dict({**FULL.to_dict(), "kept": kept})


def test_deep_nesting_in_any_place_is_refused() -> None:
    for depth in (10, 300, 900, 950, 980, 990, 5000):
        nested = "[" * depth + "]" * depth
        for text in (FULL.to_json().replace('"cnn"', nested), FULL.to_json().replace("32,32", f"{nested},32")):
            with pytest.raises(ArchitectureError):
                Architecture.from_json(text)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([0, -1, 10**9, 10**400, "0-999999", "0-3", "conv1", [1, 1, 2, 2, 1, 2, 1], [1, 8, 8]]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def damaged(draw: st.DrawFn) -> Any:
    """The data of a valid architecture with up to three places replaced or removed."""
    data: Any = json.loads(draw(st.sampled_from([SMALL, FULL])).to_json())
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from([data, data.get("base"), data.get("kept")]))
        if not isinstance(place, dict):
            continue
        key = draw(st.sampled_from([*place, "conv2", "extra"]))
        if draw(st.booleans()):
            place[key] = draw(json_values)
        else:
            place.pop(key, None)
    return data


@settings(max_examples=examples(300), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(damaged())
def test_damaged_data_gives_an_architecture_or_an_architecture_error(data: Any) -> None:
    try:
        architecture = Architecture.from_json(json.dumps(data))
    except ArchitectureError:
        return
    assert Architecture.from_json(architecture.to_json()) == architecture


@settings(max_examples=examples(200), deadline=None)
@given(st.text() | json_values.map(json.dumps))
def test_any_text_gives_an_architecture_error(text: str) -> None:
    with pytest.raises(ArchitectureError):
        Architecture.from_json(text)


@settings(max_examples=examples(200), deadline=None)
@given(st.integers(0, len(SMALL.to_json())), st.integers(0, 3), st.text(max_size=3))
def test_edited_text_gives_an_architecture_or_an_architecture_error(place: int, removed: int, added: str) -> None:
    text = SMALL.to_json()
    try:
        architecture = Architecture.from_json(text[:place] + added + text[place + removed :])
    except ArchitectureError:
        return
    assert architecture.description.groups == describe(architecture.base).groups


@settings(max_examples=examples(40), deadline=None)
@given(st.data())
def test_contains_is_a_partial_order(data: st.DataObject) -> None:
    largest = data.draw(architectures())
    middle = data.draw(subsets(largest))
    smallest = data.draw(subsets(middle))
    assert largest.contains(largest)
    assert largest.contains(middle)
    assert middle.contains(smallest)
    assert largest.contains(smallest)
    assert middle.contains(largest) == (middle == largest)


def test_architectures_of_different_bases_contain_neither_the_other() -> None:
    wider = Architecture.full(BaseNetwork("cnn", (3, 32, 32), 10, width=2.0))
    assert not wider.contains(FULL)
    assert not FULL.contains(wider)
    left, right = (Architecture.with_kept(CNN, {"conv1": kept}) for kept in ([0, 1], [1, 2]))
    assert not left.contains(right)
    assert not right.contains(left)


def test_initial_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one = FULL.build(seed=7).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    two, other = FULL.build(seed=7).state_dict(), FULL.build(seed=8).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)


def test_initial_weights_leave_the_generators_of_accelerators_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device seeds dropout before it builds its network, which others may have built for it already."""
    calls: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed", calls.append)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", calls.append)
    FULL.build(seed=7)
    assert calls == []


def test_order_of_kept_groups_does_not_matter() -> None:
    kept = {"conv1": (0, 2), "conv2": (1,), "hidden1": (3, 4)}
    names = list(kept)
    random.Random(0).shuffle(names)
    assert Architecture.with_kept(CNN, {name: kept[name] for name in names}) == Architecture.with_kept(CNN, kept)


RESNET = BaseNetwork("resnet8", (1, 8, 8), 10)
WITHOUT = Architecture.with_kept(RESNET, {"stem_conv": range(4)}, ["blocks.0"])


def test_a_block_that_vanished_is_part_of_the_architecture() -> None:
    assert WITHOUT.removed == ("blocks.0",)
    assert WITHOUT.indices["blocks.0.conv1"] == ()
    data = WITHOUT.to_dict()
    assert (data["kept"], data["removed"]) == ({"stem_conv": "0-3"}, ["blocks.0"])
    assert Architecture.from_dict(data) == WITHOUT != Architecture.with_kept(RESNET, {"stem_conv": range(4)})
    assert "removed" not in Architecture.full(RESNET).to_dict()
    state = WITHOUT.build(seed=0).state_dict()
    assert not [name for name in state if name.startswith("blocks.0.")]
    assert [name for name, tensor in state.items() if tensor.is_floating_point()] == list(WITHOUT.layout.names)


def test_an_architecture_without_a_block_lies_within_the_one_that_has_it() -> None:
    whole = Architecture.with_kept(RESNET, {"stem_conv": range(4)})
    assert whole.contains(WITHOUT)
    assert not WITHOUT.contains(whole)
    narrower = Architecture.with_kept(RESNET, {"stem_conv": range(3)}, ["blocks.0"])
    assert WITHOUT.contains(narrower)


@pytest.mark.parametrize("removed", [["blocks.1"], ["blocks.9"], [""], "blocks.0", [["blocks.0"]], [0], None, {}])
def test_only_blocks_with_an_identity_shortcut_may_vanish(removed: Any) -> None:
    with pytest.raises(ArchitectureError):
        Architecture.from_dict({**Architecture.full(RESNET).to_dict(), "removed": removed})


def test_channels_of_a_block_that_vanished_are_refused() -> None:
    full = Architecture.full(RESNET)
    with pytest.raises(ArchitectureError, match="keeps channels of a block that has vanished"):
        Architecture(RESNET, full.kept, ("blocks.0",))
