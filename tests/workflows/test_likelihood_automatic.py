"""Transforms and trainings of learned likelihoods that are chosen by simulations, and ways of training."""

import numpy as np
import pytest
import torch
from torch.distributions import Beta, Gamma, Normal

import sbi_models as bf
from sbi_models.networks import AutoregressiveMixture
from sbi_models.workflows.auto import schedules
from sbi_models.workflows.likelihood.automatic import chosen_adapter

RATE, SHARE = Gamma(2.0, 1.0), Beta(1.0, 1.0)


def elements(seed=0, n=3000):
    """A rate and a share, raw; exponential, Poisson, Bernoulli and normal observables."""
    rng = np.random.default_rng(seed)
    rate, share = rng.gamma(2.0, 1.0, size=(n, 1)), rng.uniform(size=(n, 1))
    return {
        "rate": rate,
        "share": share,
        "time": rng.exponential(1 / rate),
        "count": rng.poisson(20 * rate).astype(float),
        "choice": rng.binomial(1, share).astype(float),
        "both": np.concatenate([rng.normal(rate), rng.binomial(1, share)], axis=1),
        "level": rng.normal(rate),
    }


@pytest.mark.parametrize(
    ("parameter", "observable", "steps"),
    [
        ("rate", "time", ["log", "log"]),
        ("rate", "count", ["log", "as_count"]),
        ("share", "choice", ["constrain", "as_categorical"]),
        ("rate", "both", ["as_categorical"]),
        ("rate", "level", []),
    ],
)
def test_scales_are_those_that_make_the_model_simplest(parameter, observable, steps):
    """Known laws: an exponential time has a log rate, a count and a category have probabilities, and what is
    linear stays so."""
    priors = {"rate": RATE, "share": SHARE}
    adapter = chosen_adapter(
        elements(), parameters=[parameter], observables=[observable], priors={parameter: priors[parameter]}
    )
    assert [step.kind for step in adapter.transforms] == steps


def test_a_prior_that_is_a_function_is_bounded_at_zero_alone():
    """Bounds estimated from draws may be passed by later ones: uniform draws stay as they are, positive ones
    have a logarithm."""
    for parameter, observable, steps in (("share", "choice", []), ("rate", "time", ["log"])):
        adapter = chosen_adapter(elements(), parameters=[parameter], observables=[observable], priors={})
        assert [step.kind for step in adapter.transforms if parameter in step.names] == steps


def observe(mu, rng):
    return {"y": rng.normal(mu, 1.0)}


SIMULATOR = bf.make_simulator([{"mu": Normal(0.0, 1.0).expand((1,))}, observe], is_batched=True)


def automatic(**arguments):
    return bf.LikelihoodWorkflow(
        SIMULATOR, parameters="mu", observables="y", iid="elements", seed=1, progress=False, **arguments
    )


def exact(data):
    return torch.distributions.Normal(torch.as_tensor(data["mu"]), 1.0).log_prob(torch.as_tensor(data["y"]))


def test_offline_it_weights_a_normal_and_a_mixture_network(tmp_path):
    """1 500 simulations: log densities within 0.02 nats of the exact ones on average, and the file has the
    weights."""
    made = automatic(checkpoint_filepath=tmp_path)
    made.fit_offline(SIMULATOR.sample(1500, seed=1), epochs=3)
    assert list(made.approximator.members) == ["normal", "mixture"]
    test = SIMULATOR.sample(2000, seed=2)
    difference = exact(test)[:, 0].numpy() - made.log_likelihood({**test, "y": test["y"][:, None]})
    assert abs(difference.mean()) < 0.02
    left = bf.load(tmp_path / "model.safetensors")
    assert left.weights == made.approximator.weights


def test_online_and_from_disk(tmp_path):
    """One network each, and finite log likelihoods of any number of elements."""
    np.savez(tmp_path / "some.npz", **SIMULATOR.sample(300, seed=1))
    online, disk = automatic(), automatic()
    online.fit_online(epochs=1, num_batches_per_epoch=4, batch_size=64, validation_data=50)
    disk.fit_disk(tmp_path, "*.npz", epochs=1)
    for made in (online, disk):
        assert isinstance(made.approximator.inference_network, AutoregressiveMixture)
        assert np.isfinite(made.log_likelihood({"mu": [[0.0]], "y": np.zeros((1, 7, 1))})).all()


@pytest.mark.nightly
def test_sets_of_contexts_train_online():
    """A simulator whose sets differ in size: every element is a row, and posteriors are those of the sum."""

    def context(rng):
        return {"number": rng.integers(2, 6)}

    def several(mu, number, rng):
        return {"y": rng.normal(mu, 1.0, size=(number, 1))}

    simulator = bf.make_simulator([{"mu": Normal(0.0, 1.0)}, several], meta_fn=context)
    network = AutoregressiveMixture(1, trunk_width=0, head_width=8, head_blocks=0)
    made = bf.LikelihoodWorkflow(
        simulator, parameters="mu", observables="y", iid="sets", network=network, initial_learning_rate=1e-7,
        seed=1, progress=False,
    )  # fmt: skip
    made.fit_online(epochs=1, num_batches_per_epoch=20, batch_size=64)
    data = [np.ones((3, 1)), np.full((7, 1), 0.5)]
    draws = made.sample(num_samples=1000, conditions={"y": data}, seed=1)["mu"][..., 0]
    np.testing.assert_allclose(draws.mean(axis=1), [3 / 4, 3.5 / 8], atol=0.1)
    np.testing.assert_allclose(draws.std(axis=1), [1 / 2, 1 / np.sqrt(8)], rtol=0.1)


def test_weights_of_members_are_learned_from_some_held_out_elements():
    """Of more than 5 000 rows as many different ones, the same of every variable; fewer are all taken."""
    rows = {"x": np.arange(6000.0), "theta": -np.arange(6000.0)}
    some = schedules.some_of(rows)
    assert len(np.unique(some["x"])) == 5000
    np.testing.assert_array_equal(some["x"], -some["theta"])
    few = {name: value[:5000] for name, value in rows.items()}
    assert schedules.some_of(few) is few
