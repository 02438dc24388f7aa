"""From experiment files to runs: the product of grid, seeds and methods; one line for each mistake."""

from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from common.architecture import Architecture
from common.budget import DeviceBudget
from common.config import Config
from common.errors import ConfigurationError
from common.fleet import virtual_fleet
from common.methods.fednas import FedNASSettings
from common.models.bottleneck import DEVICE_NETWORK
from common.models.description import BaseNetwork
from common.settings import Scalar
from dac.plan import check_feasible
from feddac.comparison.plan import SHIPPED, Experiment, find_experiment, read_experiment
from feddac.comparison.sharing import search_key
from feddac.comparison.statistics import LEAST_PAIRS
from server.methods.cell_networks import needs

METHODS = "[methods.plain]\n[methods.fast]\nlearning-rate = 0.1\n"


def test_runs_are_cells_by_seeds_by_methods(small_experiment: Callable[..., Experiment]) -> None:
    plan = small_experiment(
        top='title = "T"\nseeds = [3, 5]',
        settings="[settings]\nrounds = 7",
        rest='[grid]\npartition = ["iid", "classes:2"]\ndevices = [2, 4]\n' + METHODS,
    )
    assert (plan.title, plan.seeds, plan.baseline, list(plan.methods)) == ("T", (3, 5), "plain", ["plain", "fast"])
    assert [cell.name for cell in plan.cells] == [
        "partition-iid_devices-2",
        "partition-iid_devices-4",
        "partition-classes-2_devices-2",
        "partition-classes-2_devices-4",
    ]
    assert len(plan.runs) == 4 * 2 * 2
    assert [str(run.folder) for run in plan.runs[:4]] == [
        "partition-iid_devices-2/plain/seed-3",
        "partition-iid_devices-2/fast/seed-3",
        "partition-iid_devices-2/plain/seed-5",
        "partition-iid_devices-2/fast/seed-5",
    ]
    last = plan.runs[-1].config
    assert (last.data.partition, last.fleet.devices, last.run.seed) == ("classes:2", 4, 5)
    assert (last.federation.learning_rate, last.federation.rounds) == (0.1, 7)


def test_without_a_grid_there_is_one_cell(small_experiment: Callable[..., Experiment]) -> None:
    plan = small_experiment(top="", settings="", rest="[methods.only]")
    assert [str(run.folder) for run in plan.runs] == ["all/only/seed-0"]
    assert plan.runs[0].config == Config()
    assert plan.title == "experiment"


def test_settings_of_a_table_vary_together(small_experiment: Callable[..., Experiment]) -> None:
    plan = small_experiment(
        top="",
        settings="",
        rest='[grid]\ngrowth = [{devices = 2, train-images = 500, label = "two"}, {devices = 4, train-images = 1000}]\n'
        "[methods.only]",
    )
    found = [(run.cell, run.config.fleet.devices, run.config.data.train_images) for run in plan.runs]
    assert found == [("growth-two", 2, 500), ("growth-4-1000", 4, 1000)]


def test_several_grids_have_the_cells_of_all(small_experiment: Callable[..., Experiment]) -> None:
    plan = small_experiment(
        top="",
        settings="",
        rest='[[grid]]\nkind = [{label = "a"}]\ndevices = [2, 4]\n'
        '[[grid]]\nkind = [{label = "b"}]\ndevices = [{label = "2", devices = 2, rounds = 1}]\n[methods.only]',
    )
    assert [cell.name for cell in plan.cells] == ["kind-a_devices-2", "kind-a_devices-4", "kind-b_devices-2"]
    assert [run.config.federation.rounds for run in plan.runs] == [10, 10, 1]


def test_flags_replace_settings_and_seeds(write_experiment: Callable[..., Path]) -> None:
    plan = read_experiment(write_experiment(), {"rounds": 9}, [4])
    assert {(run.config.federation.rounds, run.seed) for run in plan.runs} == {(9, 4)}
    with pytest.raises(ConfigurationError, match=r"--initial-weights has no effect: the experiment varies"):
        read_experiment(write_experiment(), {"initial-weights": "random"})


@pytest.mark.parametrize(("key", "value", "hint"), [("seed", 3, "seeds"), ("out", "elsewhere", "--out")])
def test_what_a_comparison_sets_for_each_run_is_no_flag(
    key: str, value: Scalar, hint: str, write_experiment: Callable[..., Path]
) -> None:
    with pytest.raises(ConfigurationError, match=f"{key} cannot be set for all runs: give {hint}"):
        read_experiment(write_experiment(), {key: value})


