"""Edges of composition: seeds, strata, units, ddof, numbers of rows, and moments of the prior."""

import numpy as np
import pytest
import torch
from exact_items import GaussianItems, moments, normal, rng
from test_composition_priors import ROLES, approximator, data

from sbi_models.adapters import default_adapter
from sbi_models.approximators import CompositionalApproximator, compositional
from sbi_models.approximators.composition import items as items_module
from sbi_models.approximators.composition import uncalibrated
from sbi_models.approximators.composition.checks import predictable_share
from sbi_models.approximators.composition.grid_density import Line
from sbi_models.approximators.composition.items import DiffusionItems
from sbi_models.approximators.composition.polynomial_density import fit_density
from sbi_models.networks import DiffusionModel


def test_draws_of_a_polynomial_density_are_a_function_of_the_generator():
    """The same generator gives the same draws to the bit, whatever PyTorch's global state, which is left as
    it was."""
    u = normal(200, 2, seed=1)
    density = fit_density(u, -u, degree=2)
    drawn = []
    for state in (5, 6):
        torch.manual_seed(state)
        before = torch.get_rng_state()
        drawn.append(density.draw(50, rng(3))[0])
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*drawn)


def test_draws_on_a_line_have_places_of_their_own_in_their_strata():
    """Of a uniform density each of n equal parts has one draw, uniformly within it (sd 1 / sqrt(12))."""
    grid, n = np.linspace(0.0, 1.0, 101), 2_000
    drawn = Line([(grid, np.ones(101))], 1.0).draw(n, np.random.default_rng(1))[:, 0].numpy()
    within = np.sort(drawn) * n - np.arange(n)
    assert ((within > -1e-6) & (within < 1 + 1e-6)).all()
    assert within.mean() == pytest.approx(0.5, abs=5 * 12**-0.5 / n**0.5)
    assert within.std() == pytest.approx(12**-0.5, rel=0.05)


def test_what_conditions_predict_does_not_depend_on_their_units():
    """Nor do other conditions of larger units hide it; powers of two are exact."""
    features = normal(400, 2, seed=1)
    scores = features[:, :1] + 0.5 * normal(400, 1, seed=2)
    share = predictable_share(features, scores)
    assert share == pytest.approx(0.8, abs=0.08)
    for units in ([1.0, 2.0**30], [2.0**-20, 1.0]):
        assert predictable_share(features * torch.tensor(units).double(), scores) == pytest.approx(share)


def test_gaussians_of_a_network_without_a_head_are_moments_of_its_draws(monkeypatch):
    """The mean over items of means and of unbiased covariances, as `torch.cov` has them, of few draws."""
    made, given = approximator(), normal(3, 3, seed=1).float()
    network, drawn = made.inference_network, normal(3, 5, 3, seed=2)
    monkeypatch.setattr(items_module, "_DRAWS", 5)
    monkeypatch.setattr(network, "sample", lambda *_, **__: drawn)
    means, covariances = DiffusionItems(network, given, seed=0).gaussians()
    exact = torch.stack([torch.cov(part.mT) for part in drawn]).mean(dim=0)
    torch.testing.assert_close(means, drawn.mean(dim=(0, 1)).expand(3, 3))
    torch.testing.assert_close(covariances, exact.expand(3, 3, 3), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("near", "is_kept"), [(2, False), (3, True)])
def test_pilots_that_span_no_volume_are_replaced_by_draws_of_the_prior(monkeypatch, near, is_kept):
    """In two dimensions at least three points near the prior are needed."""
    drawn = torch.cat([normal(near, 2, seed=1), torch.full((20, 2), 1e6).double()])
    monkeypatch.setattr(uncalibrated, "gauss_draws", lambda *_: drawn)
    found, _ = uncalibrated.pilot_draws(GaussianItems(normal(4, 2, seed=2)), moments(), 1)
    assert torch.equal(found, drawn[:near]) == is_kept
    assert len(found) == (near if is_kept else len(drawn))
    assert float(found.abs().max()) < 10


# --- the approximator


