"""Virtual fleets: profiles give hand-computed budgets, files give declared ones, mistakes give one clear line."""

from pathlib import Path

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from common.budget import DeviceBudget, LocalTraining
from common.errors import BudgetError, ConfigurationError
from common.fleet import PROFILES, VirtualDevice, read_fleet, virtual_fleet
from common.groups import FleetSettings
from common.rates import COUNTED, LatencyBound


@pytest.mark.parametrize("name", ["../x", "-x", "a/b", "\u00e9t\u00e9", "a" * 65, " x", "x\n"])
def test_a_name_that_the_server_would_refuse_is_refused_here(name: str, tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(tomli_w.dumps({"device": [{"name": "fine"}, {"name": name}]}))
    with pytest.raises(ConfigurationError, match="device 2: a name is made of"):
        read_fleet(path)


def test_microcontroller_budget_by_hand() -> None:
    # 24.7 MOp = 12.35 MMAC in 99.1 ms, so 20 ms hold 2,492,431 MACs of plain convolutions, or half as many depthwise
    # ones; int8: one byte per parameter, and a float32 byte count four times the device's own.
    budget = PROFILES["microcontroller"].budget(20.0)
    assert (budget.macs, budget.params, budget.peak_memory_bytes) == (None, 786_432, 983_040)
    assert budget.training_memory_bytes is None
    assert budget.latency is not None
    for kind, most in (("conv", 2_492_431), ("pointwise", 2_492_431), ("linear", 2_492_431), ("depthwise", 1_246_215)):
        work = [0] * len(COUNTED)
        work[COUNTED.index((kind, "mac"))] = most
        assert budget.latency.used(work) < 1
        work[COUNTED.index((kind, "mac"))] = most + 2
        assert budget.latency.used(work) > 1


def test_large_microcontroller_is_faster_by_the_ratio_of_the_clocks() -> None:
    small, large = (PROFILES[name].rates for name in ("microcontroller", "large-microcontroller"))
    assert small.of("conv", "mac") / large.of("conv", "mac") == pytest.approx(480 / 216)


@pytest.mark.parametrize(
    ("profile", "macs", "params", "peak_memory_bytes"),
    [
        ("single-board", 4_000_000, 100_663_296, 402_653_184),
        ("single-board-4", 96_000_000, 805_306_368, 3_221_225_472),
        ("phone", 307_200_000, 50_331_648, 201_326_592),
        ("workstation", 3_584_000_000, 3_221_225_472, 12_884_901_888),
    ],
)
def test_float32_profiles_at_20_ms(profile: str, macs: int, params: int, peak_memory_bytes: int) -> None:
    budget = PROFILES[profile].budget(20.0)
    assert (budget.params, budget.peak_memory_bytes) == (params, peak_memory_bytes)
    assert budget.latency == LatencyBound.by(PROFILES[profile].rates, 20.0)
    assert 0.02 / PROFILES[profile].rates.of("conv", "mac") == pytest.approx(macs)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_says_where_its_figures_come_from(profile: str) -> None:
    assert len(PROFILES[profile].source) > 40


def test_profiles_are_dealt_in_turn() -> None:
    fleet = virtual_fleet(FleetSettings(devices=5, fleet="phone, microcontroller"))
    assert [device.profile for device in fleet] == ["phone", "microcontroller", "phone", "microcontroller", "phone"]
    assert [device.name for device in fleet] == ["device-00", "device-01", "device-02", "device-03", "device-04"]
    assert fleet[0].budget == fleet[2].budget == PROFILES["phone"].budget(20.0)


@given(
    devices=st.integers(1, 40),
    profiles=st.lists(st.sampled_from(sorted(PROFILES)), min_size=1, max_size=4),
    latency=st.floats(0.01, 1000),
    cap=st.integers(1, 10**10),
)
def test_caps_bound_every_device_and_never_loosen(devices: int, profiles: list[str], latency: float, cap: int) -> None:
    settings = FleetSettings(
        devices=devices, fleet=",".join(profiles), max_latency_ms=latency, max_macs=str(cap), max_memory="512KB"
    )
    fleet = virtual_fleet(settings)
    assert len(fleet) == devices
    assert len({device.name for device in fleet}) == devices
    for device in fleet:
        assert device.budget.within(DeviceBudget(macs=cap, peak_memory_bytes=512_000))
        assert device.budget.within(PROFILES[device.profile].budget(latency))


def test_unknown_profile_suggests_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match=r"unknown device profile 'phon': did you mean 'phone'\?"):
        virtual_fleet(FleetSettings(fleet="phon"))