def test_files_are_found_beside_the_experiment(small_experiment: Callable[..., Experiment], tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[[device]]\ncount = 5\nmacs = 1000000\n")
    plan = small_experiment(settings='[settings]\nfleet = "mine.toml"')
    assert plan.runs[0].config.fleet.devices == 5
    assert plan.runs[0].config.fleet.fleet == str(tmp_path / "mine.toml")


def test_genotypes_are_found_beside_the_experiment_unless_they_are_published(
    small_experiment: Callable[..., Experiment], tmp_path: Path
) -> None:
    for name in ("cells.json", "DARTS_V2"):
        (tmp_path / name).touch()
    rest = '[methods.mine]\nfednas-genotype = "cells.json"\n[methods.theirs]\nfednas-genotype = "DARTS_V2"\n'
    plan = small_experiment(top="", settings='[settings]\nmethod = "fednas"', rest=rest)
    mine, theirs = (run.config.of(FedNASSettings).fednas_genotype for run in plan.runs)
    assert (mine, theirs) == (str(tmp_path / "cells.json"), "DARTS_V2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seeds = [", "is not valid TOML"),
        ('sedes = [0]\n[methods.a]"', "is not valid TOML"),
        ("sedes = [0]\n[methods.a]", "unknown key 'sedes': did you mean 'seeds'?"),
        ("seeds = []\n[methods.a]", "seeds must be a list of different whole numbers from 0 to 2^63 - 1, not []"),
        ("seeds = [0, 0]\n[methods.a]", "seeds must be a list of different whole numbers"),
        ("seeds = 3\n[methods.a]", "seeds must be a list"),
        ("seeds = [true]\n[methods.a]", "seeds must be a list"),
        ("seeds = [-1]\n[methods.a]", "seeds must be a list"),
        ("title = 3\n[methods.a]", "title must be a text"),
        ("seeds = [0]", "methods must hold at least one table"),
        ("[methods]", "methods must hold at least one table"),
        ("methods = 3", "methods must hold at least one table"),
        ('[methods."../a"]', "'../a' cannot name a folder"),
        ("[methods]\na = 3", "methods.a must be a table of settings, not 3"),
        ("[methods.a]\nlocal-epoch = 3", "[methods.a] unknown setting 'local-epoch': did you mean 'local-epochs'?"),
        ('[methods.a]\nmethod = "dak"', "[methods.a] method must be one of dac, "),
        ("[methods.a]\nrounds = -1", "[methods.a] rounds must be at least 0, not -1"),
        ("[methods.a]\nseed = 1", "[methods.a] seed cannot be set here: give seeds = [...]"),
        ('[settings]\nout = "x"\n[methods.a]', "[settings] out cannot be set here: give --out"),
        ("[settings]\nround = 1\n[methods.a]", "[settings] unknown setting 'round'"),
        ("settings = 1\n[methods.a]", "settings must be a table"),
        ('[settings]\nfleet = "phon"\n[methods.a]', "cell all, method a: unknown device profile 'phon'"),
        ('[settings]\nmax-macs = "many"\n[methods.a]', "cell all, method a: max-macs"),
        ('[settings]\nlocal-epochs = "5-3"\n[methods.a]', "cell all, method a: local-epochs"),
        ('baseline = "b"\n[methods.alpha]', "baseline 'b' is none of the methods; there are alpha"),
        ("grid = 3\n[methods.a]", "grid must be a table"),
        ("[grid]\nrounds = []\n[methods.a]", "[grid] rounds must be a list of at least one value, not []"),
        ("[grid]\nrounds = 3\n[methods.a]", "[grid] rounds must be a list"),
        ("[grid]\nround = [3]\n[methods.a]", "[grid] unknown setting 'round'"),
        ("[grid]\nrounds = [3, 3]\n[methods.a]", "[grid] two cells would be called rounds-3"),
        ("[grid]\nx = [{round = 3}]\n[methods.a]", "[grid.x] unknown setting 'round'"),
        ("[grid]\nx = [{label = 3, rounds = 3}]\n[methods.a]", "[grid] x: label must be a text"),
        ("[grid]\nx = [{}]\n[methods.a]", "[grid] x: label must be a text"),
        ("[grid]\nrounds = [1]\nx = [{rounds = 3}]\n[methods.a]", "[grid] rounds is varied by two axes"),
        ("[grid]\nrounds = [1]\n[methods.a]\nrounds = 2", "[methods.a] rounds is varied by [grid] rounds"),
        ("[[grid]]\nrounds = [1]\n[[grid]]\ndevices = [1]\n[methods.a]", "every [[grid]] must have the same axes"),
    ],
)
def test_a_mistake_is_one_line_with_file_and_key(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        read_experiment(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_experiment_names_those_that_exist() -> None:
    with pytest.raises(
        ConfigurationError,
        match=r"nothing; .*: autoflip-published, .*figure5, methods, peers, peers-quick, skewed",
    ):
        find_experiment("nothing")


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_experiments_are_sound(path: Path) -> None:
    plan = read_experiment(find_experiment(path.stem))
    assert len(plan.seeds) >= 2
    for config in {run.config for run in plan.runs}:
        assert config == Config.from_mapping(config.to_mapping())
        if config.model.model == "two_cnn":
            base = BaseNetwork("two_cnn", (3, 24, 24), 10)
        elif path.stem in ("peers", "peers-quick", "skewed"):
            base = BaseNetwork("resnet8", (3, 16, 16), 10)
        else:
            base = BaseNetwork("mobilenet_v2", (1, 28, 28), 10, 1.0, 2, (1, 2, 2, 2, 1, 2, 1))
            assert config.model.stem_stride == 2
            assert config.model.strides == "1,2,2,2,1,2,1"
        check_feasible(base, [device.budget for device in virtual_fleet(config.fleet)])


def test_the_shipped_fleet_has_four_budgets_of_which_only_the_largest_does_not_bind() -> None:
    config = read_experiment(find_experiment("methods")).runs[0].config
    budgets = [device.budget for device in virtual_fleet(config.fleet)]
    assert len(budgets) == 16
    for shape in ((1, 28, 28), (3, 32, 32)):
        base = BaseNetwork("mobilenet_v2", shape, 10, 1.0, 2, (1, 2, 2, 2, 1, 2, 1))
        check_feasible(base, budgets)
        full = Architecture.full(base).costs
        admitted = [budget.admits(full) for budget in dict.fromkeys(budgets)]
        assert admitted == [False, False, False, True]


@pytest.mark.parametrize("name", ["peers", "peers-quick", "skewed"])
def test_who_can_hold_the_networks_of_fednas_and_fedgkt(name: str) -> None:
    """Whose size does not follow from the budgets; the others have one for every device."""
    configs = [run.config for run in read_experiment(find_experiment(name)).runs if run.method == "fednas"]
    base = BaseNetwork("resnet8", (3, 16, 16), 10)
    small = Architecture.full(BaseNetwork(DEVICE_NETWORK, base.input_shape, 10)).costs
    for config in configs:
        supernet = needs(config.of(FedNASSettings), base, None)
        for costs in (small, supernet):
            served = sum(device.budget.admits(costs) for device in virtual_fleet(config.fleet))
            assert served == {"resnet8": 8, "resnet8-even": 10, "resnet8-skewed": 3}[Path(config.fleet.fleet).stem]


@pytest.mark.parametrize(
    ("name", "partitions"), [("peers", ["dirichlet:0.3"]), ("skewed", ["iid", "dirichlet:0.1", "classes:2"])]
)
def test_an_even_and_a_skewed_fleet_on_every_partition(name: str, partitions: list[str]) -> None:
    plan = read_experiment(find_experiment(name))
    fleets = {
        run.config.fleet.fleet: [device.profile for device in virtual_fleet(run.config.fleet)] for run in plan.runs
    }
    budgets = ("large", "medium", "small", "tiny")
    counts = {Path(file).stem: [names.count(name) for name in budgets] for file, names in fleets.items()}
    assert counts == {"resnet8-even": [5, 5, 5, 5], "resnet8-skewed": [1, 2, 5, 12]}  # of 20: 5, 10, 25 and 60 %
    settings = [(Path(run.config.fleet.fleet).stem, run.config.data.partition) for run in plan.runs]
    for fleet, partition in product(("resnet8-even", "resnet8-skewed"), partitions):
        assert settings.count((fleet, partition)) == len(plan.methods) * len(plan.seeds)
    assert len(plan.runs) == 2 * len(partitions) * len(plan.methods) * len(plan.seeds)
    assert len(plan.seeds) >= LEAST_PAIRS
    assert {run.config.federation.evaluate_every for run in plan.runs} == {1}


def test_skewed_is_peers_on_other_partitions() -> None:
    """So that the tables of both can be read beside each other."""

    def settings(name: str) -> dict[str, dict[str, Scalar]]:
        runs = [run for run in read_experiment(find_experiment(name)).runs if run.seed == 0]
        return {f"{run.cell} {run.method}": {**run.config.to_mapping(), "partition": ""} for run in runs}

    peers = settings("peers")
    for title, of_skewed in settings("skewed").items():
        fleet, method = title.split("_")[0], title.split()[1]
        assert of_skewed == peers[f"{fleet} {method}"]


def test_skewed_shares_its_searches_among_partitions_and_ways_to_average() -> None:
    """One search for each fleet, seed and recipe."""
    plan = read_experiment(find_experiment("skewed"))
    assert len({search_key(run.config) for run in plan.runs} - {""}) == 2 * len(plan.seeds) * 2


@pytest.mark.parametrize("name", ["figure4", "figure4-growing", "figure5"])
def test_the_figures_divide_the_same_images_or_give_every_device_as_many(name: str) -> None:
    plan = read_experiment(find_experiment(name))
    for cell in plan.cells:
        config = next(run.config for run in plan.runs if run.cell == cell.name)
        shared = config.data.train_images * (1 - config.data.reference_fraction)
        devices = config.fleet.devices
        assert str(devices) == cell.labels["devices"]
        assert round(shared) == (75 * devices if name == "figure4-growing" else 1200)
        assert round(config.data.train_images - shared) == 800


def test_figure_5_compares_epochs_alone() -> None:
    plan = read_experiment(find_experiment("figure5"))
    assert plan.methods == {"fixed": {"local-epochs": "5"}, "random": {"local-epochs": "3-5"}}
    assert len(plan.cells) == 2 * 5 * 4


def test_the_published_budgets_bind_in_all_figures() -> None:
    base = BaseNetwork("mobilenet_v2", (1, 28, 28), 10, 1.0, 2, (1, 2, 2, 2, 1, 2, 1))
    full = Architecture.full(base).costs
    of_figure: list[list[DeviceBudget]] = []
    for name in ("figure4", "figure4-growing", "figure5"):
        runs = read_experiment(find_experiment(name)).runs
        budgets = {device.budget for run in runs for device in virtual_fleet(run.config.fleet)}
        of_figure.append(sorted(budgets, key=lambda budget: budget.macs or 0))
    assert of_figure[0] == of_figure[1] == of_figure[2]
    assert [budget.admits(full) for budget in of_figure[0]] == [False] * 4 + [True]


def test_searches_are_the_same_when_images_budgets_network_recipe_and_seed_are() -> None:
    def key(**changes: object) -> str:
        return search_key(Config.from_mapping({name.replace("_", "-"): value for name, value in changes.items()}))

    assert key() == key(partition="classes:2") == key(rounds=3) == key(aggregation="overlap") == key(out="x")
    assert key(fleet="phone", devices=2) == key(fleet="phone", devices=4)
    changed = [
        key(seed=1),
        key(devices=3),
        key(max_macs="1M"),
        key(warmup_epochs=1),
        key(width=0.5),
        key(reference_fraction=0.5),
        key(train_images=500),
        key(max_cohorts=2),
    ]
    assert len({key(), *changed}) == 1 + len(changed)
    assert key(method="fedavg") == key(architectures="folder") == ""


def test_a_method_gets_of_the_shared_settings_what_it_reads(small_experiment: Callable[..., Experiment]) -> None:
    methods = '[methods.dac]\n[methods.fedavg]\nmethod = "fedavg"\npretraining-epochs = 4\n'
    plan = small_experiment(top="seeds = [0]", rest=methods)
    dac, fedavg = (run.config for run in plan.runs)
    assert (dac.search.warmup_epochs, fedavg.search.warmup_epochs) == (1, Config().search.warmup_epochs)
    assert dac.federation.rounds == fedavg.federation.rounds == 2
    assert (dac.method.pretraining_epochs, fedavg.method.pretraining_epochs) == (30, 4)


def test_a_setting_that_no_method_reads_is_refused(small_experiment: Callable[..., Experiment]) -> None:
    with pytest.raises(ConfigurationError, match=r"\[settings\] warmup-epochs has no effect: none of the methods"):
        small_experiment(rest='[methods.fedavg]\nmethod = "fedavg"\n')
    with pytest.raises(ConfigurationError, match=r"method fedavg: method fedavg does not read joint-epochs"):
        small_experiment(rest='[methods.dac]\n[methods.fedavg]\nmethod = "fedavg"\njoint-epochs = 2\n')
