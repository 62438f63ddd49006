"""Standardization, densities and draws of an approximator."""

import numpy as np
import pytest
import torch
from scipy.stats import norm
from small_approximators import approximator, data

from sbi_models.approximators import continuous
from sbi_models.approximators.standardizer import Standardizer
from sbi_models.training.module import TrainingModule


@pytest.fixture(scope="module")
def made():
    return approximator()


# --- standardizer


def test_moments_are_those_of_the_data():
    """Means and sds are NumPy's over all axes but the last, to the last digits; standardized data have mean 0
    and sd 1."""
    made = approximator(standardize=("inference_variables", "inference_conditions", "summary_variables"))
    raw, standardizer = data(), made.standardizer
    theta = np.column_stack([raw["theta"], raw["tau"]])
    for role, values in {
        "inference_variables": theta,
        "inference_conditions": raw["c"],
        "summary_variables": raw["x"].reshape(-1, 1),
    }.items():
        np.testing.assert_allclose(getattr(standardizer, f"{role}_mean"), values.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(getattr(standardizer, f"{role}_sd"), values.std(axis=0), rtol=1e-12)
        prepared = made.prepare(raw)[role].double().reshape(-1, values.shape[-1])
        np.testing.assert_allclose(prepared.mean(dim=0), 0.0, atol=1e-6)
        np.testing.assert_allclose(prepared.std(dim=0, correction=0), 1.0, rtol=1e-6)


def test_moments_are_frozen():
    """Building again, preparing other data and training mode leave the moments; they are no parameters."""
    made = approximator()
    before = {name: value.clone() for name, value in made.standardizer.state_dict().items()}
    other = {key: 7 + 3 * value for key, value in data(seed=5).items()}
    made.train()
    made.build(other, seed=1)
    made.prepare(other)
    made.loss(made.prepare(other), torch.Generator().manual_seed(0)).mean().backward()
    assert list(made.standardizer.parameters()) == []
    assert all(torch.equal(value, before[name]) for name, value in made.standardizer.state_dict().items())


@pytest.mark.parametrize(
    ("constant", "last_place"),
    [(0.0, False), (0.1, False), (0.1, True), (1e8, True), (-3e-9, False), (-3e-9, True)],
)
def test_constant_columns_are_only_shifted(constant, last_place):
    """A constant column, also one whose values are off by a unit in the last place, is standardized to zero
    with an sd of 1, and other columns are not touched."""
    column = torch.full((1001,), constant, dtype=torch.float64)
    if last_place:
        column[::3] = np.nextafter(constant, np.inf)
        assert float(column.std()) > 0
    values = torch.stack([column, torch.linspace(-1, 1, 1001, dtype=torch.float64)], dim=1)
    standardizer = Standardizer(("a",))
    standardizer.declare({"a": 2})
    standardizer.fit({"a": values})
    standardized = standardizer("a", values)
    assert standardizer.a_sd[0] == 1.0
    np.testing.assert_allclose(standardized[:, 0], 0.0, atol=1e-6)
    np.testing.assert_allclose(standardized[:, 1].std(correction=0), 1.0)
    np.testing.assert_allclose(standardizer.inverse("a", standardized), values, rtol=1e-12, atol=1e-12)
    assert standardizer.log_abs_det("a").item() == pytest.approx(-values[:, 1].std(correction=0).log().item())


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e6])
def test_a_small_spread_is_no_constant(unit):
    """A column that varies by a hundred-thousandth of its value, in any unit, has its own sd."""
    values = unit * (1 + 1e-5 * torch.linspace(-1, 1, 1001, dtype=torch.float64)[:, None])
    standardizer = Standardizer(("a",))
    standardizer.declare({"a": 1})
    standardizer.fit({"a": values})
    np.testing.assert_allclose(standardizer("a", values).std(correction=0), 1.0, rtol=1e-6)


def test_roles_that_are_not_named_stay_as_they_are():
    """standardize=() leaves every role alone, and its log density has no Jacobian."""
    made = approximator(standardize=())
    np.testing.assert_allclose(made.prepare(data())["inference_variables"][:, :2], data()["theta"], rtol=1e-6)
    assert made.standardizer.log_abs_det("inference_variables") == 0.0


# --- densities