def test_no_time_at_all_is_no_budget() -> None:
    with pytest.raises(BudgetError, match="latency bound must be a positive number of milliseconds"):
        PROFILES["microcontroller"].budget(0.0)


def test_bad_cap_names_the_setting() -> None:
    with pytest.raises(BudgetError, match="max-params"):
        virtual_fleet(FleetSettings(max_params="lots"))


def write(folder: Path, text: str) -> str:
    path = folder / "fleet.toml"
    path.write_text(text)
    return str(path)


def test_file_of_devices(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        [[device]]
        name = "gateway"
        macs = "30M"
        params = 1000
        memory = "2MiB"
        [[device]]
        count = 2
        name = "sensor"
        memory = "512KB"
        [[device]]
        """,
    )
    assert virtual_fleet(FleetSettings(devices=4, fleet=path, max_macs="20M")) == [
        VirtualDevice("gateway", "gateway", DeviceBudget(20_000_000, 1000, 2_097_152)),
        VirtualDevice("sensor-00", "sensor", DeviceBudget(20_000_000, None, 512_000)),
        VirtualDevice("sensor-01", "sensor", DeviceBudget(20_000_000, None, 512_000)),
        VirtualDevice("device-03", "", DeviceBudget(20_000_000, None, None)),
    ]


def test_file_of_devices_that_train_in_little_memory_and_time(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        [[device]]
        name = "watch"
        training-memory = "3MB"
        latency-ms = 2.5
        profile = "phone"
        """,
    )
    training = LocalTraining(batch_size=8)
    (device,) = virtual_fleet(FleetSettings(devices=1, fleet=path, max_training_memory="2MB"), training)
    assert device == VirtualDevice(
        "watch",
        "phone",
        DeviceBudget(
            training_memory_bytes=2_000_000,
            latency=LatencyBound.by(PROFILES["phone"].rates, 2.5),
            training=training,
        ),
    )


def test_file_of_another_number_of_devices_says_what_to_pass(tmp_path: Path) -> None:
    path = write(tmp_path, "[[device]]\ncount = 3\n")
    with pytest.raises(ConfigurationError, match="describes 3 devices but devices is 8; use --devices 3"):
        virtual_fleet(FleetSettings(fleet=path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[device", "not valid TOML"),
        ("", r"\[\[device\]\] tables"),
        ("device = []", "describes no device"),
        ("other = 1\n[[device]]", r"\[\[device\]\] tables and nothing else"),
        ("[[device]]\nmax-macs = 3", "device 1: unknown key 'max-macs'"),
        ("[[device]]\ncount = 0", "device 1: count must be a positive whole number"),
        ("[[device]]\n[[device]]\nname = ' '", "device 2: name"),
        ("[[device]]\nmacs = 'many'", "device 1: macs must be"),
        ("[[device]]\nmacs = -5", "device 1: macs must be"),
        ("[[device]]\nmacs = true", "device 1: macs must be"),
        ("[[device]]\nlatency-ms = 5", "device 1: latency-ms needs a profile"),
        ("[[device]]\nlatency-ms = 0\nprofile = 'phone'", "device 1: latency-ms must be a positive number"),
        ("[[device]]\nlatency-ms = 5\nprofile = 'phon'", "device 1: unknown device profile 'phon': did you mean"),
        ("[[device]]\nlatency-ms = 5\nprofile = 7", "device 1: profile must be the name of one"),
        ("[[device]]\nname = 'a'\n[[device]]\nname = 'a'", "two devices are called 'a'"),
    ],
)
def test_mistakes_in_a_file_are_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigurationError, match=message) as caught:
        virtual_fleet(FleetSettings(fleet=path))
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        virtual_fleet(FleetSettings(fleet=str(tmp_path / "none.toml")))


def test_a_fleet_that_no_machine_could_deal_is_refused_at_once() -> None:
    settings = FleetSettings(devices=10**9)
    with pytest.raises(ConfigurationError, match=r"devices = 1,000,000,000: a fleet has at most 100,000 devices"):
        virtual_fleet(settings)
