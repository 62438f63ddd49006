"""Arguments that do not fit are refused before any work; diagnostics come with the usual names."""

import numpy as np
import pytest
from linear_gaussian import SIMULATOR, likelihood, prior, workflow

from sbi_models import BasicWorkflow
from sbi_models.errors import ConfigurationError, DataError
from sbi_models.networks import DeepSet, FlowMatching
from sbi_models.simulators import Simulator

DATA = SIMULATOR.sample(64, seed=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inference_variables": []}, "at least one of inference_variables"),
        ({"summary_network": DeepSet()}, "summary_variables and summary_network go together"),
        (
            {"summary_variables": ["x"], "inference_conditions": None},
            "summary_variables and summary_network go together",
        ),
        (
            {"inference_network": "flow_maching"},
            r"Unknown InferenceNetwork 'flow_maching'. Did you mean 'flow_matching'\?",
        ),
        ({"inference_network": DeepSet}, "Expected a InferenceNetwork"),
        (
            {"summary_network": FlowMatching(), "summary_variables": ["x"], "inference_conditions": None},
            "Expected a SummaryNetwork",
        ),
        (
            {"standardize": "theta"},
            r"standardize names roles, not variables: 'theta' is not one. Known: all, inference_conditions",
        ),
        ({"standardize": ["inference_variable"]}, r"Did you mean 'inference_variables'\?"),
        ({"initial_learning_rate": 0.0}, "positive initial_learning_rate, got 0.0"),
        ({"initial_learning_rate": float("nan")}, "positive initial_learning_rate, got nan"),
        ({"restore": True}, "restore=True needs checkpoint_filepath"),
        ({"seed": -1}, "non-negative integer, got -1"),
        ({"seed": 0.5}, "non-negative integer, got 0.5"),
    ],
)
def test_arguments_of_a_workflow_are_checked_when_it_is_made(arguments, message):
    """Misspelt names, bad numbers and parts that do not go together are refused by the constructor, with a
    cure."""
    with pytest.raises(ConfigurationError, match=message):
        workflow(**arguments)


def test_misspelt_keywords_are_refused():
    """No method swallows unknown keywords."""
    with pytest.raises(
        ConfigurationError,
        match=r"BasicWorkflow has no argument 'inference_variable'. Did you mean 'inference_variables'",
    ):
        BasicWorkflow(SIMULATOR, inference_variable=["theta"])
    with pytest.raises(
        ConfigurationError,
        match=r"BasicWorkflow has no argument 'learning_rate'. Did you mean 'initial_learning_rate'",
    ):
        BasicWorkflow(SIMULATOR, inference_variables=["theta"], learning_rate=1e-3)
    with pytest.raises(
        ConfigurationError, match=r"Workflow.fit_offline has no argument 'epoch'. Did you mean 'epochs'"
    ):
        workflow().fit_offline(DATA, epoch=3)
    with pytest.raises(
        ConfigurationError, match=r"sample has no argument 'num_sample'. Did you mean 'num_samples'"
    ):
        workflow().approximator.sample(num_sample=3, conditions=DATA)
    with pytest.raises(
        ConfigurationError,
        match=r"plot_default_diagnostics has no argument 'samplez'. Did you mean 'samples'",
    ):
        workflow().plot_default_diagnostics(DATA, samplez=3)


class Counted(Simulator):
    """A simulator that counts its calls."""

    calls_made = 0

    def rows(self, *args, **arguments):
        self.calls_made += 1
        return super().rows(*args, **arguments)


@pytest.mark.parametrize("value", [0, -1, 2.5, True, "3"])
@pytest.mark.parametrize("name", ["epochs", "batch_size", "num_batches_per_epoch"])
def test_numbers_of_a_training_are_checked_before_it_starts(name, value):
    """Epochs, batch sizes and batches that are no positive integers are refused before anything is simulated
    or built."""
    simulator = Counted([prior, likelihood], is_batched=True)
    made = workflow(simulator=simulator)
    with pytest.raises(ConfigurationError, match=rf"Expected {name} as a positive integer, got "):
        made.fit_online(**({"epochs": 1, "batch_size": 8, "num_batches_per_epoch": 1} | {name: value}))
    if name != "num_batches_per_epoch":
        with pytest.raises(ConfigurationError, match=rf"Expected {name} as a positive integer, got "):
            made.fit_offline(DATA, **({"epochs": 1, "batch_size": 8} | {name: value}))
    assert simulator.calls_made == 0
    assert not made.approximator.is_built


