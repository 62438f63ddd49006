"""Densities and maps of adapters against distributions that are known in closed form."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from sbi_models.adapters import Adapter
from sbi_models.approximators import ContinuousApproximator
from sbi_models.errors import DataError
from sbi_models.networks import FlowMatching


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


def test_log_of_a_log_normal_variable_is_normal():
    """The normal density of log(x), with the Jacobian of the chain log, shift, scale, is scipy's log-normal
    density of x."""
    x = column(1e-3, 0.5, 1.0, 7.0, 1e4)
    adapter = Adapter().log("x").shift("x", by=-0.3).scale("x", by=1 / 0.8)
    z = adapter.forward({"x": x})["x"]
    density = torch.distributions.Normal(0, 1).log_prob(z).sum(dim=1) + adapter.log_abs_det({"x": x}, "x")
    assert np.allclose(density, stats.lognorm(0.8, scale=math.exp(0.3)).logpdf(x[:, 0]), rtol=1e-12)


@pytest.mark.parametrize(("scale", "law"), [("probit", stats.norm), ("logit", stats.logistic)])
def test_the_map_of_an_interval_makes_a_uniform_variable_normal_or_logistic(scale, law):
    """-log|det J| at x is the log density of z, normal or logistic, also where x is 1e-300 from a bound; so
    for Beta(a, b) variables."""
    x = column(1e-300, 1e-12, 0.2, 0.5, 1 - 1e-12, 1 - 2**-53)
    adapter = Adapter().constrain("x", lower=0, upper=1, scale=scale)
    z = adapter.forward({"x": x})["x"]
    assert np.allclose(law.cdf(z[:, 0]), x[:, 0], rtol=1e-12, atol=0)
    assert np.allclose(-adapter.log_abs_det({"x": x}, "x"), law.logpdf(z[:, 0]), rtol=1e-12)
    beta = stats.beta(2.5, 0.7).logpdf(x[:, 0]) - adapter.log_abs_det({"x": x}, "x").numpy()
    exact = 1.5 * law.logcdf(z[:, 0]) - 0.3 * law.logsf(z[:, 0]) + law.logpdf(z[:, 0])
    assert np.allclose(
        beta, exact + math.log(math.gamma(3.2) / math.gamma(2.5) / math.gamma(0.7)), rtol=1e-10
    )


def test_a_dirichlet_density_goes_through_the_simplex():
    """The Dirichlet density pushed through the simplex is that of independent Beta breaks of the stick, with
    its normalization."""
    alpha = np.array([0.7, 2.0, 3.5, 1.2])
    x = torch.as_tensor(np.random.default_rng(0).dirichlet(alpha, size=20))
    adapter = Adapter().constrain("x", to="simplex")
    pushed = (
        stats.dirichlet(alpha).logpdf(x.numpy().T / x.numpy().sum(1))
        - adapter.log_abs_det({"x": x}, "x").numpy()
    )
    z = adapter.forward({"x": x})["x"].numpy() - np.log([3.0, 2.0, 1.0])
    expected = np.zeros(20)
    for k in range(3):
        a, b = alpha[k], alpha[k + 1 :].sum()
        expected += a * stats.logistic.logcdf(z[:, k]) + b * stats.logistic.logsf(z[:, k])
        expected -= math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    assert np.allclose(pushed, expected, rtol=1e-10)
    assert torch.allclose(adapter.forward({"x": torch.full((1, 4), 0.25)})["x"], torch.zeros(1, 3), atol=1e-7)


def test_order_statistics_go_through_the_ordered_map():
    """Two sorted uniform variables have density 2; through the ordered map it integrates to 1 over the plane,
    on a grid."""
    adapter = Adapter().constrain("x", lower=0, upper=1).constrain("x", to="ordered")
    first, second = (
        torch.linspace(-30, 30, 1201, dtype=torch.float64),
        torch.linspace(-30, 60, 1801, dtype=torch.float64),
    )
    z = torch.cartesian_prod(first, second)
    x = adapter.inverse({"x": z})["x"]
    inside = (x[:, 1] < 1 - 1e-15) & (
        x[:, 1] - x[:, 0] > 1e-14
    )  # beyond, rounding hides the gap; 1e-13 of the mass
    density = 2 * torch.exp(-adapter.log_abs_det({"x": x[inside]}, "x"))
    assert float(density.sum()) * (60 / 1200) * (90 / 1800) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("lower", "upper"), [(0.0, None), (None, 2.0), (-1.0, 3.0)])
def test_values_close_to_bounds_and_far_out_stay_finite(lower, upper):
    """From the closest float64 to a bound up to the largest one: z and log|det J| are finite, z increases,
    and x comes back."""
    low = -1e308 if lower is None else lower
    high = 1.7e308 if upper is None else upper
    x = {
        math.nextafter(low, math.inf),
        math.nextafter(high, -math.inf),
        low + 1e-12,
        high - 1e-12,
        0.5,
        0.5 + 2**-53,
    }
    x = column(*sorted(v for v in x | {1e300, -1e300, 1e-300} if low < v < high))
    adapter = Adapter().constrain("x", lower=lower, upper=upper)
    z = adapter.forward({"x": x})["x"]
    assert z.isfinite().all()
    assert (z.diff(dim=0) >= 0).all()
    assert adapter.log_abs_det({"x": x}, "x").isfinite().all()
    assert torch.allclose(adapter.inverse({"x": z})["x"], x, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("scale", ["probit", "logit"])
def test_both_ends_of_an_interval_are_measured_from_themselves(scale):
    """Next to a bound of 0, on either side of an interval, values of 1e-300 come back to 1e-12 of their own
    size."""
    for sign in (1.0, -1.0):
        lower, upper = sorted((0.0, sign))
        x = sign * column(1e-300, 1e-30, 1e-3, 0.4)
        adapter = Adapter().constrain("x", lower=lower, upper=upper, scale=scale)
        assert torch.allclose(adapter.inverse(adapter.forward({"x": x}))["x"], x, rtol=1e-12, atol=0)


@pytest.mark.parametrize("support", [{"lower": -1.7e308}, {"upper": 1.7e308}, {"to": "ordered"}])
def test_differences_that_overflow_stay_finite(support):
    """Where x minus its bound, or the gap of two components, is beyond float64, z and log|det J| are finite
    all the same."""
    x = torch.tensor([[-1.6e308, 1.6e308]], dtype=torch.float64)
    adapter = Adapter().constrain("x", **support)
    z = adapter.forward({"x": x})["x"]
    assert z.isfinite().all()
    assert adapter.log_abs_det({"x": x}, "x").isfinite().all()
    assert adapter.inverse({"x": z})["x"].isfinite().all()


def test_corners_of_the_simplex_stay_finite():
    """Proportions of 1e-300, and one that is nearly 1, have finite z and log|det J| and come back to 1e-12 of
    their own size."""
    x = torch.tensor(
        [[1e-300, 1e-200, 1 - 1e-16], [1.0 - 2**-53, 1e-300, 1e-17], [1e-17, 1, 1e-300]], dtype=torch.float64
    )
    adapter = Adapter().constrain("x", to="simplex")
    assert adapter.log_abs_det({"x": x}, "x").isfinite().all()
    assert torch.allclose(adapter.inverse(adapter.forward({"x": x}))["x"], x, rtol=1e-12, atol=0)


def test_moments_are_those_of_the_data_and_missing_values_do_not_count():
    """Standardized data have mean 0 and sd 1; NaN are left aside and a constant component is only centred."""
    x = torch.as_tensor(np.random.default_rng(0).normal([5, -3, 2], [2, 0.1, 0], size=(50, 3)))
    fitted = Adapter().standardize("x").fitted({"x": x})
    z = fitted.forward({"x": x})["x"]
    assert torch.allclose(z.mean(dim=0), torch.zeros(3, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(z.std(dim=0, correction=0), torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64))
    tiny = {"x": 1e-100 * x[:, :1]}
    assert torch.allclose(Adapter().standardize("x").fitted(tiny).forward(tiny)["x"], z[:, :1])
    holed = torch.cat([x, torch.full((7, 3), torch.nan)])
    again = Adapter().standardize("x").fitted({"x": holed}).forward({"x": x})["x"]
    assert torch.allclose(again, z, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("given", "z"),
    [
        ({}, [[-1.0, 1.0], [1.0, -1.0]]),
        ({"sd": 4.0}, [[-0.5, 1.5], [0.5, -1.5]]),
        ({"sd": [4.0, 12.0]}, [[-0.5, 0.5], [0.5, -0.5]]),
        ({"mean": 7.0}, [[0.0, 19 / 6], [2.0, 7 / 6]]),
        ({"mean": [7.0, 2.0], "sd": [8.0, 3.0]}, [[0.0, 8.0], [0.5, 4.0]]),
    ],
)
def test_moments_that_are_given_are_used(given, z):
    """Of columns of means 9 and 20 and sds 2 and 6: a mean or an sd that is given, one for all or one each,
    stands in for that of the data, which gives the other; the Jacobian has the sd that was used."""
    x = torch.tensor([[7.0, 26.0], [11.0, 14.0]], dtype=torch.float64)
    adapter = Adapter().standardize("x", **given).fitted({"x": x})
    torch.testing.assert_close(adapter.forward({"x": x})["x"].tolist(), z)
    sd = np.broadcast_to(given.get("sd", [2.0, 6.0]), 2)
    assert adapter.log_abs_det({"x": x}, "x").tolist() == pytest.approx([-np.log(sd).sum()] * 2)


@pytest.mark.parametrize("unit", [1.0, 1e-20, 1e20])
def test_constants_keep_an_sd_of_1_and_small_spreads_their_own(unit):
    """A constant whose mean is rounded, or whose values are off by a unit in the last place, is only centred;
    a spread of a millionth of the value is one, in any unit."""
    rng = np.random.default_rng(0)
    constant = np.full(1001, 0.1)
    jittered = constant * (1 + 2.0**-52 * rng.integers(2, size=1001))
    spread = 0.1 * (1 + 1e-6 * rng.normal(size=1001))
    x = {"x": torch.as_tensor(unit * np.stack([constant, jittered, spread], axis=1))}
    z = Adapter().standardize("x").fitted(x).forward(x)["x"]
    assert float(z[:, :2].abs().max()) < 1e-6 * max(unit, 1)
    assert float(z[:, 2].std()) == pytest.approx(1.0, rel=1e-2)


def test_conditions_have_the_layout_that_is_documented():
    """One-hot classes, masks and broadcast values are the numbers that one would write down."""
    raw = {
        "k": column(0, 2),
        "y": torch.tensor([[1.0, torch.nan], [3.0, 4.0]], dtype=torch.float64),
        "t": torch.zeros(2, 3, 1, dtype=torch.float64),
    }
    adapter = (
        Adapter().one_hot("k", num_classes=3).nan_to_num("y", value=-9, mask="seen").broadcast("y", to="t")
    )
    adapted = adapter.fitted(raw).forward(raw)
    assert adapted["k"].tolist() == [[1, 0, 0], [0, 0, 1]]
    assert adapted["seen"].tolist() == [[1, 0], [1, 1]]
    assert adapted["y"].tolist() == [[[1, -9]] * 3, [[3, 4]] * 3]


@pytest.mark.parametrize(
    ("support", "low", "high"),
    [({"lower": 2, "upper": 5}, 2.0, 5.0), ({"lower": 0}, 0.0, 60.0), ({"upper": 1}, -60.0, 1.0)],
)
def test_a_density_over_a_support_integrates_to_one(support, low, high):
    """log_prob of an approximator with a constrained parameter integrates to 1 over its support in raw space,
    and draws lie inside."""
    rng = np.random.default_rng(0)
    width = min(high - low, 3.0)
    theta = (
        (low + width * rng.uniform(0.01, 0.99, (200, 1)))
        if low > -60
        else (high - width * rng.uniform(0.01, 0.99, (200, 1)))
    )
    approximator = ContinuousApproximator(
        adapter=Adapter().constrain("theta", **support),
        roles={"inference_variables": ["theta"], "inference_conditions": ["c"]},
        inference_network=FlowMatching(widths=(8,), steps=16),
    )
    approximator.build({"theta": theta, "c": rng.normal(size=(200, 1))}, seed=1)
    edges = np.linspace(low, high, 4001)
    grid = (0.5 * (edges[1:] + edges[:-1]))[:, None]
    density = np.exp(approximator.log_prob({"theta": grid, "c": np.zeros_like(grid)}))
    assert density.mean() * (high - low) == pytest.approx(1, abs=3e-3)
    draws = approximator.sample(num_samples=2000, conditions={"c": np.zeros((1, 1))}, seed=0)["theta"]
    assert low < draws.min() < draws.max() < high


def test_a_uniform_density_through_constrain_integrates_to_one():
    """The density of z for x uniform in an interval, 1 / (b - a) times |dx/dz|, integrates to 1 over the real
    line to 1e-9."""
    adapter = Adapter().constrain("x", lower=-1, upper=3)
    z = torch.linspace(-33, 33, 20001, dtype=torch.float64)[:, None]
    log_density = -math.log(4) - adapter.log_abs_det(adapter.inverse({"x": z}), "x")
    assert float(torch.trapezoid(log_density.exp(), z[:, 0])) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(("off", "taken"), [(1e-6, True), (-5e-6, True), (3e-5, False), (-3e-5, False)])
def test_sums_may_be_off_by_the_rounding_of_float32(off, taken):
    """Proportions that sum to 1 within 1e-5 are taken; beyond, on either side, they are refused with their
    sum."""
    x = {"x": torch.tensor([[0.2, 0.3, 0.5 + off]], dtype=torch.float64)}
    adapter = Adapter().constrain("x", to="simplex")
    if taken:
        assert adapter.forward(x)["x"].isfinite().all()
    else:
        with pytest.raises(DataError, match="to sum to 1"):
            adapter.forward(x)