def test_shared_errors_are_learned_from_all_simulations_and_what_is_unused_from_the_first(monkeypatch):
    """Conditions and scores are kept until there are `ROWS` of them, so that memory is bounded."""
    seen = []
    monkeypatch.setattr(compositional, "ROWS", 30)
    monkeypatch.setattr(
        compositional, "predictable_share", lambda *given: seen.append([len(part) for part in given]) or 0.25
    )
    made = approximator(preconditioning="gaussian")
    made.learn_shared_bias([data(10, seed=k) for k in range(6)])
    assert seen == [[30, 30]]
    assert made.shared_bias.count == 60
    assert float(made.shared_bias.unused) == 0.25


def test_a_network_that_was_not_trained_without_conditions_has_no_offset():
    """Its scores are taken as they are; one that knows the prior has the score of the prior as offset, which
    for a fresh network with Gaussian preconditioning is that of the standard normal."""
    theta = normal(5, 3, seed=1)
    assert torch.equal(approximator(drop_conditions=0.0)._offset(theta), torch.zeros(5, 3).double())
    knows = approximator(preconditioning="gaussian")
    torch.testing.assert_close(knows._offset(theta), -theta, rtol=0.01, atol=0.01)


def test_a_prior_is_tried_at_the_mean_of_the_training_data():
    """The mean lies in every convex support; a point that is off may not."""
    seen, raw = [], data()

    def prior(at):
        seen.append(at)
        return {name: np.zeros_like(value) for name, value in at.items()}

    assert approximator()._prior(prior, 3) is not None
    for name, value in seen[0].items():
        np.testing.assert_allclose(value, np.broadcast_to(raw[name].mean(axis=0), value.shape), rtol=1e-6)


def test_fresh_items_are_simulated_at_every_parameter_in_its_order(monkeypatch):
    """Blocks of rows together are all of theta in raw space, with the numbers of their rows."""
    monkeypatch.setattr(compositional, "ROWS_AT_A_TIME", 4)
    made, theta, seen = approximator(), normal(10, 3, seed=1), []

    def simulate(raw, seed):
        seen.append(raw)
        return {"x": np.tile(raw["theta"][:, :1], 3)}, np.arange(len(raw["theta"]))

    like = DiffusionItems(made.inference_network, torch.zeros(2, 3), seed=0)
    blocks = list(made._fresh(simulate, like, theta, 1))
    assert [len(raw["theta"]) for raw in seen] == [4, 4, 2]
    for name, value in made.raw_of(theta).items():
        np.testing.assert_array_equal(np.concatenate([raw[name] for raw in seen]), value)
    assert torch.cat([rows for rows, _ in blocks]).tolist() == list(range(10))
    given = torch.cat([items.conditions for _, items in blocks])
    assert given[:, 0].argsort().tolist() == theta[:, 0].argsort().tolist()


def prior_moments(standardize, preconditioning):
    """Moments that stand for the prior, and the network, whose Gaussian without conditions is skewed."""
    network = DiffusionModel(widths=(8,), drop_conditions=0.2, preconditioning=preconditioning)
    made = CompositionalApproximator(
        adapter=default_adapter(ROLES), roles=ROLES, inference_network=network, standardize=standardize
    )
    made.build(data(), seed=0)
    generator = rng(1)
    for parameter in network.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return made._prior_moments(), network


def test_moments_of_the_prior_are_those_of_the_standardizer_or_of_the_network():
    """Standardized parameters have mean 0 and covariance 1; others those of the network's Gaussian without
    conditions, if it has one."""
    for standardize, preconditioning in (
        (("inference_variables",), "gaussian"),
        (("inference_variables",), None),
        ((), None),
    ):
        (mean, covariance), _ = prior_moments(standardize, preconditioning)
        assert torch.equal(mean, torch.zeros(3).double())
        assert torch.equal(covariance, torch.eye(3).double())
    (mean, covariance), network = prior_moments((), "gaussian")
    exact, factor = (part.detach() for part in network.denoiser.gaussian(network.no_conditions))
    assert float(factor.tril(-1).abs().max()) > 1e-3
    normal_law = torch.distributions.MultivariateNormal(exact, scale_tril=factor)
    torch.testing.assert_close(mean, normal_law.mean.double())
    torch.testing.assert_close(covariance, normal_law.covariance_matrix.double(), rtol=1e-5, atol=1e-6)
