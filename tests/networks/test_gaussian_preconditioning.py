"""Diffusion models preconditioned by a Gaussian of each posterior, against the scores of Gaussians."""

import copy
import inspect
import json
import math

import pytest
import test_network_contracts as contracts
import torch
from diffusion_models import conditions, made, rng
from network_contract import SMALL

from sbi_models.errors import ConfigurationError
from sbi_models.networks import DiffusionModel, network_from_json
from sbi_models.networks.diffusion.gaussian_denoiser import GaussianDenoiser

MEAN = torch.tensor([0.7, -1.2], dtype=torch.float64)
FACTOR = torch.tensor([[0.3, 0.0], [-0.4, 0.05]], dtype=torch.float64)
COVARIANCE = FACTOR @ FACTOR.mT
NOISES = [1e-4, 1e-3, 0.01, 0.1, 1.0, 20.0]

PROMISES = [
    test
    for name, test in vars(contracts).items()
    if name.startswith("test_") and "name" in inspect.signature(test).parameters
]


@pytest.mark.parametrize("promise", PROMISES, ids=lambda test: test.__name__)
def test_it_keeps_the_promises_of_every_network(promise, monkeypatch):
    """Each contract test of the registered networks passes with Gaussian preconditioning."""
    monkeypatch.setitem(SMALL, "diffusion_model", SMALL["diffusion_model"] | {"preconditioning": "gaussian"})
    if "theta_dim" not in inspect.signature(promise).parameters:
        promise("diffusion_model")
        return
    for theta_dim, condition_dim in ((1, 1), (3, 5), (2, 0)):
        promise("diffusion_model", theta_dim, condition_dim)


def head_of(network, mean, factor):
    """Make the head give one Gaussian for all conditions."""
    d = len(mean)
    rows, columns = torch.tril_indices(d, d, -1)
    sds = (factor.diagonal() - 1e-4).expm1().log() - 0.5413
    network.denoiser.head.layers[-1].bias.data = torch.cat([mean, sds, factor[rows, columns]])


def gaussian(*, size=0.0, mean=MEAN, factor=FACTOR, **arguments):
    """A network whose head knows N(MEAN, COVARIANCE), with a field of zero unless a size is given."""
    network = made(2, 3, size=size, preconditioning="gaussian", **arguments)
    head_of(network, mean, factor)
    return network


def at_noise(network, noise):
    """The time (1, 1) at this noise, for theta of the scale of theta_0."""
    t = network.schedule.time(torch.tensor(-2 * math.log(noise), dtype=torch.float64)).clamp(0, 1)
    return t.reshape(1, 1), network.schedule.alpha(t)


@torch.no_grad()
def score_at(network, theta, noise, given):
    """Score of theta + noise z at theta (n, d)."""
    t, alpha = at_noise(network, noise)
    return alpha * network.score(alpha.to(theta) * theta, t.to(theta), given)


def points(n=20, noise=0.0, seed=1):
    spread = torch.linalg.cholesky(COVARIANCE + noise**2 * torch.eye(2, dtype=torch.float64))
    return MEAN + 2 * torch.randn(n, 2, generator=rng(seed), dtype=torch.float64) @ spread.mT


@pytest.mark.parametrize("schedule", ["cosine", "linear", "edm"])
def test_a_field_of_zero_has_the_score_of_the_gaussian(schedule):
    """With the Gaussian in the head and a field of zero the score at every noise, and the denoised mean, are
    those of the Gaussian."""
    network = gaussian(schedule=schedule)
    mean, factor = network.denoiser.gaussian(conditions(1))
    torch.testing.assert_close(mean[0], MEAN)
    torch.testing.assert_close(factor[0], FACTOR)
    for noise in NOISES[1:]:
        theta = points(noise=noise)
        precision = torch.linalg.inv(COVARIANCE + noise**2 * torch.eye(2))
        exact = -(theta - MEAN) @ precision
        torch.testing.assert_close(
            score_at(network, theta, noise, conditions(20)),
            exact,
            rtol=1e-6,
            atol=1e-6 * float(exact.abs().max()),
        )
        t, alpha = at_noise(network, noise)
        denoised = network.denoise(alpha * theta, t, conditions(20))
        torch.testing.assert_close(
            denoised, MEAN + (theta - MEAN) @ precision @ COVARIANCE, rtol=1e-6, atol=1e-8
        )


def test_draws_and_densities_are_those_of_the_gaussian():
    """Draws have its mean and covariance within 5 standard errors, and log densities are the formula's within
    0.01 nats."""
    network = gaussian()
    with torch.no_grad():
        draws = network.sample(20_000, conditions(1), rng(3))[0]
    away = torch.linalg.solve_triangular(FACTOR, (draws - MEAN).mT, upper=False).mT
    assert away.mean(dim=0).abs().max() < 5 / math.sqrt(20_000)
    torch.testing.assert_close(
        away.mT @ away / 20_000, torch.eye(2, dtype=torch.float64), rtol=0, atol=5 * math.sqrt(2 / 20_000)
    )
    exact = torch.distributions.MultivariateNormal(MEAN, scale_tril=FACTOR)
    torch.testing.assert_close(
        network.log_prob(points(), conditions(20)), exact.log_prob(points()), rtol=0, atol=0.02
    )


