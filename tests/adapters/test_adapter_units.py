"""Half-lines and gaps in any unit: what networks see does not depend on the unit of the user."""

import numpy as np
import pytest
import torch
from torch.distributions import AffineTransform, Gamma, HalfNormal, LogNormal, TransformedDistribution

from sbi_models.adapters import Adapter, default_adapter
from sbi_models.approximators import ContinuousApproximator
from sbi_models.networks import AutoregressiveMixture

POWERS = [-40, -3, 0, 20, 60]


def positive(n=2001, seed=0):
    return torch.as_tensor(np.random.default_rng(seed).gamma(2.0, 1.0, (n, 2)))


def columns(lower, upper):
    return lambda unit: Adapter().constrain(
        "x", lower=[b and b * unit for b in lower], upper=[b and b * unit for b in upper]
    )


SUPPORTS = {
    "lower": (columns([0.0, -1.0], [None, None]), positive()),
    "upper": (columns([None, None], [0.0, 3.0]), -positive()),
    "one of each": (columns([0.0, None], [None, 2.0]), positive() * torch.tensor([1.0, -1.0])),
    "beside an interval": (columns([0.0, -50.0], [None, 50.0]), positive()),
    "ordered": (lambda unit: Adapter().constrain("x", to="ordered"), positive().cumsum(dim=1)),
}


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("key", SUPPORTS)
def test_a_unit_makes_no_difference(key, power):
    """Draws in a unit of 2^k go where they go in a unit of 1, to the bit (the first of ordered ones up to the
    factor), and back."""
    make, draws = SUPPORTS[key]
    unit = 2.0**power
    plain, scaled = {"x": draws}, {"x": draws * unit}
    there = make(unit).fitted(scaled).forward(scaled)["x"]
    expected = make(1.0).fitted(plain).forward(plain)["x"]
    first = unit if key == "ordered" else 1.0
    torch.testing.assert_close(there, expected * torch.tensor([first, 1.0]), rtol=0, atol=0)
    torch.testing.assert_close(
        make(unit).fitted(scaled).inverse({"x": there})["x"], scaled["x"], rtol=1e-9, atol=0
    )
    scale = make(unit).fitted(scaled).log_abs_det(scaled, "x") - make(1.0).fitted(plain).log_abs_det(
        plain, "x"
    )
    changed = 1 if key == "ordered" else 2  # components whose scale is divided out
    torch.testing.assert_close(scale, torch.full_like(scale, -changed * power * np.log(2.0)))


def test_a_saved_adapter_has_the_units():
    """What JSON holds of a fitted adapter maps new rows in the units of the data that it was fitted to."""
    for make, draws in SUPPORTS.values():
        adapter = make(1e6).fitted({"x": draws * 1e6})
        again = Adapter.from_json(adapter.to_json())
        row = {"x": draws[:3] * 2e6}
        assert torch.equal(again.forward(row)["x"], adapter.forward(row)["x"])


PRIORS = {
    "gamma": lambda unit: Gamma(torch.tensor(2.0), torch.tensor(1.0 / unit)),
    "log-normal": lambda unit: LogNormal(torch.tensor(unit).log(), torch.tensor(0.5)),
    "half-normal": lambda unit: HalfNormal(torch.tensor(unit)),
    "at most": lambda unit: TransformedDistribution(
        Gamma(torch.tensor(2.0), torch.tensor(1.0)), AffineTransform(unit, -unit)
    ),
}


@pytest.mark.parametrize("key", PRIORS)
def test_a_torch_prior_of_any_scale_is_learned(key):
    """The mean log density of a prior of scale 1e6 or 1e-6, learned without data, is that of scale 1 in its
    unit, within 0.03 nats."""
    scores = {}
    for unit in (1.0, 1e-6, 1e6):
        prior = PRIORS[key](unit)
        torch.manual_seed(0)
        draws = prior.sample((4000, 1)).to(torch.float64).numpy()
        data = {"x": draws, "c": np.zeros((4000, 1))}
        roles = {"inference_variables": ["x"], "inference_conditions": ["c"]}
        approximator = ContinuousApproximator(
            adapter=default_adapter(roles, {"x": prior}),
            roles=roles,
            inference_network=AutoregressiveMixture(components=1, order="given"),
        )
        approximator.build(data, seed=0)
        scores[unit] = approximator.log_prob(data).mean() + np.log(unit)
    assert max(scores.values()) - min(scores.values()) < 0.03
