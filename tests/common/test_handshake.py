"""The handshake on the wire: versions that must match, and reports of which nothing impossible is believed."""

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.architecture import Architecture
from common.budget import DeviceBudget
from common.errors import MessageError
from common.fleet import PROFILES
from common.handshake import SHORTEST_LATENCY_MS, SMALLEST_SHARE, DeviceReport, Hello, code_fingerprint
from common.message_fields import LARGEST_NUMBER, SCHEMA
from common.models.description import BaseNetwork
from common.rates import COUNTED, LatencyBound
from common.simulated_time import pace_of
from common.version import version
from tests.common.wire import EVERY_BOUND, HELLO, REPORT, over_the_wire, with_field

LARGE = Architecture.full(BaseNetwork("mobilenet_v2", (3, 224, 224), 1000, 2.0)).costs


def test_the_same_code_matches() -> None:
    HELLO.require_match(Hello.mine())
    assert code_fingerprint() == Hello.mine().fingerprint
    assert len(code_fingerprint()) == 16


@pytest.mark.parametrize("change", [{"schema": SCHEMA + 1}, {"fingerprint": "0" * 16}])
def test_other_code_is_refused_with_both_versions(change: dict[str, Any]) -> None:
    theirs = dataclasses.replace(HELLO, version="9.9", **change)
    with pytest.raises(MessageError, match=r"server 9\.9 .* install the same FedDAC on both"):
        theirs.require_match(HELLO)


def test_the_version_said_is_that_of_the_code_and_not_of_another_that_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for place in ("importlib.metadata.version", "common.version.installed"):
        monkeypatch.setattr(place, lambda _: "0.0.1")
    version.cache_clear()
    assert Hello.mine().version == version() != "0.0.1"


@given(
    st.integers(1, 2**62 - 1) | st.none(),
    st.integers(1, 2**62 - 1) | st.none(),
    st.integers(1, 2**62 - 1) | st.none(),
)
def test_every_budget_survives_the_wire(macs: int | None, params: int | None, memory: int | None) -> None:
    report = dataclasses.replace(REPORT, budget=DeviceBudget(macs, params, memory))
    assert DeviceReport.decode(over_the_wire(report.encode())) == report


NAMES_REFUSED = [
    "",
    " ",
    ".",
    "..",
    "../device",
    "a/../b",
    "a\\b",
    "/etc/passwd",
    "a\0b",
    "a\n",
    "a\u202eb",
    "é",
    "-flag",
    "<script>",
    "a" * 65,
    "a" * 10_000,
]


@pytest.mark.parametrize("field", ["name", "profile"])
@pytest.mark.parametrize("text", NAMES_REFUSED, ids=[repr(text[:20]) for text in NAMES_REFUSED])
def test_names_that_could_be_paths_or_markup_are_refused(field: str, text: str) -> None:
    change: dict[str, Any] = {field: text}
    report = dataclasses.replace(REPORT, **change)
    with pytest.raises(MessageError, match=f"a device's {field} is 1 to 64 letters") as caught:
        DeviceReport.decode(report.encode())
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("message", "record", "key", "value", "expected"),
    [
        (REPORT, "report", "samples", 0, "device 1 reports 0 training images"),
        (REPORT, "report", "samples", 2**63, "training images"),
        (REPORT, "report", "held-out", -1, "device 1 reports -1 images that it holds out"),
        (REPORT, "report", "macs", 2**62, "device 1 reports macs"),
        (REPORT, "report", "schema", 1, "speaks schema 1, this one 3"),
        (REPORT, "report", "training-memory-bytes", -1, "device 1 reports training-memory-bytes"),
        (REPORT, "report", "training-batch-size", 0, "device 1 reports training-batch-size = 0"),
        (REPORT, "report", "training-kept", 4, "device 1: no optimizer here keeps 4 values"),
        (REPORT, "report", "latency-ms", 5.0, "latency-shares must be 21 numbers"),
        (REPORT, "report", "latency-ms", math.nan, "latency-ms must be a finite number"),
        (EVERY_BOUND, "report", "latency-ms", -1.0, "latency-ms must be at least 0"),
        (EVERY_BOUND, "report", "latency-ms", 0.0, "d: the latency bound must be a positive number"),
        (EVERY_BOUND, "report", "latency-shares", [0.0] * 21, "d: rates must be finite and not negative"),
        (EVERY_BOUND, "report", "latency-shares", [math.inf] * 21, "d: rates must be finite and not negative"),
        (EVERY_BOUND, "report", "latency-shares", [-1.0] * 21, "d: rates must be finite and not negative"),
        (EVERY_BOUND, "report", "latency-shares", [1] * 21, "latency-shares must be numbers"),
        (EVERY_BOUND, "report", "latency-shares", "fast", "latency-shares must be 21 numbers"),
        (
            EVERY_BOUND,
            "report",
            "latency-shares",
            [1.7e308] * 21,
            r"latency-shares must each be 0, or between .* 1\.7e\+308",
        ),
        (EVERY_BOUND, "report", "latency-shares", [0.5] * 20 + [1e19], "latency-shares must each be 0, or between"),
        (EVERY_BOUND, "report", "latency-shares", [0.5] * 20 + [1e-101], "latency-shares must each be 0, or between"),
        (EVERY_BOUND, "report", "latency-ms", 1e-200, "latency-ms must be at least 1e-06, not 1e-200"),
        (HELLO, "hello", "class-names", ["a" * 1001], "class-names must be .* not 1 of up to 1001"),
    ],
)
def test_an_impossible_field_says_what_is_wrong(message: Any, record: str, key: str, value: Any, expected: str) -> None:
    with pytest.raises(MessageError, match=expected):
        type(message).decode(with_field(message, record, key, value))


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("milliseconds", [1e-6, 20.0, 1e12])
def test_the_latency_of_every_profile_is_within_the_limits(profile: str, milliseconds: float) -> None:
    report = dataclasses.replace(REPORT, budget=PROFILES[profile].budget(milliseconds))
    assert DeviceReport.decode(over_the_wire(report.encode())) == report


extreme_shares = st.lists(
    st.sampled_from([0.0, SMALLEST_SHARE, LARGEST_NUMBER]) | st.floats(SMALLEST_SHARE, LARGEST_NUMBER),
    min_size=len(COUNTED),
    max_size=len(COUNTED),
).filter(any)


@given(extreme_shares, st.sampled_from([SHORTEST_LATENCY_MS, 20.0, LARGEST_NUMBER]))
def test_nothing_overflows_that_is_computed_from_a_latency_within_the_limits(shares: list[float], ms: float) -> None:
    """Loosened as for the choice of strides, as the time of one image, and as the pace of a device."""
    budget = DeviceBudget(latency=LatencyBound(ms, tuple(shares)))
    latency = DeviceReport.decode(dataclasses.replace(REPORT, budget=budget).encode()).budget.latency
    assert latency is not None
    assert latency.loosened(0.9).meet(latency).within(latency.loosened(0.9))
    assert math.isfinite(budget.latency_ms(LARGE))
    assert math.isfinite(pace_of("sensor", budget, 20.0).seconds(LARGE, 2.0**40 * LARGE.macs, 1e9, 1e9))
