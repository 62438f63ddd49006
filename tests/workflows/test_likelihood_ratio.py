"""Learned ratios as likelihoods: normal posteriors, images, files, and calls that are refused."""

import numpy as np
import pytest
from torch.distributions import Normal

import sbi_models as bf
from sbi_models.errors import ConfigurationError

NOISE = 0.7


def observe(mu, rng):
    return {"x": mu + NOISE * rng.normal(size=mu.shape)}


SIMULATOR = bf.make_simulator([{"mu": Normal(0.0, 1.0).expand((1,))}, observe], is_batched=True)


@pytest.fixture(scope="module")
def fitted():
    """A ratio of one element each, from 4 000 simulations."""
    made = bf.LikelihoodWorkflow(
        SIMULATOR, parameters="mu", observables="x", iid="elements", network="ratio", seed=1, progress=False
    )
    made.fit_offline(SIMULATOR.sample(4000, seed=1), epochs=12)
    return made


def exact(x, prior_mean=0.0, prior_sd=1.0):
    """Means and sds of the conjugate posterior of sets x (n, N, 1)."""
    precision = 1 / prior_sd**2 + x.shape[1] / NOISE**2
    return (prior_mean / prior_sd**2 + x.sum(axis=(1, 2)) / NOISE**2) / precision, precision**-0.5


@pytest.mark.parametrize("number", [1, 5])
def test_posteriors_of_any_number_of_elements(fitted, number):
    """Means within 0.25 exact sds and sds within 12 % of the conjugate posterior, of three data sets."""
    rng = np.random.default_rng(number)
    x = np.array([-0.8, 0.1, 0.9])[:, None, None] + NOISE * rng.normal(size=(3, number, 1))
    draws = fitted.sample(num_samples=2000, conditions={"x": x}, seed=1)["mu"][..., 0]
    mean, sd = exact(x)
    assert np.abs(draws.mean(axis=1) - mean).max() < 0.25 * sd
    assert np.abs(draws.std(axis=1) / sd - 1).max() < 0.12


def test_posteriors_under_another_prior(fitted):
    x = np.full((1, 3, 1), 0.4)
    prior = Normal(0.5, 0.3).expand((1,))
    draws = fitted.sample(num_samples=2000, conditions={"x": x}, prior=prior, seed=1)["mu"]
    mean, sd = exact(x, 0.5, 0.3)
    assert abs(draws.mean() - mean[0]) < 0.2 * sd
    assert abs(draws.std() / sd - 1) < 0.1


def test_the_ratio_lacks_the_density_of_the_data_alone(fitted):
    """`log_likelihood` is log p(x | mu) - log p(x): 0.15 nats at most off, at three places."""
    mu, x = np.array([[0.0], [0.8], [-1.0]]), np.array([[[0.3]], [[0.5]], [[-1.5]]])
    total = 1 + NOISE**2
    expected = (
        -((x[:, 0] - mu) ** 2) / (2 * NOISE**2) + x[:, 0] ** 2 / (2 * total) + 0.5 * np.log(total / NOISE**2)
    )
    np.testing.assert_allclose(fitted.log_likelihood({"mu": mu, "x": x}), expected[:, 0], atol=0.15)


def test_a_file_keeps_the_ratio(fitted, tmp_path):
    path = tmp_path / "ratio.safetensors"
    fitted.approximator.save(path)
    again = bf.LikelihoodWorkflow(SIMULATOR, network=bf.load(path), progress=False)
    data = {"mu": np.zeros((2, 1)), "x": np.ones((2, 4, 1))}
    assert np.array_equal(again.log_likelihood(data), fitted.log_likelihood(data))


def test_posteriors_of_a_ratio_are_judged_and_observables_refused(fitted):
    """The verdict is on 24 posteriors of five elements, drawn in seconds; observables have no draws."""
    assert fitted.posterior_verdict(24, num_elements=5, num_samples=100, seed=1).is_calibrated
    for method in (fitted.verdict, fitted.compute_default_diagnostics):
        with pytest.raises(ConfigurationError, match="posterior_verdict"):
            method(SIMULATOR.sample(20, seed=4))


def test_ratios_of_members_are_averaged():
    """The log ratio of two networks is the log of the mean of theirs."""
    made = bf.LikelihoodWorkflow(
        SIMULATOR,
        parameters="mu",
        observables="x",
        network=bf.networks.ContrastiveRatio(widths=(8, 8)),
        ensemble_size=2,
        seed=1,
        progress=False,
    )
    made.fit_offline(SIMULATOR.sample(200, seed=1), epochs=2, batch_size=50)
    data = SIMULATOR.sample(5, seed=2)
    each = [
        bf.LikelihoodWorkflow(network=member, progress=False).log_likelihood(data)
        for member in made.approximator.members.values()
    ]
    assert np.abs(each[0] - each[1]).max() > 1e-3
    np.testing.assert_allclose(made.log_likelihood(data), np.log(np.exp(each).mean(axis=0)), atol=1e-5)


def images(mu, rng):
    """A bright column whose place is mu, on noise."""
    place = np.arange(8)[None, None, :]
    bright = np.exp(-0.5 * (place - (3.5 + 2 * mu[:, :, None])) ** 2)
    return {"image": (bright + 0.3 * rng.normal(size=(len(mu), 8, 8)))[..., None]}


def test_images_are_summarized():
    """An image has a likelihood and posterior draws through the summary network."""
    simulator = bf.make_simulator([{"mu": Normal(0.0, 0.6).expand((1,))}, images], is_batched=True)
    made = bf.LikelihoodWorkflow(
        simulator,
        parameters="mu",
        observables="image",
        network="ratio",
        summary_network="convolutional_network",
        seed=1,
        progress=False,
    )
    made.fit_offline(simulator.sample(500, seed=1), epochs=2)
    test = simulator.sample(3, seed=2)
    assert made.sample(num_samples=50, conditions={"image": test["image"]}, seed=1)["mu"].shape == (3, 50, 1)
    assert np.isfinite(made.log_likelihood(test)).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"network": "auto", "summary_network": "deep_set"}, 'summary_network with network="ratio"'),
        ({"network": "ratio", "summary_network": "no_such_network"}, "Unknown SummaryNetwork"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, words):
    with pytest.raises(ConfigurationError, match=words):
        bf.LikelihoodWorkflow(SIMULATOR, parameters="mu", observables="x", **arguments)
