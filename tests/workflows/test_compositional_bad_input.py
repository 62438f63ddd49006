"""Bad input of a CompositionalWorkflow: refused with what was expected, what was got and a cure; odd but good
input is taken."""

import re

import numpy as np
import pytest
import torch
from compositional_models import SMALL, compositional, prior_score
from linear_gaussian import SIMULATOR, workflow
from torch.distributions import Normal

import sbi_models as bf
from sbi_models.errors import ConfigurationError, DataError, NotFittedError
from sbi_models.networks import CouplingFlow, DiffusionModel, FlowMatching

DATA = SIMULATOR.sample(64, seed=0)
DATA = DATA | {"c": np.linspace(-1, 1, 64)}
X = np.zeros((2, 3, 2))
GIVEN = {"x": X, "c": np.zeros((2, 3, 1))}


@pytest.fixture(scope="module")
def trained():
    """A workflow with a vector and a scalar as conditions."""
    made = compositional(inference_conditions=["x", "c"])
    made.fit_offline(DATA, epochs=1)
    return made


def ask(made, **arguments):
    settings = {
        "num_samples": 3,
        "conditions": GIVEN,
        "compute_prior_score": prior_score,
        "calibration_simulations": 0,
        "seed": 1,
    }
    return made.compositional_sample(**(settings | arguments))


@pytest.mark.parametrize(
    "network", [FlowMatching(widths=(8,)), FlowMatching, "flow_matching", CouplingFlow(), "coupling_flow"]
)
def test_other_networks(network):
    """A network whose scores cannot be composed is refused by the constructor, by its name, too."""
    with pytest.raises(
        ConfigurationError,
        match=r"Expected a DiffusionModel.*got (FlowMatching|CouplingFlow)\. Pass inference_network='diff",
    ):
        compositional(inference_network=network)


def test_workflows_that_cannot_be_promoted():
    """An untrained workflow, one with another network (trained or not), and what is no workflow; each says
    what to do."""
    make = bf.CompositionalWorkflow.from_basic_workflow
    with pytest.raises(
        NotFittedError,
        match=r"Expected a trained workflow, got one that was never fitted\. Call its fit_online",
    ):
        make(workflow(inference_network=SMALL))
    flow = workflow()
    with pytest.raises(ConfigurationError, match=r"Expected a DiffusionModel.*got FlowMatching"):
        make(flow)
    flow.fit_offline(SIMULATOR.sample(64, seed=0), epochs=1)
    with pytest.raises(ConfigurationError, match=r"Expected a DiffusionModel.*got FlowMatching"):
        make(flow)
    for wrong in (flow.approximator, None, SMALL):
        with pytest.raises(
            ConfigurationError, match=rf"Expected a BasicWorkflow, got {type(wrong).__name__}"
        ):
            make(wrong)


def test_a_prior_that_was_never_learned():
    """A network trained without dropped conditions needs a prior: an error that names both cures; with one,
    or one item, it composes."""
    basic = workflow(inference_network=DiffusionModel(widths=(16, 16), drop_conditions=0.0))
    basic.fit_offline(SIMULATOR.sample(64, seed=0), epochs=1)
    made = bf.CompositionalWorkflow.from_basic_workflow(basic)
    arguments = {"num_samples": 3, "calibration_simulations": 0, "seed": 1}
    with pytest.raises(
        ConfigurationError,
        match=r"never learned.*compute_prior_score.*DiffusionModel\(drop_conditions=0\.15\)",
    ):
        made.compositional_sample(conditions={"x": X}, **arguments)
    assert made.compositional_sample(conditions={"x": X[:, :1]}, **arguments)["theta"].shape == (2, 3, 2)


def test_sampling_before_fitting():
    """Asking before a training says what to do first."""
    with pytest.raises(NotFittedError, match=r"has not been trained\. Call fit_offline or fit_online"):
        ask(compositional(), conditions={"x": X})


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (
            GIVEN | {"x": X[0]},
            r"Expected 'x' of shape \(num_datasets, n_compositional, 2\), with the items of each data set "
            r"along the second axis, "
            r"got \(3, 2\)\. For one data set: x\[None\]",
        ),
        (
            GIVEN | {"x": X[..., None]},
            r"Expected 'x' of shape \(num_datasets, n_compositional, 2\).*got \(2, 3, 2, 1\)",
        ),
        (
            GIVEN | {"x": X[:, :0]},
            r"Expected 'x' of shape \(num_datasets, n_compositional, 2\).*got \(2, 0, 2\)",
        ),
        (GIVEN | {"x": X[:0]}, r"Expected 'x' of shape .*got \(0, 3, 2\)"),
        (GIVEN | {"x": X[..., :1]}, r"Expected 'x' in the conditions of shape \(n, 2\).*got \(6, 1\)"),
        (
            GIVEN | {"x": [X[0].tolist(), X[0, :2].tolist()]},
            r"the same numbers of data sets and items.*of 'x'.*of 'c'",
        ),
        (
            GIVEN | {"c": np.zeros((2, 4, 1))},
            r"same numbers of data sets and items in every condition, got \(2, 3\) of 'x', \(2, 4\) of 'c'",
        ),
        (
            GIVEN | {"c": np.zeros((1, 3))},
            r"same numbers of data sets and items in every condition, got \(2, 3\) of 'x', \(1, 3\) of 'c'",
        ),
        ({"x": X}, r"Expected 'c' among the conditions, got 'x'"),
        ({"X": X, "c": GIVEN["c"]}, r"Expected 'x' among the conditions, got 'X', 'c'"),
        ({}, r"Expected 'x' among the conditions"),
        (GIVEN | {"x": np.where(np.arange(2) == 1, np.nan, X)}, r"NaN or inf in 6 of 6 rows of variable 'x'"),
        (None, r"conditions as a dict of names to arrays, got NoneType"),
        (X, r"conditions as a dict of names to arrays, got ndarray"),
        (GIVEN | {"x": np.array([["a", "b"]])}, r"real numbers in variable 'x'.*got <U1"),
    ],
)
def test_conditions(trained, conditions, message):
    """No axis of items, no items, ragged or unequal numbers of them, missing, misnamed, broken and mistyped
    conditions."""
    for made in (trained, trained.approximator):
        with pytest.raises(DataError, match=message):
            made.compositional_sample(
                num_samples=3, conditions=conditions, compute_prior_score=prior_score, seed=1
            )


