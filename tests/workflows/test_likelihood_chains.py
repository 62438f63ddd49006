"""Chains of learned likelihoods on densities that are known: moments, shares of modes, evidence."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from sbi_models.workflows.likelihood import sampler
from sbi_models.workflows.likelihood.kernels import Chains
from sbi_models.workflows.likelihood.mixture import StudentMixture
from sbi_models.workflows.likelihood.sampler import draw_by_chains
from sbi_models.workflows.likelihood.streams import Streams
from sbi_models.workflows.likelihood.target import Evaluation, Target


class Known(Target):
    """A standard normal prior times a likelihood that is a function of (z, number of the data set)."""

    def __init__(self, width, log_likelihood):
        self.width, self.log_likelihood = width, log_likelihood

    def start(self, number, seed):
        generator = torch.Generator().manual_seed(seed % 2**62)
        return torch.randn(number, self.width, generator=generator, dtype=torch.float64)

    def __call__(self, z, rows, stages, *, with_slopes=True):
        with torch.enable_grad():
            z = z.detach().clone().requires_grad_()
            prior = -0.5 * z.square().sum(dim=2) - 0.5 * self.width * math.log(2 * math.pi)
            likelihood = self.log_likelihood(z, rows)
            slopes = [
                torch.autograd.grad(part.sum(), z, retain_graph=True)[0] for part in (prior, likelihood)
            ]
        return Evaluation(prior.detach(), likelihood.detach(), *slopes)


def normal_log_density(z, mean, sd):
    return (-0.5 * ((z - mean) / sd).square() - torch.log(sd) - 0.5 * math.log(2 * math.pi)).sum(dim=-1)


def test_normal_posteriors_of_all_scales():
    """Three data sets with noise of sd 1e-3 to 10 in ten dimensions, correlated: means within 0.15 exact sds,
    sds within 10 %, the evidence within 1 nat, and R-hat below 1.02."""
    d = 10
    generator = torch.Generator().manual_seed(1)
    mixing = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64)).Q
    sds = torch.logspace(-3, 1, d, dtype=torch.float64)
    x = torch.randn(3, 1, d, generator=generator, dtype=torch.float64)
    target = Known(d, lambda z, rows: normal_log_density(x[rows] - z @ mixing, torch.zeros(()), sds))
    found = draw_by_chains(target, torch.arange(3), 1000, seed=1)
    draws = (found.draws @ mixing).numpy()
    variance = 1 / (1 + 1 / sds.numpy() ** 2)
    exact = x[:, 0].numpy() * variance / sds.numpy() ** 2
    assert np.abs((draws.mean(axis=1) - exact) / np.sqrt(variance)).max() < 0.15
    assert np.abs(draws.std(axis=1) / np.sqrt(variance) - 1).max() < 0.1
    spread = np.sqrt(1 + sds.numpy() ** 2)
    evidence = (-0.5 * (x[:, 0].numpy() / spread) ** 2 - np.log(spread) - 0.5 * np.log(2 * np.pi)).sum(axis=1)
    assert np.abs(found.log_evidence - evidence).max() < 1.0
    assert found.r_hat.max() < 1.02
    assert found.effective.min() > 400


def two_modes(z, rows):
    """Modes at 1 and -1, 40 sds apart, with likelihoods in the ratio 3 to 7."""
    near = normal_log_density(z, torch.tensor([1.0, 0.0]), torch.tensor(0.05)) + math.log(0.3)
    far = normal_log_density(z, torch.tensor([-1.0, 0.0]), torch.tensor(0.05)) + math.log(0.7)
    return torch.logaddexp(near, far)


def test_modes_have_their_shares():
    """Two modes, 40 sds apart: the share of draws of four data sets within 0.06 of 0.3, without a doubt."""
    found = draw_by_chains(Known(2, two_modes), torch.arange(4), 2000, seed=3)
    shares = (found.draws[..., 0] > 0).double().mean(dim=1).numpy()
    assert np.abs(shares - 0.3).max() < 0.06
    assert found.r_hat.max() < 1.05


def test_modes_that_chains_cannot_leave_are_noticed(monkeypatch):
    """Four chains a group, and Hamiltonian moves alone: groups have the modes in different shares, and R-hat
    says so."""
    monkeypatch.setattr(sampler, "_CHAINS", 4)
    monkeypatch.setattr(sampler, "_ROUNDS", ((1, 1),))
    monkeypatch.setattr(Chains, "jump", lambda self, streams, rows, **options: None)
    monkeypatch.setattr(Chains, "draw_independently", lambda self, mixture, streams, rows: None)
    found = draw_by_chains(Known(2, two_modes), torch.arange(4), 100, seed=3)
    assert (found.r_hat > 1.05).sum() >= 3


def test_a_data_set_has_the_draws_that_it_has_alone():
    """Streams are those of each data set: the third of three equals the same data set without the others."""
    x = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
    target = Known(1, lambda z, rows: normal_log_density(z, x[rows][:, None], torch.tensor(0.5)))
    together = draw_by_chains(target, torch.arange(3), 100, seed=5).draws
    alone = draw_by_chains(target, torch.tensor([2]), 100, seed=5).draws
    assert torch.allclose(together[2], alone[0])


def test_chains_without_any_likelihood_are_told():
    """A likelihood of zero everywhere: the posterior is not reached, and the log evidence is -inf."""
    target = Known(1, lambda z, rows: 0 * z[..., 0] - torch.inf)
    found = draw_by_chains(target, torch.arange(2), 10, seed=5)
    assert not found.arrived.any()
    assert np.isneginf(found.log_evidence).all()


def test_a_mixture_has_the_density_that_it_draws_from():
    """Of two data sets of three clusters each: the mean of the ratio of a wide normal density to that of the
    mixture over its draws is the ratio of their integrals, the same for both halves of the draws, within 4
    standard errors; and draws have the moments of the points within a tenth of the sd."""
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(2, 900, 2, generator=generator, dtype=torch.float64)
    centres = torch.tensor([[0.0, 0.0], [8.0, 0.0], [0.0, -6.0]], dtype=torch.float64).repeat(300, 1)
    points = (centres + noise) * torch.tensor([1e3, 1e-3], dtype=torch.float64)
    streams, rows = Streams(1, [0, 1]), torch.arange(2)
    mixture = StudentMixture(points, streams, rows)
    drawn = mixture.draw(20_000, streams, rows)
    sd = points.std(dim=1)
    assert ((drawn.mean(dim=1) - points.mean(dim=1)).abs() < 0.1 * sd).all()
    assert ((drawn.std(dim=1) / sd - 1).abs() < 0.1).all()
    inside = (
        ((points[:, :, None] - drawn[:, None, ::100]) / sd[:, None, None]).square().sum(dim=3).amin(dim=1)
    )
    assert inside.median() < 0.01  # draws are where points are, not between the clusters
    centre = points.mean(dim=1, keepdim=True)

    def ratio(spread):
        wide = normal_log_density(drawn, centre, spread * sd[:, None])
        return (wide - mixture.log_density(drawn)).exp()

    one, two = ratio(1.0), ratio(0.7)
    error = 4 * (one - two).std(dim=1) / math.sqrt(drawn.shape[1])
    assert ((one - two).mean(dim=1).abs() < error).all()


def test_one_component_is_students_t():
    """Up to a constant, with mean and covariance of the points (SciPy's multivariate t)."""
    generator = torch.Generator().manual_seed(3)
    points = torch.randn(1, 39, 2, generator=generator, dtype=torch.float64) * 3 + 1
    mixture = StudentMixture(points, Streams(1, [0]), torch.arange(1))
    z = torch.randn(1, 50, 2, generator=generator, dtype=torch.float64) * 5
    exact = stats.multivariate_t.logpdf(
        z[0].numpy(), points[0].mean(dim=0).numpy(), np.cov(points[0].T.numpy(), bias=True), df=8
    )
    difference = mixture.log_density(z)[0].numpy() - exact
    assert np.ptp(difference) < 1e-6


@pytest.mark.parametrize(("edge", "least", "most"), [(6.0, 0.0, 0.001), (1.0, 0.02, 0.3), (0.0, 0.05, 0.3)])
def test_what_a_support_cuts_off_is_told(edge, least, most):
    """A normal posterior of sd 0.7 whose density is zero beyond so many sds: the share that is
    cut off is seen, whatever the moves."""

    def cut(z, rows):
        inside = z[..., 0] < edge * 0.5**0.5
        return torch.where(inside, normal_log_density(z, torch.zeros(()), torch.tensor(1.0)), -torch.inf)

    found = draw_by_chains(Known(1, cut), torch.arange(2), 200, seed=1)
    assert found.cut.min() >= least
    assert found.cut.max() <= most
