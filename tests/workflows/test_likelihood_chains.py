"""Chains of learned likelihoods on densities that are known: moments, shares of modes, evidence."""

import math

import numpy as np
import torch

from sbi_models.workflows.likelihood import sampler
from sbi_models.workflows.likelihood.kernels import Chains
from sbi_models.workflows.likelihood.sampler import draw_by_chains
from sbi_models.workflows.likelihood.target import Evaluation, Target


class Known(Target):
    """A standard normal prior times a likelihood that is a function of (z, number of the data set)."""

    def __init__(self, width, log_likelihood):
        self.width, self.log_likelihood = width, log_likelihood

    def start(self, number, seed):
        generator = torch.Generator().manual_seed(seed % 2**62)
        return torch.randn(number, self.width, generator=generator, dtype=torch.float64)

    def __call__(self, z, rows):
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
    """Four chains a group, and no jumps: groups have the modes in different shares, and R-hat says so."""
    monkeypatch.setattr(sampler, "_CHAINS", 4)
    monkeypatch.setattr(sampler, "_ROUNDS", sampler._ROUNDS[:1])
    monkeypatch.setattr(Chains, "jump", lambda self, streams, rows: None)
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