def test_an_untrained_approximator_is_normal_with_the_moments_of_its_data():
    """With a network at zero, draws and densities in raw space are those of a normal with the data's mean and
    sd: Jacobian included."""
    made, raw = approximator(random_weights=False, steps=32), data()
    mean, sd = (
        [raw[name].mean(axis=0) for name in ("theta", "tau")],
        [raw[name].std(axis=0) for name in ("theta", "tau")],
    )
    test = data(20, seed=3)
    expected = norm.logpdf(test["theta"], mean[0], sd[0]).sum(axis=1) + norm.logpdf(
        test["tau"], mean[1], sd[1]
    )
    np.testing.assert_allclose(made.log_prob(test), expected, atol=1e-4)
    draws = made.sample(num_samples=4000, conditions=data(1), seed=0)
    for name, m, s in zip(("theta", "tau"), mean, sd, strict=True):
        standard = (draws[name][0] - m) / s
        np.testing.assert_allclose(standard.mean(axis=0), 0.0, atol=5 / np.sqrt(4000))
        np.testing.assert_allclose(standard.std(axis=0), 1.0, atol=0.06)


def test_units_move_densities_by_their_jacobian():
    """Parameters in another unit have the same standardized network, so log p moves by the log of the unit,
    and draws scale."""
    made, scaled = approximator(built=False), approximator(built=False)
    in_mm = lambda batch: batch | {"theta": 1000 * batch["theta"]}  # noqa: E731
    made.build(data(), seed=0)
    scaled.build(in_mm(data()), seed=0)
    scaled.load_state_dict(
        {name: value for name, value in made.state_dict().items() if "standardizer" not in name}, strict=False
    )
    test = data(6, seed=4)
    np.testing.assert_allclose(
        scaled.log_prob(in_mm(test)), made.log_prob(test) - 2 * np.log(1000), atol=1e-4
    )
    draws = [a.sample(num_samples=5, conditions=test, seed=1)["theta"] for a in (made, scaled)]
    np.testing.assert_allclose(draws[1], 1000 * draws[0], rtol=1e-6)


def test_log_prob_is_computed_row_by_row(made):
    """The log density of a row depends on that row alone, whatever its neighbours and the batch size."""
    test = data(9, seed=5)
    whole = made.log_prob(test)
    assert whole.shape == (9,)
    assert whole.dtype == np.float64
    for batch_size in (1, 4, 9):
        np.testing.assert_allclose(made.log_prob(test, batch_size=batch_size), whole, rtol=1e-4, atol=1e-4)
    order = [5, 0, 7]
    np.testing.assert_allclose(
        made.log_prob({key: value[order] for key, value in test.items()}), whole[order], rtol=1e-4, atol=1e-4
    )


# --- draws


def test_draws_have_raw_names_and_shapes(made):
    """One array a variable, (num_datasets, num_samples, width), finite and in the unit of the data; other
    variables are left aside."""
    draws = made.sample(num_samples=5, conditions=data(3))
    assert {name: value.shape for name, value in draws.items()} == {"theta": (3, 5, 2), "tau": (3, 5, 1)}
    assert 50 < draws["theta"].mean() < 150
    assert np.abs(draws["tau"]).max() < 0.1


def test_split_names_each_component(made):
    """split=True gives theta_0, theta_1 and tau_0 of width 1, which are the columns of the draws of the same
    seed."""
    draws = made.sample(num_samples=5, conditions=data(3), seed=0)
    split = made.sample(num_samples=5, conditions=data(3), seed=0, split=True)
    assert list(split) == ["theta_0", "theta_1", "tau_0"]
    np.testing.assert_array_equal(
        np.concatenate([split["theta_0"], split["theta_1"]], axis=-1), draws["theta"]
    )
    np.testing.assert_array_equal(split["tau_0"], draws["tau"])


def test_the_seed_decides(made):
    """The same seed gives the same draws whatever the global states, which stay as they are; np.random.seed
    governs unseeded calls."""
    conditions = data(3)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = made.sample(num_samples=5, conditions=conditions, seed=1)["theta"]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    np.testing.assert_array_equal(made.sample(num_samples=5, conditions=conditions, seed=1)["theta"], first)
    assert not np.any(made.sample(num_samples=5, conditions=conditions, seed=2)["theta"] == first)
    np.random.seed(3)
    unseeded = [made.sample(num_samples=5, conditions=conditions)["theta"] for _ in range(2)]
    np.random.seed(3)
    np.testing.assert_array_equal(made.sample(num_samples=5, conditions=conditions)["theta"], unseeded[0])
    assert not np.any(unseeded[0] == unseeded[1])