@pytest.mark.parametrize(
    ("data", "arguments", "message"),
    [
        (DATA, {"batch_size": 65}, "batch_size of at most the 64 simulations of the data, got 65"),
        (
            {"thta": DATA["theta"], "x": DATA["x"]},
            {},
            r"'theta' is missing in the training data. Did you mean 'thta'\?",
        ),
        (DATA | {"x": np.full((64, 2), np.nan)}, {}, r"64 of 64 rows of variable 'x' of the training data"),
        (DATA, {"validation_data": {"theta": DATA["theta"]}}, "'x' is missing in the validation data"),
        (
            DATA,
            {"validation_data": DATA | {"x": DATA["x"][:, :1]}},
            r"Expected 'x' in the validation data of shape \(n, 2\)",
        ),
        (DATA, {"validation_data": 0}, r"validation_data \(if not a dict\) as a positive integer, got 0"),
    ],
)
def test_data_are_checked_before_training(data, arguments, message):
    """Data that do not fit end a fit before its first step, whether for training or validation."""
    made, epochs = workflow(), []
    with pytest.raises((DataError, ConfigurationError), match=message):
        made.fit_offline(data, epochs=1, on_epoch_end=lambda *args: epochs.append(args), **arguments)
    assert made.history is None
    assert epochs == []


def test_what_needs_a_simulator_says_so():
    """Without a simulator, online training, validation and test data by number, and simulate are refused with
    a cure."""
    made = workflow(simulator=None)
    made.fit_offline(DATA, epochs=1)
    for ask in (
        lambda: made.fit_online(epochs=1),
        lambda: made.fit_offline(DATA, epochs=1, validation_data=10),
        lambda: made.compute_default_diagnostics(10),
        lambda: made.simulate(3),
    ):
        with pytest.raises(ConfigurationError, match="needs a simulator, and the workflow has none"):
            ask()


@pytest.mark.parametrize(
    ("standardize", "roles"),
    [
        (None, []),
        ("inference_conditions", ["inference_conditions"]),
        ("all", ["inference_conditions", "inference_variables"]),
        (["inference_variables"], ["inference_variables"]),
    ],
)
def test_roles_to_standardize_are_chosen(standardize, roles):
    """standardize names one role, several, all or none; those have moments, the others none."""
    made = workflow(standardize=standardize)
    made.approximator.build(DATA, seed=0)
    assert sorted({name.rsplit("_", 1)[0] for name in made.approximator.standardizer.state_dict()}) == roles


# --- inference and diagnostics


@pytest.fixture(scope="module")
def trained():
    made = workflow()
    made.fit_online(epochs=2, num_batches_per_epoch=20, batch_size=32, validation_data=20)
    return made


def test_a_workflow_asks_its_approximator(trained):
    """sample, log_prob and simulate are those of approximator and simulator."""
    test = trained.simulate(5, seed=1)
    np.testing.assert_array_equal(test["x"], SIMULATOR.sample(5, seed=1)["x"])
    draws = trained.sample(num_samples=3, conditions=test, seed=2, split=True)
    np.testing.assert_array_equal(
        draws["theta_1"],
        trained.approximator.sample(num_samples=3, conditions=test, seed=2, split=True)["theta_1"],
    )
    np.testing.assert_array_equal(trained.log_prob(test), trained.approximator.log_prob(test))


METRICS = ["NRMSE", "Log Gamma", "Calibration Error", "Posterior Contraction"]


@pytest.mark.parametrize(
    "test_data", [50, np.int64(50), SIMULATOR.sample(50, seed=3)], ids=["int", "int64", "data"]
)
def test_default_metrics_have_their_names(trained, test_data):
    """A row a metric and a column a parameter, finite, repeatable by seed, for data or a number of
    simulations."""
    frame = trained.compute_default_diagnostics(test_data, num_samples=40, seed=1)
    assert list(frame.index) == METRICS
    assert list(frame.columns) == ["theta_0", "theta_1"]
    assert np.isfinite(frame.to_numpy()).all()
    assert frame.equals(trained.compute_default_diagnostics(test_data, num_samples=40, seed=1))
    assert not frame.equals(trained.compute_default_diagnostics(test_data, num_samples=40, seed=2))


def test_default_metrics_may_be_a_dict_with_names_of_the_caller(trained):
    """as_data_frame=False gives the same numbers as plain floats, variable_names head the parameters."""
    frame = trained.compute_default_diagnostics(50, num_samples=40, seed=1, variable_names=["a", "b"])
    table = trained.compute_default_diagnostics(
        50, num_samples=40, seed=1, variable_names=["a", "b"], as_data_frame=False
    )
    assert table == {metric: {name: frame.loc[metric, name] for name in ("a", "b")} for metric in METRICS}
    assert type(table["NRMSE"]["a"]) is float


