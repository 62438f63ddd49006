"""Diffusion models: schedules, preconditioning and densities, against formulas and exact denoisers."""

import math

import pytest
import torch
from analytic_denoisers import gaussian, mixture
from diffusion_models import (
    MEANS,
    NORMAL,
    SDS,
    WEIGHTS,
    conditions,
    every_schedule,
    made,
    mixture_density,
    rng,
    with_denoiser,
)

from sbi_models.errors import ConfigurationError
from sbi_models.networks import DiffusionModel
from sbi_models.networks.diffusion import Task, make_schedule, register_schedule
from sbi_models.networks.diffusion.denoiser import Denoiser, angle_of, log_snr_at, mean_at
from sbi_models.networks.diffusion.samplers import angles
from sbi_models.networks.diffusion.schedules import Cosine

# --- schedules


@every_schedule
def test_derivatives_of_schedules_are_those_of_autograd(name):
    """Slopes of log-SNR, alpha and sigma, and the drift and squared diffusion made of them, are the
    derivatives of the functions."""
    schedule = make_schedule(name)
    t = torch.linspace(0.0, 1.0, 101, dtype=torch.float64, requires_grad=True)

    def slope(function):
        return torch.autograd.grad((function(t) + 0 * t).sum(), t)[0]

    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    alpha_slope, variance_slope = slope(schedule.alpha), slope(lambda t: schedule.sigma(t) ** 2)
    torch.testing.assert_close(schedule.log_snr_slope(t), slope(schedule.log_snr), rtol=1e-9, atol=0)
    torch.testing.assert_close(schedule.alpha_slope(t), alpha_slope, rtol=1e-7, atol=1e-12)
    torch.testing.assert_close(schedule.sigma_slope(t), slope(schedule.sigma), rtol=1e-7, atol=1e-12)
    torch.testing.assert_close(schedule.drift(t), alpha_slope / alpha, rtol=1e-7, atol=1e-12)
    torch.testing.assert_close(
        schedule.diffusion(t) ** 2, variance_slope - 2 * alpha_slope / alpha * sigma**2, rtol=1e-6, atol=1e-12
    )


@every_schedule
def test_schedules_go_from_data_to_noise(name):
    """log-SNR falls all the way and is that of alpha and sigma; one scale is preserved; the ends are far
    enough out; time inverts."""
    schedule = make_schedule(name)
    t = torch.linspace(0.0, 1.0, 501, dtype=torch.float64)
    alpha, sigma, log_snr = schedule.alpha(t), schedule.sigma(t), schedule.log_snr(t)
    assert (log_snr.diff() < 0).all()
    torch.testing.assert_close((alpha / sigma).log() * 2, log_snr)
    torch.testing.assert_close(
        alpha**2 + sigma**2 if schedule.variance_preserving else alpha, torch.ones_like(t)
    )
    assert schedule.ends()[0] > 17.9
    assert schedule.ends()[1] < -12
    torch.testing.assert_close(schedule.time(log_snr), t, rtol=1e-7, atol=1e-9)


@every_schedule
def test_the_forward_process_has_the_moments_of_the_schedule(name):
    """Variances of d theta = drift theta dt + diffusion dw, integrated in small steps from t = 0, are sigma^2
    at t."""
    schedule = make_schedule(name)
    t = torch.linspace(0.0, 0.9, 40_001, dtype=torch.float64)
    middle, h = (t[1:] + t[:-1]) / 2, t[1]
    variance = schedule.sigma(t[:1]) ** 2
    for f, g in zip(schedule.drift(middle).tolist(), schedule.diffusion(middle).tolist(), strict=True):
        variance = variance + h * (2 * f * variance + g**2)
    torch.testing.assert_close(variance, schedule.sigma(t[-1:]) ** 2, rtol=2e-3, atol=0)


