"""`inference_network="auto"`: against an exact posterior, and that it says and keeps what it has chosen.
Trainings are made short here."""

from types import SimpleNamespace

import numpy as np
import pytest
from linear_gaussian import SIMULATOR, exact_log_prob

import sbi_models
from sbi_models import BasicWorkflow, make_simulator
from sbi_models.adapters import Adapter
from sbi_models.errors import ConfigurationError
from sbi_models.training.checkpoints import Checkpoint
from sbi_models.workflows.auto import neural_likelihood, schedules
from sbi_models.workflows.auto import selection as automatic

ROLES = {"inference_variables": ["theta"], "inference_conditions": ["x"]}


def shorten(patch, synthetic, of_synthetic, of_simulations):
    """Less synthetic data, two networks for the likelihood, and trainings of these budgets."""
    patch.setattr(schedules, "num_likelihood_networks", lambda number: 2)
    patch.setattr(automatic, "_SYNTHETIC", synthetic)
    patch.setattr(automatic, "_PRIOR_DRAWS", synthetic)
    patch.setattr(schedules, "for_synthetic_data", lambda number: of_synthetic)
    patch.setattr(schedules, "for_simulations", lambda number: of_simulations)


@pytest.fixture
def short(monkeypatch):
    """Trainings of seconds."""
    shorten(
        monkeypatch,
        20_000,
        schedules.TrainingSchedule(256, 250, 3e-3, 0.0, 0.99),
        schedules.TrainingSchedule(64, 100, 2e-3, 0.1, 0.99),
    )


@pytest.fixture
def hasty(monkeypatch):
    """Trainings of less than a second, in three epochs or more, for what does not depend on how good they
    are."""
    shorten(
        monkeypatch,
        1_000,
        schedules.TrainingSchedule(128, 25, 3e-3, 0.0, 0.99),
        schedules.TrainingSchedule(64, 15, 2e-3, 0.1, 0.99),
    )


def auto(simulator=SIMULATOR, **arguments):
    settings = {"inference_network": "auto", "seed": 0, "accelerator": "cpu", "progress": False}
    return BasicWorkflow(simulator, **(ROLES | settings | arguments))


# Seconds: four trainings, long enough for two hundredths of a nat.
def test_the_posterior_is_nearly_exact_from_500_simulations(short):
    """The mean log density of 2 000 new simulations is within 0.02 nats of the exact posterior's.

    Least squares on 450 pairs alone would be off by 0.01: nine numbers, means and covariance, at 1 / 900
    each.
    """
    workflow = auto()
    workflow.fit_offline(SIMULATOR.sample(500, seed=1))
    test = SIMULATOR.sample(2_000, seed=2)
    assert np.mean(exact_log_prob(test) - workflow.log_prob(test)) < 0.02
    choices = workflow.automatic.choices
    assert choices["trained on"] == "learned likelihood"
    assert choices["simulations"] + choices["held out"] == 500
    assert choices["theta"] == "support (-inf, inf)"
    assert choices["x"] == "scale identity"


@pytest.mark.nightly
def test_the_same_seed_gives_the_same_posterior_and_the_file_has_it(hasty, tmp_path):
    """To the bit; and the checkpoint folder has the kept approximator under the name of the workflow."""
    data = SIMULATOR.sample(300, seed=1)
    workflows = [auto(), auto(checkpoint_filepath=tmp_path, checkpoint_name="kept")]
    for workflow in workflows:
        workflow.fit_offline(data)
    draws = [
        workflow.sample(num_samples=50, conditions={"x": np.zeros((1, 2))}, seed=3)["theta"]
        for workflow in workflows
    ]
    assert np.array_equal(*draws)
    loaded = sbi_models.load(tmp_path / "kept.safetensors")
    assert loaded.info["auto"] == workflows[1].automatic.choices
    assert np.array_equal(
        loaded.sample(num_samples=50, conditions={"x": np.zeros((1, 2))}, seed=3)["theta"], draws[0]
    )