def test_draws_of_a_data_set_do_not_depend_on_others(made):
    """Draws of data set i are the same for every batch_size and however many data sets follow; equal data
    sets have different draws."""
    conditions = data(9, seed=6)
    whole = made.sample(num_samples=5, conditions=conditions, seed=4)["theta"]
    for batch_size in (1, 4, 9, 100):
        part = made.sample(num_samples=5, conditions=conditions, seed=4, batch_size=batch_size)["theta"]
        np.testing.assert_allclose(part, whole, rtol=1e-5)
    fewer = made.sample(
        num_samples=5, conditions={key: value[:3] for key, value in conditions.items()}, seed=4
    )["theta"]
    np.testing.assert_allclose(fewer, whole[:3], rtol=1e-5)
    twins = made.sample(
        num_samples=5, conditions={key: value[[0, 0]] for key, value in conditions.items()}, seed=4
    )["theta"]
    assert not np.any(twins[0] == twins[1])


def test_many_draws_go_on_where_fewer_end(made):
    """10 000 draws of a data set begin with the 8192 of a shorter call, to the bit, and do not repeat
    them."""
    conditions = data(2, seed=7)
    many = made.sample(num_samples=10_000, conditions=conditions, seed=5)["theta"]
    assert many.shape == (2, 10_000, 2)
    np.testing.assert_array_equal(
        made.sample(num_samples=8192, conditions=conditions, seed=5)["theta"], many[:, :8192]
    )
    assert len(np.unique(many[0, :, 0])) > 9_990


def test_progress_is_shown_of_more_draws_than_a_moment_takes(made, monkeypatch):
    """Up to a number of draws of all data sets together there is no bar; beyond, terminals decide."""
    shown, bar = [], continuous.progress_bar
    monkeypatch.setattr(continuous, "_DRAWS_BEFORE_PROGRESS", 12)
    monkeypatch.setattr(
        continuous, "progress_bar", lambda *given, show: shown.append(show) or bar(*given, show=show)
    )
    for number in (6, 7):
        made.sample(num_samples=number, conditions=data(2, seed=7), seed=5)
    assert shown == [False, None]


def test_sampling_leaves_the_mode_and_no_gradients(made):
    """An approximator in training mode samples in evaluation mode and goes back; nothing of it is left to
    differentiate."""
    other = approximator().train()
    modes = []
    other.summary_network.register_forward_hook(lambda module, *args: modes.append(module.training))
    other.sample(num_samples=2, conditions=data(2))
    other.log_prob(data(2))
    assert modes == [False, False]
    assert other.training
    assert other.summary_network.training
    assert all(parameter.grad is None for parameter in other.parameters())


def test_weights_are_a_function_of_the_seed():
    """Building with the same seed gives the same weights whatever torch's global state, which stays; another
    seed gives others."""
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first, again, other = (approximator(built=False) for _ in range(3))
    first.build(data(), seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(9)
    again.build(data(), seed=1)
    other.build(data(), seed=2)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.summary_network.features.weight, other.summary_network.features.weight)


# --- optimizer


def test_every_parameter_is_optimized_once_and_only_matrices_decay(made):
    """Weights of linear layers have weight decay, biases and norms none, and no parameter is left out."""
    module = TrainingModule(made, seed=0, learning_rate=1e-3, weight_decay=0.1, total_steps=100)
    decayed, plain = module.configure_optimizers()["optimizer"].param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    ids = [id(parameter) for group in (decayed, plain) for parameter in group["params"]]
    assert sorted(ids) == sorted(id(parameter) for parameter in made.parameters())
    assert all(parameter.ndim == 2 for parameter in decayed["params"])
    assert all(parameter.ndim == 1 for parameter in plain["params"])


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_the_learning_rate_warms_up_and_falls_to_zero(made):
    """From a tenth of the rate linearly to all of it after 5 % of the steps, then down a cosine to zero."""
    configured = TrainingModule(
        made, seed=0, learning_rate=2e-3, weight_decay=0.0, total_steps=200
    ).configure_optimizers()
    schedule, rates = configured["lr_scheduler"]["scheduler"], []
    for _ in range(201):
        rates.append(schedule.get_last_lr()[0])
        schedule.step()
    np.testing.assert_allclose(rates[:11], 2e-3 * np.linspace(0.1, 1.0, 11))
    np.testing.assert_allclose(rates[10:], 1e-3 * (1 + np.cos(np.pi * np.arange(191) / 190)), atol=1e-9)
    assert configured["lr_scheduler"]["interval"] == "step"
