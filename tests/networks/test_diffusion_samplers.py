"""Samplers of diffusion models: right by default, their orders, and noise of their own, with exact
denoisers."""

import math

import numpy as np
import pytest
import torch
from analytic_denoisers import gaussian, mixture
from diffusion_models import (
    MEANS,
    NORMAL,
    SDS,
    WEIGHTS,
    conditions,
    every_sampler,
    every_schedule,
    made,
    rng,
    with_denoiser,
)

from sbi_models.networks.diffusion import SAMPLERS, Task, make_schedule

QUANTILES = NORMAL.icdf((torch.arange(2000, dtype=torch.float64) + 0.5) / 2000)[:, None]


def flow_map(sampler, denoise, schedule, steps=None):
    return SAMPLERS[sampler](Task(denoise, schedule, lambda: QUANTILES), steps)


@every_schedule
@pytest.mark.parametrize("sampler", ["rk4", "heun", "dpm"])
@pytest.mark.parametrize(
    ("sd", "tolerance"), [(1.0, 0.011), (0.3, 0.011), (0.01, 0.015), (0.005, 0.016), (0.001, 0.03)]
)
def test_flow_samplers_are_right_by_default(name, sampler, sd, tolerance):
    """Noise carried to N(0.7, sd^2) has the right mean and sd with the default steps, down to an sd of
    0.001."""
    schedule = make_schedule(name)
    draws = flow_map(sampler, gaussian(schedule, 0.7, sd), schedule)
    assert draws.mean().item() == pytest.approx(0.7, abs=0.02 * sd)
    ratio = draws.std(correction=0) / QUANTILES.std(correction=0) / sd
    assert ratio.item() == pytest.approx(1.0, abs=tolerance if sampler != "rk4" or sd < 0.002 else 0.005)


@pytest.mark.parametrize("sampler", ["ancestral", "sde_dpm"])
@pytest.mark.parametrize("sd", [1.0, pytest.param(0.1, marks=pytest.mark.nightly), 0.005])
def test_diffusion_samplers_are_right_by_default(sampler, sd):
    """40 000 draws of N(0.7, sd^2) by the reverse diffusion: the mean within 5 standard errors; the sd within
    2 %, or 4 % at order one."""
    schedule, generator = make_schedule("cosine"), rng(4)

    def fresh():
        return torch.randn(40_000, 1, generator=generator, dtype=torch.float64)

    draws = SAMPLERS[sampler](Task(gaussian(schedule, 0.7, sd), schedule, fresh))
    assert draws.mean().item() == pytest.approx(0.7, abs=5 * sd / 200)
    assert draws.std().item() == pytest.approx(sd, rel=0.02 if sampler == "sde_dpm" else 0.04)


@pytest.mark.nightly_cases("dpm-2")
@pytest.mark.parametrize(("sampler", "order"), [("rk4", 4), ("heun", 2), ("ddim", 1), ("dpm", 2)])
def test_the_order_of_flow_samplers(sampler, order):
    """Doubling the steps divides the distance to the exact flow map of N(0.7, 0.3^2) by 2^order."""
    schedule = make_schedule("cosine", {"log_snr_max": 8.0, "log_snr_min": -8.0})
    alpha, sigma = (
        value(torch.tensor([1.0, 0.0], dtype=torch.float64)) for value in (schedule.alpha, schedule.sigma)
    )
    start, end = (0.3**2 * alpha**2 + sigma**2).sqrt()
    exact = (0.7 * alpha[1] + end * (QUANTILES - 0.7 * alpha[0]) / start) / alpha[1]
    finest = (
        2048 if sampler == "dpm" else 256
    )  # dpm counts on short steps of log-SNR, which the grid has late at the noise end

    def size(steps):
        return (flow_map(sampler, gaussian(schedule, 0.7, 0.3), schedule, steps) - exact).abs().mean().item()

    sizes = [size(finest // 4), size(finest // 2), size(finest)]
    assert np.log2(sizes[1] / sizes[2]) == pytest.approx(order, abs=0.15)
    assert sizes[0] > sizes[1] > sizes[2]


@pytest.mark.parametrize(("sampler", "order"), [("ancestral", 1), ("sde_dpm", 2)])
def test_the_order_of_diffusion_samplers(sampler, order):
    """For normal parameters a step is linear in state and noise, so the variance of its draws can be carried
    exactly."""
    schedule, sd = make_schedule("cosine", {"log_snr_max": 8.0, "log_snr_min": -8.0}), 0.3

    def error(steps):
        # One column for the start and for each step's noise: the draws' coefficients of independent standard
        # normals.
        columns = iter(torch.eye(steps + 1, dtype=torch.float64))
        coefficients = SAMPLERS[sampler](
            Task(gaussian(schedule, 0.0, sd), schedule, lambda: next(columns)[None]), steps
        )
        alpha, sigma = (
            value(torch.zeros((), dtype=torch.float64)) for value in (schedule.alpha, schedule.sigma)
        )
        return abs((coefficients**2).sum() - (sd**2 + (sigma / alpha) ** 2)).item()

    errors = [error(steps) for steps in (128, 256, 512)]
    assert np.log2(errors[1] / errors[2]) == pytest.approx(order, abs=0.2)


@pytest.mark.nightly_cases("ancestral")
@every_sampler
def test_draws_of_a_mixture(sampler):
    """5000 draws of two normals in the plane: their weights, means and sds are right within 5 standard errors
    and 2 % (order one: 5 %)."""
    schedule = make_schedule("cosine")
    network = with_denoiser(mixture(schedule, WEIGHTS, MEANS, SDS), 2)
    draws = network.sample(5000, conditions(1)[:, :1], rng(5), sampler=sampler)[0]
    first = torch.cdist(draws, MEANS).argmin(dim=1) == 0
    assert first.double().mean().item() == pytest.approx(0.3, abs=5 * math.sqrt(0.21 / 5000))
    loose = 0.05 if sampler in ("ddim", "ancestral") else 0.02
    for part, mean, sd in ((draws[first], MEANS[0], SDS[0]), (draws[~first], MEANS[1], SDS[1])):
        assert (part.mean(dim=0) - mean).abs().max() < (5 / math.sqrt(len(part)) + loose) * sd
        assert (part.std(dim=0) / sd - 1).abs().max() < 5 / math.sqrt(2 * len(part)) + loose


@every_sampler
def test_noise_of_a_row_is_its_own(sampler):
    """With a generator a row, also the fresh noise within the steps does not depend on neighbours; a single
    row has its draws alone."""
    network, given = made(), conditions(3)
    together = network.sample(5, given, [rng(i) for i in range(3)], sampler=sampler, steps=7)
    for i in range(3):
        alone = network.sample(5, given[i : i + 1], [rng(i)], sampler=sampler, steps=7)[0]
        torch.testing.assert_close(alone, together[i])
    assert not torch.isclose(together[0], together[1]).any()