# Seconds: two likelihood networks and two posteriors are trained, each of several coordinates.
@pytest.mark.nightly
def test_counts_and_bounds_go_through_the_neural_likelihood(short):
    """Rates of Poisson counts, uniform in a box: draws of the learned likelihood are counts, posterior draws
    are inside, and informed."""

    def prior(batch_size, rng):
        return {"rate": rng.uniform(0.0, 20.0, size=(batch_size, 1))}

    def likelihood(rate, rng):
        return {"x": rng.poisson(rate, size=(len(rate), 3)).astype(float)}

    simulator = make_simulator([prior, likelihood], is_batched=True)
    workflow = auto(simulator, inference_variables="rate", inference_conditions="x")
    workflow.fit_offline(simulator.sample(500, seed=1))
    choices = workflow.automatic.choices
    assert (choices["rate"], choices["x"]) == ("support (0, 20)", "scale sqrt")
    made = workflow.automatic.learned.draw({"rate": np.full((2_000, 1), 9.0)}, seed=0)
    assert np.array_equal(made["x"], np.floor(made["x"]))
    assert abs(made["x"].mean() - 9.0) < 0.5
    assert abs(made["x"].var(axis=0).mean() - 9.0) < 2.0
    draws = workflow.sample(num_samples=2_000, conditions={"x": np.full((1, 3), 9.0)}, seed=0)["rate"]
    assert draws.min() > 0.0
    assert draws.max() < 20.0
    # Gamma(28, rate 3), of which the box cuts off nothing
    assert abs(draws.mean() - 28 / 3) < 0.5 * np.sqrt(28) / 3
    assert 0.7 < draws.std() / (np.sqrt(28) / 3) < 1.4


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"simulator": None}, "no simulator"),
        (
            {"simulator": make_simulator(lambda rng: {"theta": rng.normal(size=2), "x": rng.normal(size=2)})},
            "no simulator",
        ),
        ({"adapter": Adapter().scale("x", by=2.0)}, "an adapter of the user"),
    ],
)
def test_without_a_neural_likelihood_it_says_why(hasty, arguments, reason):
    """The posterior is then trained on the simulations alone."""
    workflow = auto(**arguments)
    workflow.fit_offline(SIMULATOR.sample(200, seed=1))
    assert reason in workflow.automatic.choices["no learned likelihood"]
    assert workflow.automatic.choices["trained on"] == "simulations"
    assert workflow.sample(num_samples=3, conditions={"x": np.zeros((1, 2))}, seed=0)["theta"].shape == (
        1,
        3,
        2,
    )


def test_data_that_need_a_summary_are_trained_on_directly(hasty):
    """With a summary network no likelihood is learned."""

    def likelihood(theta, rng):
        return {"x": theta[:, None, :] + rng.normal(size=(len(theta), 4, 2))}

    simulator = make_simulator([SIMULATOR.calls[0].function, likelihood], is_batched=True)
    workflow = auto(simulator, inference_conditions=None, summary_variables="x", summary_network="deep_set")
    workflow.fit_offline(simulator.sample(200, seed=1))
    assert "summary network" in workflow.automatic.choices["no learned likelihood"]


def test_numbers_that_are_chosen_cannot_be_given():
    """An error before any work."""
    with pytest.raises(ConfigurationError, match="Expected no epochs and no batch_size"):
        auto().fit_offline(SIMULATOR.sample(200, seed=1), epochs=3)


def test_a_simulator_that_is_wrong_about_its_likelihood_is_left_aside(hasty, monkeypatch):
    """A learned likelihood that is far off loses against the simulations by its held-out loss."""
    from sbi_models.workflows.auto import neural_likelihood  # noqa: PLC0415

    right = neural_likelihood.NeuralLikelihood.draw

    def wrong(self, parameters, *, seed):
        drawn = right(self, parameters, seed=seed)
        return drawn | {"x": -drawn["x"]}

    monkeypatch.setattr(neural_likelihood.NeuralLikelihood, "draw", wrong)
    workflow = auto()
    workflow.fit_offline(SIMULATOR.sample(300, seed=1))
    assert workflow.automatic.choices["trained on"] == "simulations"