def test_schedules_take_arguments_and_refuse_others():
    """Arguments reach the schedule, through the network's too; unknown names and impossible values are
    refused with a cure."""
    assert make_schedule("cosine", {"log_snr_max": 25.0}).ends()[0] == pytest.approx(25.0)
    network = DiffusionModel(schedule="edm", schedule_arguments={"sigma_max": 80.0})
    assert network.schedule.ends()[1] == pytest.approx(-2 * math.log(80.0))
    cases = [
        ("cosin", {}, r"Unknown schedule 'cosin'. Did you mean 'cosine'"),
        ("cosine", {"log_snr_mx": 1.0}, r"no argument 'log_snr_mx'. Did you mean 'log_snr_max'"),
        ("cosine", {"log_snr_max": 1.0}, r"reach from noise .* to data"),
        ("linear", {"beta_max": 0.05}, "0 < beta_min < beta_max"),
        ("edm", {"sigma_min": 0.0}, "0 < sigma_min < sigma_max"),
    ]
    for name, arguments, message in cases:
        with pytest.raises(ConfigurationError, match=message):
            make_schedule(name, arguments)
    with pytest.raises(ConfigurationError, match="new name for a schedule, got 'edm'"):
        register_schedule("edm")(type("Other", (Cosine,), {}))


# --- denoisers


@every_schedule
@pytest.mark.parametrize("prediction", ["velocity", "noise", "x"])
def test_predictions_convert_exactly(name, prediction):
    """The network's best output, by the formula for normal parameters, gives the exact posterior mean and
    score; its loss is the least."""
    mean, sd, schedule = 0.7, 0.4, make_schedule(name)
    t = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)[:, None]
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    r = (alpha**2 + sigma**2).sqrt()
    c, s = alpha / r, sigma / r
    exact = gaussian(schedule, mean, sd)

    def field(u, conditions, time):
        best = exact(u * r, t)
        noise = (u - c * best) / s
        return {"velocity": c * noise - s * best, "noise": noise - s * u, "x": best - c * u}[prediction]

    denoiser = Denoiser(Field(field), schedule, prediction)
    network = with_denoiser(lambda theta_t, t: denoiser(theta_t, t, None), 3, schedule=name)
    theta_t = torch.randn(25, 3, generator=rng(1), dtype=torch.float64) * r
    given = torch.zeros(25, 1, dtype=torch.float64)
    torch.testing.assert_close(network.denoise(theta_t, t, given), exact(theta_t, t), rtol=1e-6, atol=1e-6)
    score = (alpha * mean - theta_t) / (alpha**2 * sd**2 + sigma**2)
    torch.testing.assert_close(network.score(theta_t, t, given), score, rtol=1e-5, atol=1e-5)
    theta = mean + sd * torch.randn(4000, 25, 3, generator=rng(2), dtype=torch.float64)
    noise = torch.randn(theta.shape, generator=rng(3), dtype=torch.float64)
    errors = denoiser.errors(theta, noise, t, None)
    slack = 5 * errors.std(dim=(0, 2)) / math.sqrt(12_000)
    assert (errors.mean(dim=(0, 2)).abs() < slack).all()
    products = errors * (c * theta + s * noise)
    assert (products.mean(dim=(0, 2)).abs() < 5 * products.std(dim=(0, 2)) / math.sqrt(12_000)).all()


