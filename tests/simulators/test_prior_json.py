"""Torch distributions as JSON: the same density again, or none."""

import json

import pytest
import torch
from torch.distributions import (
    Beta,
    Categorical,
    Dirichlet,
    Exponential,
    Gamma,
    HalfNormal,
    Independent,
    InverseGamma,
    LogNormal,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    StudentT,
    TransformedDistribution,
    Uniform,
    Weibull,
    Wishart,
)
from torch.distributions.transforms import ExpTransform

from sbi_models.errors import ModelFileError
from sbi_models.simulators.prior_json import distribution_from_json, distribution_to_json

KEPT = [
    Normal(0.5, 0.5).expand((3,)),
    Uniform(torch.zeros(2), torch.tensor([1.0, 0.1])),
    Gamma(4.0, 2.0),
    Beta(2.0, 3.0),
    MultivariateNormal(torch.zeros(2), torch.tensor([[2.0, 0.5], [0.5, 1.0]])),
    MultivariateNormal(torch.zeros(2), precision_matrix=torch.tensor([[2.0, 0.5], [0.5, 1.0]])),
    Independent(LogNormal(torch.zeros(2), 1.0), 1),
    Dirichlet(torch.tensor([1.0, 2.0, 3.0])),
    HalfNormal(2.0),
    StudentT(3.0, 1.0, 0.1),
    Weibull(1.0, 2.0),
    Exponential(2.0),
    InverseGamma(3.0, 1.0),
]


@pytest.mark.parametrize("distribution", KEPT, ids=lambda one: type(one).__name__)
def test_a_distribution_has_its_density_after_json(distribution):
    """To float32, in which it was made, and in shape; what is made again has the same JSON."""
    content = json.loads(json.dumps(distribution_to_json(distribution)))
    again = distribution_from_json(content)
    torch.manual_seed(1)
    draws = distribution.sample((20,))
    torch.testing.assert_close(
        again.log_prob(draws.double()).float(), distribution.log_prob(draws), rtol=1e-4, atol=1e-5
    )
    assert (again.batch_shape, again.event_shape) == (distribution.batch_shape, distribution.event_shape)
    assert distribution_to_json(again) == content


class _Shifted(Normal):
    """A class of a user's own, of which JSON can hold no code."""


@pytest.mark.parametrize(
    "distribution",
    [
        MixtureSameFamily(Categorical(torch.ones(2)), Normal(torch.zeros(2), 1.0)),
        TransformedDistribution(Normal(0.0, 1.0), [ExpTransform()]),
        Wishart(3.0, torch.eye(2)),
        _Shifted(0.0, 1.0),
        Independent(_Shifted(torch.zeros(2), 1.0), 1),
    ],
    ids=lambda one: type(one).__name__,
)
def test_other_distributions_are_not_kept(distribution):
    """No half of one is: there is none."""
    assert distribution_to_json(distribution) is None


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"name": "Normal", "arguments": {"loc": 0.0}},
        {"name": "Normal", "arguments": {"loc": 0.0, "scale": -1.0}},
        {"name": "kl_divergence", "arguments": {}},
        {"name": "Nobody", "arguments": {}},
    ],
)
def test_other_content_is_refused(monkeypatch, content):
    """Of a file that someone has changed, also where a program has turned PyTorch's own checks off."""
    monkeypatch.setattr(torch.distributions.Distribution, "_validate_args", False)
    with pytest.raises(ModelFileError, match="torch distribution"):
        distribution_from_json(content)