def test_an_error_of_the_field_is_not_divided_by_the_noise():
    """What a field adds to the score of the Gaussian has a limit as the noise goes to zero: it is the same at
    noise 0.001 and 0.0001.

    In the principal axes it is at most the field over the posterior's sds.
    """
    network, plain = gaussian(size=0.5), gaussian()
    added = []
    for noise in (1e-3, 1.1e-4):
        theta = points()
        added.append(
            score_at(network, theta, noise, conditions(20)) - score_at(plain, theta, noise, conditions(20))
        )
    assert all(part.isfinite().all() for part in added)
    torch.testing.assert_close(added[0], added[1], rtol=0.03, atol=0.03 * float(added[1].abs().max()))
    assert added[1].abs().max() > 0.1
    variances, axes = torch.linalg.eigh(COVARIANCE)
    fields = []
    network.denoiser.field.register_forward_hook(lambda module, given, out: fields.append(out))
    score_at(network, points(), 1e-3, conditions(20))
    torch.testing.assert_close(
        (added[0] @ axes).abs(), (fields[0] @ axes).abs() / variances.sqrt(), rtol=1e-2, atol=1e-3
    )


@pytest.mark.parametrize("noise", [0.01, 0.02, 0.1])
def test_scores_in_single_precision_are_accurate_at_small_noise(noise):
    """In float32, the score of a posterior of sds 0.03 to 0.5 is that in float64 within 1 % of its size, at
    noises of compositions."""
    network = gaussian(size=0.5)
    theta = points(noise=noise)
    wide = score_at(network, theta, noise, conditions(20))
    narrow = score_at(network.float(), theta.float(), noise, conditions(20).float())
    assert narrow.isfinite().all()
    torch.testing.assert_close(
        narrow.double(), wide, rtol=0.01, atol=0.01 * float(wide.square().mean().sqrt())
    )


def test_scores_in_single_precision_are_accurate_at_the_smallest_noise_of_a_composition():
    """In float32 at noise 0.001, the least that a composition may be asked for, the score is off by 2 % of
    its size at most."""
    network = gaussian(size=0.5)
    theta = points()
    wide = score_at(network, theta, 1e-3, conditions(20))
    narrow = score_at(network.float(), theta.float(), 1e-3, conditions(20).float())
    torch.testing.assert_close(
        narrow.double(), wide, rtol=0.02, atol=0.02 * float(wide.square().mean().sqrt())
    )


def test_without_conditions_it_is_the_gaussian_of_the_learned_vector():
    """Scores given nothing are those given the learned vector, and both the vector and the head learn from
    dropped conditions."""
    network = gaussian(size=0.5, drop_conditions=0.5)
    network.denoiser.head.layers[-1].weight.data.normal_(generator=rng(2))
    learned = network.no_conditions.detach().expand(20, 3)
    torch.testing.assert_close(
        score_at(network, points(), 0.02, None), score_at(network, points(), 0.02, learned)
    )
    network.loss(points(60), conditions(60), rng(3)).mean().backward()
    assert network.no_conditions.grad.abs().min() > 0
    assert network.denoiser.head.layers[0].weight.grad.abs().max() > 0


def test_noises_come_in_opposite_pairs():
    """The second half of the noises of each row is the first with the other sign, at the same times, which
    are stratified."""
    network = gaussian(noise_per_pair=6, drop_conditions=0.2)
    noise, t, kept = network.draw(torch.zeros(50, 2), rng(4))
    assert (noise.shape, t.shape, kept.shape) == ((50, 6, 2), (50, 6, 1), (50, 1))
    assert torch.equal(noise[:, 3:], -noise[:, :3])
    assert torch.equal(t[:, 3:], t[:, :3])
    strata = (t[:, :3].flatten() * 150).floor().sort().values
    assert torch.equal(strata, torch.arange(150.0))


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.5, 3.0])
def test_the_target_has_unit_variance(noise):
    """For theta from the Gaussian of the head and a field of zero, the target of v in the principal axes is
    uncorrelated, of variance 1."""
    network, n = gaussian(), 40_000
    theta = MEAN + torch.randn(n, 2, generator=rng(5), dtype=torch.float64) @ FACTOR.mT
    t, _ = at_noise(network, noise)
    z = torch.randn(n, 2, generator=rng(6), dtype=torch.float64)
    k = (noise**2 / (torch.linalg.eigvalsh(COVARIANCE) + noise**2)).sqrt()
    errors = network.denoiser.errors(theta, z, t, conditions(1)) * ((k**2 + 0.01) / 1.01).sqrt()
    torch.testing.assert_close(
        errors.mT @ errors / n, torch.eye(2, dtype=torch.float64), rtol=0, atol=5 * math.sqrt(2 / n)
    )


