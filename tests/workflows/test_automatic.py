"""`inference_network="auto"`: against an exact posterior, and that it says and keeps what it has chosen.
Trainings are made short here."""

import numpy as np
import pytest
from linear_gaussian import SIMULATOR, exact_log_prob

import sbi_models
from sbi_models import BasicWorkflow, make_simulator
from sbi_models.adapters import Adapter
from sbi_models.errors import ConfigurationError
from sbi_models.training.checkpoints import Checkpoint
from sbi_models.workflows.auto import schedules
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
    made = workflow.automatic.likelihood.draw({"rate": np.full((2_000, 1), 9.0)}, seed=0)
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