def test_samples_made_before_are_used(trained):
    """With samples= no draws are made: the metrics are those of the draws that came; missing draws are
    named."""
    test = SIMULATOR.sample(50, seed=4)
    perfect = {
        "theta": np.repeat(test["theta"][:, None], 10, axis=1)
        + 1e-9 * np.random.default_rng(0).normal(size=(50, 10, 2))
    }
    assert trained.compute_default_diagnostics(test, samples=perfect).loc["NRMSE"].max() < 1e-6
    with pytest.raises(DataError, match=r"samples hold no draws of 'theta'. Did you mean 'thetas'"):
        trained.compute_default_diagnostics(test, samples={"thetas": perfect["theta"]})


def test_default_figures_have_their_names(trained):
    """The losses are drawn after a training and left out without one; the other four figures are always
    there."""
    usual = ["recovery", "calibration_ecdf", "coverage", "z_score_contraction"]
    figures = trained.plot_default_diagnostics(np.int64(20), num_samples=30, seed=1)
    assert list(figures) == ["losses", *usual]
    untrained = workflow()
    untrained.approximator.build(DATA, seed=0)
    assert list(untrained.plot_default_diagnostics(DATA, num_samples=30, seed=1)) == usual


def test_a_network_given_to_two_workflows_is_trained_in_neither_by_the_other() -> None:
    """Two workflows with the same network instance have networks of their own."""
    network = FlowMatching(widths=(8,))
    first, second = (
        BasicWorkflow(inference_variables="theta", inference_conditions="x", inference_network=network)
        for _ in range(2)
    )
    assert first.approximator.inference_network is not second.approximator.inference_network
    assert network.built_with is None


def test_a_network_argument_that_json_cannot_hold_is_refused_before_training() -> None:
    """A NumPy integer as network argument, which a saved file could not hold, is refused when the workflow is
    made."""
    with pytest.raises(ConfigurationError, match="JSON"):
        BasicWorkflow(
            inference_variables="theta",
            inference_conditions="x",
            inference_network=FlowMatching(steps=np.int64(4)),
        )


def test_a_variable_in_two_roles_or_no_data_at_all_is_refused() -> None:
    """Each variable has one role, and a posterior needs conditions."""
    with pytest.raises(ConfigurationError, match="'x' in two"):
        BasicWorkflow(
            inference_variables="theta",
            inference_conditions="x",
            summary_variables="x",
            summary_network="deep_set",
        )
    with pytest.raises(ConfigurationError, match="summary_variables or inference_conditions"):
        BasicWorkflow(inference_variables="theta")
    with pytest.raises(ConfigurationError, match="Did you mean 'gpu'"):
        BasicWorkflow(inference_variables="theta", inference_conditions="x", accelerator="gpus")


def test_restoring_another_training_is_refused(tmp_path) -> None:
    """restore=True with other epochs, another seed or other data than those of the checkpoint is an error,
    not a silent mixture."""
    data = {"theta": np.linspace(-1, 1, 64)[:, None], "x": np.linspace(-2, 2, 64)[:, None]}

    def fit(seed: int, epochs: int, values: dict[str, np.ndarray]) -> None:
        workflow = BasicWorkflow(
            inference_variables="theta",
            inference_conditions="x",
            inference_network=FlowMatching(widths=(8,)),
            checkpoint_filepath=tmp_path,
            restore=True,
            seed=seed,
        )
        workflow.fit_offline(values, epochs=epochs, batch_size=32)

    fit(1, 2, data)
    fit(1, 2, data)
    for arguments, name in (
        ((1, 3, data), "epochs"),
        ((2, 2, data), "seed"),
        ((1, 2, {**data, "x": data["x"] + 1e-3}), "data"),
    ):
        with pytest.raises(ConfigurationError, match=f"belongs to another training: expected {name}"):
            fit(*arguments)


def test_ctrl_c_is_a_keyboard_interrupt() -> None:
    """An interrupt while training reaches the caller as KeyboardInterrupt, so that a notebook lives on."""

    def interrupt(epoch: int, losses: dict[str, float]) -> None:
        raise KeyboardInterrupt

    data = {"theta": np.linspace(-1, 1, 64)[:, None], "x": np.linspace(-2, 2, 64)[:, None]}
    workflow = BasicWorkflow(
        inference_variables="theta",
        inference_conditions="x",
        inference_network=FlowMatching(widths=(8,)),
        seed=1,
        accelerator="cpu",
    )
    with pytest.raises(KeyboardInterrupt):
        workflow.fit_offline(data, epochs=2, batch_size=32, on_epoch_end=interrupt)