def test_the_best_field_of_another_gaussian_has_the_least_loss():
    """Where the head's Gaussian is not the posterior, the field of the exact score has errors uncorrelated
    with its inputs."""
    sd, n, noise = 0.5, 40_000, 0.3
    network = gaussian(mean=torch.zeros(2).double(), factor=torch.eye(2).double())
    theta = 0.4 + sd * torch.randn(n, 2, generator=rng(7), dtype=torch.float64)
    z = torch.randn(n, 2, generator=rng(8), dtype=torch.float64)
    c, k = 1 / math.sqrt(1 + noise**2), noise / math.sqrt(1 + noise**2)

    class Best(torch.nn.Module):
        def forward(self, inputs, given, time):
            theta_s = inputs[..., :2] * math.sqrt(1 + noise**2)
            mean = 0.4 + (theta_s - 0.4) * sd**2 / (sd**2 + noise**2)
            return (c * inputs[..., :2] - mean) / k**2

    network.denoiser.field = Best()
    t, _ = at_noise(network, noise)
    errors = network.denoiser.errors(theta, z, t, conditions(1))
    seen = theta + noise * z
    for weight in (torch.ones(2), seen, seen.square()):
        products = errors * weight
        assert (products.mean(dim=0).abs() < 5 * products.std(dim=0) / math.sqrt(n)).all()
    theta = torch.randn(20, 2, generator=rng(9), dtype=torch.float64)
    exact = -(theta - 0.4) / (sd**2 + noise**2)
    torch.testing.assert_close(score_at(network, theta, noise, conditions(20)), exact)


def test_the_error_of_the_score_does_not_move_the_head():
    """The head's gradient is that of the share of the negative log density; the errors of the score have none
    there."""
    network = gaussian(size=0.5)
    theta, given = points(60), conditions(60)
    noise, t = network.draw(theta, rng(9))
    errors = network.denoiser.errors(theta[:, None], noise, t, given[:, None])
    heads = list(network.denoiser.head.parameters())
    assert all(
        gradient is None
        for gradient in torch.autograd.grad(
            errors.square().mean(), heads, allow_unused=True, retain_graph=True
        )
    )
    loss = network.loss_given(theta, given, (noise, t))
    density = network.denoiser.negative_log_density(theta, given)
    share = 0.3 / 2
    torch.testing.assert_close(loss, errors.square().mean(dim=(1, 2)) + share * density)
    gradients = torch.autograd.grad(loss.mean(), heads, retain_graph=True)
    for got, expected in zip(gradients, torch.autograd.grad(share * density.mean(), heads), strict=True):
        torch.testing.assert_close(got, expected)
    assert any(gradient.abs().max() > 0 for gradient in gradients)


def test_the_negative_log_density_is_that_of_the_gaussian():
    """It is that of torch's distribution, less the constant."""
    network = gaussian()
    exact = torch.distributions.MultivariateNormal(MEAN, scale_tril=FACTOR)
    torch.testing.assert_close(
        network.denoiser.negative_log_density(points(), conditions(20)),
        -exact.log_prob(points()) - math.log(2 * math.pi),
    )


def test_a_file_keeps_the_preconditioning():
    """Rebuilt from JSON and weights, a network has the same scores; a clone has the arguments and no
    weights."""
    network = gaussian(size=0.5, drop_conditions=0.2)
    rebuilt = network_from_json(json.loads(json.dumps(network.to_json()))).double()
    rebuilt.load_state_dict(network.state_dict())
    assert isinstance(rebuilt.denoiser, GaussianDenoiser)
    for given in (conditions(20), None):
        assert torch.equal(score_at(rebuilt, points(), 0.02, given), score_at(network, points(), 0.02, given))
    clone = network.clone()
    assert clone.is_gaussian
    assert clone.config == network.config
    assert list(clone.parameters()) == []
    assert torch.equal(
        score_at(copy.deepcopy(network), points(), 0.02, None), score_at(network, points(), 0.02, None)
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prediction": "noise"}, r"Expected prediction='velocity'.*got 'noise' and 4\. Leave them"),
        ({"noise_per_pair": 3}, r"an even noise_per_pair.*got 'velocity' and 3\. Leave them"),
        ({"preconditioning": "gausian"}, r"Unknown preconditioning 'gausian'\. Did you mean 'gaussian'"),
        ({"preconditioning": True}, "Unknown preconditioning True"),
    ],
)
def test_what_does_not_go_with_it_is_refused(arguments, message):
    """Other predictions, noises without opposites and misspelt names are errors with a cure."""
    with pytest.raises(ConfigurationError, match=message):
        DiffusionModel(**({"preconditioning": "gaussian"} | arguments))


def test_what_is_left_open_is_off():
    """With drop_conditions and preconditioning None a network trains and answers as with 0 and "unit", to the
    bit, and says None."""
    left, given = made(), made(drop_conditions=0.0, preconditioning="unit")
    assert (left.config["drop_conditions"], left.config["preconditioning"]) == (None, None)
    assert left.no_conditions is None
    assert not left.is_gaussian
    assert left.state_dict().keys() == given.state_dict().keys()
    assert torch.equal(
        left.loss(points(), conditions(20), rng(1)), given.loss(points(), conditions(20), rng(1))
    )
    assert torch.equal(left.sample(5, conditions(3), rng(2)), given.sample(5, conditions(3), rng(2)))
    assert not left.knows_prior