# Seconds: each of four trainings is begun twice, beside a whole one.
@pytest.mark.nightly
def test_a_training_that_was_killed_again_and_again_ends_with_the_same_bits(hasty, tmp_path, monkeypatch):
    """It is interrupted once in each of its trainings (direct, likelihoods, synthetic), and started anew each
    time, with `restore`."""
    data = SIMULATOR.sample(300, seed=1)
    whole = auto(checkpoint_filepath=tmp_path / "whole", restore=True)
    whole.fit_offline(data)
    interrupted = set()
    save_state = Checkpoint.save_state

    def killed_after(self, *arguments):
        save_state(self, *arguments)
        if self.resume_path not in interrupted:
            interrupted.add(self.resume_path)
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save_state", killed_after)
    for _ in range(10):
        again = auto(checkpoint_filepath=tmp_path / "again", restore=True)
        try:
            again.fit_offline(data)
            break
        except KeyboardInterrupt:
            continue
    assert len(interrupted) >= 4
    assert again.automatic.choices == whole.automatic.choices
    assert again.history.history == whole.history.history
    x = {"x": np.ones((1, 2))}
    assert np.array_equal(
        again.sample(num_samples=50, conditions=x, seed=3)["theta"],
        whole.sample(num_samples=50, conditions=x, seed=3)["theta"],
    )


def test_each_simulation_is_trained_on_or_held_out():
    """The two parts have every simulation once, variables of a row together, and the second as many as are
    said."""
    number = np.arange(57.0)
    parts = schedules.split_off({"a": number[:, None], "b": -number}, seed=4)
    assert len(parts[1]["b"]) == schedules.num_held_out(57)
    together = np.concatenate([part["a"][:, 0] for part in parts])
    assert sorted(together) == number.tolist()
    assert (np.concatenate([part["b"] for part in parts]) == -together).all()
    assert together.tolist() != number.tolist()


def test_bounds_are_those_of_the_prior_where_simulations_are_few(monkeypatch):
    """Ten simulations say nothing about ends; the prior, which can be drawn from, does. Simulations without
    a prior, and an adapter of the user's own, have none."""
    monkeypatch.setattr(automatic, "_PRIOR_DRAWS", 5_000)

    def uniform(batch_shape, rng):
        return {"theta": rng.uniform(-3.0, 3.0, size=(*batch_shape, 1))}

    prior = make_simulator(uniform, is_batched=True)
    data = prior.sample(10, seed=1) | {"x": np.random.default_rng(2).normal(size=(10, 3, 1))}
    workflow = SimpleNamespace(seed=1, priors={})

    def bounds(prior, adapter=None):
        choice = SimpleNamespace(given={"adapter": adapter, "missing": None})
        found = automatic.Automatic._transforms(choice, workflow, data, prior, ["theta"], ["x"], discrete=[])
        return found[0]

    assert bounds(prior) == {"theta": ([-3.0], [3.0])}
    assert bounds(None) == {"theta": ([None], [None])}
    assert bounds(prior, Adapter()) == {}


def test_parameters_are_bounded_for_the_likelihood_where_data_are_linear_in_them():
    """Data that are linear in log(theta) are so in bounded parameters, others that are linear in theta are
    not; without bounds there is nothing to choose."""
    rng = np.random.default_rng(3)
    theta = np.exp(rng.normal(size=(400, 1)))
    bounded, noise = Adapter().constrain("theta", lower=0.0), rng.normal(0.0, 0.1, size=(400, 1))
    for x, adapter, expected in (
        (np.log(theta) + noise, bounded, True),
        (theta + noise, bounded, False),
        (np.log(theta) + noise, Adapter(), False),
    ):
        found = neural_likelihood._better_bounded({"theta": theta, "x": x}, ["theta"], ["x"], adapter, {})
        assert bool(found) == expected


def test_the_number_of_likelihood_networks_is_as_documented():
    """Three networks below 3 000 simulations, two below 30 000, and one above, as docs/quality.md says."""
    numbers = {500: 3, 2_999: 3, 3_000: 2, 29_999: 2, 30_000: 1, 10**6: 1}
    assert {number: schedules.num_likelihood_networks(number) for number in numbers} == numbers