@pytest.mark.filterwarnings("ignore::sbi_models.errors.TrustWarning")
def test_odd_but_good_conditions(trained):
    """Lists, single precision, tensors, a scalar condition without its axis, and further variables are taken,
    to the same draws."""
    expected = ask(trained, calibration_simulations=0)["theta"]
    for conditions in (
        {"x": X.tolist(), "c": GIVEN["c"].tolist()},
        {"x": X.astype(np.float32), "c": np.zeros((2, 3))},
        {"x": torch.zeros(2, 3, 2), "c": torch.zeros(2, 3, 1)},
        GIVEN | {"theta": "not asked for"},
    ):
        np.testing.assert_array_equal(ask(trained, conditions=conditions)["theta"], expected)


@pytest.mark.parametrize(
    ("prior", "error", "message"),
    [
        (
            lambda data, t=None: {"thta": data["theta"]},
            DataError,
            r"returned 'thta', which is not inferred\. Did you mean 'theta'",
        ),
        (lambda data, t=None: {}, DataError, r"score of 'theta', got nothing"),
        (
            lambda data, t=None: {"theta": data["theta"][:, 0]},
            DataError,
            r"shape of its values \(\d+, 2\), got \(\d+,\)",
        ),
        (
            lambda data, t=None: {"theta": np.nan * data["theta"]},
            DataError,
            r"finite prior score of 'theta', got NaN or inf at \d+ places",
        ),
        (
            lambda data, t=None: -data["theta"],
            DataError,
            r"return a dict of variables to scores, got ndarray",
        ),
        (
            {"thta": Normal(0.0, 1.0)},
            ConfigurationError,
            r"of inferred variables, got 'thta'\. Did you mean 'theta'",
        ),
        ({}, ConfigurationError, r"prior of every inferred variable, got none for 'theta'"),
        (
            3.0,
            ConfigurationError,
            r"a function of \(data, t=None\), a torch distribution, or a dict of them, got 3\.0",
        ),
    ],
)
def test_priors(trained, prior, error, message):
    """Prior scores with a wrong key, shape, value or type, and what is no prior; whatever the number of
    items."""
    for n in (1, 3):
        with pytest.raises(error, match=message):
            ask(
                trained,
                compute_prior_score=prior,
                conditions={name: value[:, :n] for name, value in GIVEN.items()},
            )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "gaus"}, r"Unknown method of composition 'gaus'\. Did you mean 'gauss'"),
        ({"method": None}, r"Unknown method of composition None\. Known: calibrated"),
        *[
            ({"noise": noise}, rf"Expected noise.*from 0\.001 to 1, got {re.escape(repr(noise))}")
            for noise in (0.0, 0.0001, 1.5, -0.1, "0.1", True, float("nan"), [0.1])
        ],
        *[
            (
                {"calibration_simulations": number},
                rf"calibration_simulations .*positive integer, got {re.escape(repr(number))}",
            )
            for number in (-1, 2.5, "many", True, False)
        ],
        *[
            ({"num_samples": n}, f"num_samples as a positive integer, got {re.escape(repr(n))}")
            for n in (0, -1, 2.5, "3", True, None)
        ],
        ({"seed": -1}, "seed"),
        ({"seed": 1.5}, "seed"),
        (
            {"calibration_simulation": 3},
            r"has no argument 'calibration_simulation'\. Did you mean 'calibration_simulations'",
        ),
        (
            {"prior_score": prior_score},
            r"compositional_sample has no argument 'prior_score'\. Did you mean 'compute_prior_score'",
        ),
    ],
)
def test_arguments(trained, arguments, message):
    """Unknown methods, noises and numbers that cannot be, and misspelt names, are refused with what was
    expected and got."""
    for made in (trained, trained.approximator):
        with pytest.raises(ConfigurationError, match=message):
            ask(made, **arguments)


@pytest.mark.filterwarnings("ignore::sbi_models.errors.TrustWarning")
def test_odd_but_good_arguments(trained):
    """NumPy numbers are numbers, and an integer is a noise."""
    assert ask(trained, num_samples=np.int64(2), noise=np.float64(0.1), seed=np.int64(3))["theta"].shape == (
        2,
        2,
        2,
    )
    assert ask(trained, calibration_simulations=np.int64(0), noise=np.float32(0.1))["theta"].shape == (
        2,
        3,
        2,
    )
    assert ask(trained, noise=1)["theta"].shape == (2, 3, 2)


def test_misspelt_settings():
    """A misspelt setting of the workflow is refused with the nearest."""
    with pytest.raises(
        ConfigurationError, match=r"has no argument 'inference_netwrk'\. Did you mean 'inference_network'"
    ):
        compositional(inference_netwrk=SMALL)