class Field(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.forward = function


@pytest.mark.parametrize(("prediction", "expected"), [("velocity", 1.0), ("noise", 0.5), ("x", 0.5)])
def test_the_loss_of_an_untrained_network_on_normal_parameters(prediction, expected):
    """For standard normal theta the network of zero has loss 1; noise and x, half explained by theta_t on
    average over times, half."""
    network = DiffusionModel(widths=(16,), prediction=prediction)
    network.build(4, 3)
    theta = torch.randn(20_000, 4, generator=rng(7))
    assert network.loss(theta, torch.zeros(20_000, 3), rng(8)).mean().item() == pytest.approx(
        expected, abs=0.01
    )


@every_schedule
@pytest.mark.parametrize("prediction", ["velocity", "noise", "x"])
def test_a_network_of_zero_is_the_standard_normal(name, prediction):
    """With a last layer of zero (as at the start) flow draws are the noise itself, and the density and the
    score are those of N(0, I)."""
    network = made(3, 3, size=0.0, schedule=name, prediction=prediction, density_steps=4)
    noise = torch.randn(4, 50, 3, generator=rng(2), dtype=torch.float64)
    torch.testing.assert_close(network.sample(50, conditions(4), rng(2)), noise, rtol=1e-6, atol=1e-6)
    theta = 2 * torch.randn(4, 3, generator=rng(3), dtype=torch.float64)
    torch.testing.assert_close(
        network.log_prob(theta, conditions(4)), NORMAL.log_prob(theta).sum(dim=-1), rtol=1e-6, atol=1e-6
    )
    t = torch.tensor([[0.1], [0.4], [0.6], [0.9]], dtype=torch.float64)
    spread = network.schedule.alpha(t) ** 2 + network.schedule.sigma(t) ** 2
    torch.testing.assert_close(network.score(theta, t, conditions(4)), -theta / spread)


# --- densities


@every_schedule
@pytest.mark.parametrize("sd", [1.0, 0.1, 0.005])
def test_the_density_of_a_normal(name, sd):
    """With an exact denoiser the log density of N(0.7, sd^2), up to 2 sd away, is the formula's within 0.01
    nats a dimension."""
    schedule = make_schedule(name)
    network = with_denoiser(gaussian(schedule, 0.7, sd), 1, schedule=name)
    theta = 0.7 + sd * torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    exact = torch.distributions.Normal(0.7, sd).log_prob(theta)[:, 0]
    torch.testing.assert_close(
        network.log_prob(theta, torch.zeros(9, 1, dtype=torch.float64)), exact, rtol=0, atol=0.01
    )


@pytest.mark.nightly_cases("linear", "cosine")
@every_schedule
def test_the_density_of_a_mixture(name):
    """With an exact denoiser the log density of two normals in the plane is the formula's within 0.001 nats
    on average by default.

    It is within 0.06 at points between the modes, from where the flow bends to either, and within 0.01
    everywhere with 96 steps.
    """
    theta = MEANS[torch.arange(60) % 2] + 0.25 * torch.randn(60, 2, generator=rng(6), dtype=torch.float64)
    theta = theta[mixture_density(theta) > -8]
    assert len(theta) > 40
    for arguments, average, most in (({}, 0.001, 0.06), ({"density_steps": 96}, 0.001, 0.01)):
        network = with_denoiser(
            mixture(make_schedule(name), WEIGHTS, MEANS, SDS), 2, schedule=name, **arguments
        )
        error = network.log_prob(theta, torch.zeros(len(theta), 1, dtype=torch.float64)) - mixture_density(
            theta
        )
        assert error.abs().mean() < average
        assert error.abs().max() < most


@pytest.mark.nightly_cases("linear", "cosine")
@every_schedule
def test_single_precision_is_enough(name):
    """Draws and log densities in float32 are those in float64 within 1e-3, for random weights, though the
    noise ends at 1e-4."""
    network = made(schedule=name)
    noise, theta, given = conditions(20), conditions(20, seed=2)[:, :2], conditions(20)
    sampler = network.sampler
    wide = (
        sampler(Task(network._denoise_given(given), network.schedule, lambda: noise[:, :2])),
        network.log_prob(theta, given),
    )
    network.float()
    narrow = (
        sampler(Task(network._denoise_given(given.float()), network.schedule, noise[:, :2].float)),
        network.log_prob(theta.float(), given.float()),
    )
    for a, b in zip(wide, narrow, strict=True):
        assert b.dtype == torch.float32
        torch.testing.assert_close(b.double(), a, rtol=0, atol=1e-3)


def test_the_density_integrates_to_one_and_draws_follow_it():
    """The density of random weights in the plane sums to 1 within 1e-4; moments of its draws are within 5
    standard errors."""
    network = made(density_steps=12)
    axis = torch.linspace(-7.0, 7.0, 71, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1).reshape(-1, 2)
    p = network.log_prob(points, conditions(1).expand(len(points), 3)).exp() * (axis[1] - axis[0]) ** 2
    assert p.sum().item() == pytest.approx(1.0, abs=1e-4)
    with torch.no_grad():
        draws = network.sample(20_000, conditions(1), rng(6))[0]
    functions = [
        lambda x: x[:, 0],
        lambda x: x[:, 1],
        lambda x: x[:, 0] * x[:, 1],
        lambda x: x[:, 0] ** 2,
        lambda x: x[:, 1].tanh(),
    ]
    for function in functions:
        values = function(draws)
        assert abs(values.mean() - (p * function(points)).sum()) < 5 * values.std() / math.sqrt(20_000)
    mean = (p[:, None] * points).sum(dim=0)
    assert mean.abs().max() > 0.1


# --- conditions and arguments


def test_a_network_never_trained_without_conditions_refuses():
    """denoise and score without conditions raise, with the cure, unless conditions were dropped in training
    or there are none."""
    theta, t = torch.zeros(4, 2, dtype=torch.float64), torch.full((4, 1), 0.5, dtype=torch.float64)
    for ask in (made().denoise, made().score):
        with pytest.raises(
            ConfigurationError, match=r"never trained without conditions.*drop_conditions=0\.15"
        ):
            ask(theta, t, None)
    assert made(drop_conditions=0.2).score(theta, t, None).shape == (4, 2)
    none = made(2, 0)
    assert torch.equal(none.denoise(theta, t, None), none.denoise(theta, t, theta[:, :0]))


def test_dropped_conditions_are_replaced_by_the_learned_vector():
    """The loss of about the dropped share of the pairs is that of the learned vector, of the others that of
    their conditions."""
    network = made(drop_conditions=0.3, noise_per_pair=2)
    theta = torch.randn(4000, 2, generator=rng(8), dtype=torch.float64)
    mixed = network.loss(theta, conditions(4000), rng(9))
    none = network.loss(theta, network.no_conditions.expand(4000, 3), rng(9))
    dropped = torch.isclose(mixed, none, rtol=1e-12)
    assert dropped.double().mean().item() == pytest.approx(0.3, abs=0.04)
    given = made(noise_per_pair=2)
    given.denoiser = network.denoiser
    assert torch.isclose(mixed, given.loss(theta, conditions(4000), rng(9)), rtol=1e-12)[~dropped].all()
    mixed.mean().backward()
    assert network.no_conditions.grad.abs().min() > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sampler": "rk5"}, r"Unknown sampler 'rk5'. Did you mean 'rk4'"),
        ({"prediction": "velocty"}, r"Unknown prediction 'velocty'. Did you mean 'velocity'"),
        ({"drop_conditions": 1.0}, "at least 0 and below 1, got 1.0"),
        ({"steps": 0}, "at least 1"),
        ({"noise_per_pair": 0}, "at least 1"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    """By the constructor, with what is known."""
    with pytest.raises(ConfigurationError, match=message):
        DiffusionModel(**arguments)


@every_schedule
def test_angles_and_times_agree(name):
    """The grid of a sampler reaches from end to end of the schedule, and the noise at an angle is the
    schedule's at its time."""
    schedule = make_schedule(name)
    grid = angles(schedule, 9, 4.0)
    assert len(grid) == 10
    assert (grid.diff() < 0).all()
    torch.testing.assert_close(
        log_snr_at(grid[[0, -1]]), torch.tensor(schedule.ends()[::-1], dtype=torch.float64)
    )
    torch.testing.assert_close(angle_of(log_snr_at(grid)), grid)
    seen = []
    u = torch.ones(1, 1, dtype=torch.float64)
    mean_at(lambda theta_t, t: seen.append((theta_t, t)), schedule, u, grid[5])
    theta_t, t = seen[0]
    torch.testing.assert_close(schedule.sigma(t) / theta_t, grid[5].sin().reshape(1, 1))
