"""What an approximator says about data that do not fit, and what it takes."""

import numpy as np
import pytest
import torch
from small_approximators import ROLES, approximator, data

from sbi_models.adapters import default_adapter
from sbi_models.approximators import ContinuousApproximator
from sbi_models.errors import ConfigurationError, DataError, NotFittedError
from sbi_models.networks import DeepSet, FlowMatching


@pytest.fixture(scope="module")
def made():
    return approximator()


def changed(**changes):
    return data(8, seed=1) | changes


def with_nan(rows, n=8):
    x = data(n, seed=1)["x"]
    x[rows, 2] = np.nan
    return x


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (
            changed(x=with_nan([3])),
            r"NaN or inf in 1 of 8 rows of variable 'x' of the data \(rows 3\). Drop those rows",
        ),
        (
            changed(x=with_nan([0, 1, 2, 4, 5, 7])),
            r"in 6 of 8 rows of variable 'x' .*\(rows 0, 1, 2, 4, 5, \.\.\.\)",
        ),
        (changed(c=np.full((8, 3), np.inf)), r"NaN or inf in 8 of 8 rows of variable 'c'"),
        (
            changed(c=np.zeros((7, 3))),
            r"same number of rows in every variable of the data, got 'theta' 8, 'tau' 8, 'c' 7, 'x' 8",
        ),
        (
            {key: value for key, value in changed(thetas=0).items() if key != "theta"},
            r"'theta' is missing in the data. Did you mean 'thetas'\?",
        ),
        (
            changed(x=[np.zeros((k, 1)) for k in range(1, 9)]),
            r"Expected 'x' in the data of shape \(n, 6, 1\), as in training, got data sets of different",
        ),
        (changed(x=np.full((8, 6, 1), "a")), r"real numbers in variable 'x' of the data, got <U1"),
        (
            changed(x=[None] * 8),
            r"real numbers in variable 'x' of the data, got object of NoneType\. Fill in what is missing",
        ),
        (
            changed(tau=0.5),
            r"Expected variable 'tau' of shape \(n, ...\) with at least one row, got shape \(\)",
        ),
        (changed(x=np.zeros((0, 6, 1))), r"Expected variable 'x' .* at least one row, got shape \(0, 6, 1\)"),
        (
            changed(x=np.zeros((8, 5, 1))),
            r"Expected 'x' in the data of shape \(n, 6, 1\), as in training, got \(8, 5, 1\)\.$",
        ),
        (
            changed(c=np.zeros((8, 3, 1))),
            r"Expected 'c' in the data of shape \(n, 3\), as in training, got \(8, 3, 1\)",
        ),
        ([1.0, 2.0], "Expected the data as a dict of names to arrays, got list"),
    ],
)
def test_data_that_do_not_fit_are_refused(made, batch, message):
    """A DataError names the variable and the rows, what was expected and got, and a cure."""
    with pytest.raises(DataError, match=message):
        made.log_prob(batch)


@pytest.mark.parametrize(("name", "shape", "n"), [("x", r"\(n, 6, 1\)", 6), ("c", r"\(n, 3\)", 3)])
def test_a_single_data_set_without_its_axis_is_told_the_cure(made, name, shape, n):
    """Conditions without the leading axis are refused with the expression that adds it, also where they have
    one axis only."""
    batch = data(n)
    with pytest.raises(
        DataError,
        match=rf"Expected '{name}' in the conditions of shape {shape}.*leading axis: {name}\.reshape\(1, ",
    ):
        made.sample(num_samples=2, conditions=batch | {name: batch[name][0]})


def test_lists_tensors_views_and_other_types_are_taken(made):
    """Lists, torch tensors with and without gradient, float32, integers, reversed and read-only arrays are
    what they stand for."""
    batch = {key: np.round(value).astype(float) for key, value in data(8, seed=1).items()}
    expected = made.log_prob(batch)
    frozen = {key: value.copy() for key, value in batch.items()}
    for value in frozen.values():
        value.setflags(write=False)
    alike = [
        {key: value.tolist() for key, value in batch.items()},
        {key: torch.as_tensor(value).requires_grad_() for key, value in batch.items()},
        {key: torch.as_tensor(value, dtype=torch.float32) for key, value in batch.items()},
        {key: value.astype(np.int64) for key, value in batch.items()},
        {key: np.ascontiguousarray(value[::-1])[::-1] for key, value in batch.items()},
        {key: np.asfortranarray(value) for key, value in batch.items()},
        {key: value.astype(">f8") for key, value in batch.items()},
        frozen,
        batch | {"tau": batch["tau"][:, None]},
    ]
    for other in alike:
        np.testing.assert_array_equal(made.log_prob(other), expected)


def test_data_of_the_caller_are_not_changed(made):
    """log_prob, sample and build leave the arrays that they are given as they were."""
    batch = data(8, seed=1)
    before = {key: value.copy() for key, value in batch.items()}
    made.log_prob(batch)
    made.sample(num_samples=3, conditions=batch, seed=0)
    approximator(built=False).build(batch, seed=0)
    for key, value in batch.items():
        np.testing.assert_array_equal(value, before[key])


@pytest.mark.parametrize("value", [0, -1, 2.5, True, "3", None, np.float64(3)])
def test_numbers_of_draws_are_positive_integers(made, value):
    """Anything but a positive integer is refused as num_samples, and (but for None) as batch_size."""
    with pytest.raises(ConfigurationError, match="Expected num_samples as a positive integer, got"):
        made.sample(num_samples=value, conditions=data(2))
    if value is not None:
        with pytest.raises(ConfigurationError, match="Expected batch_size as a positive integer, got"):
            made.sample(num_samples=2, conditions=data(2), batch_size=value)


@pytest.mark.parametrize("value", [np.int64(3), np.uint8(3), np.array(3)])
def test_numbers_of_draws_may_be_integers_of_any_type(made, value):
    """NumPy integers count as integers."""
    assert made.sample(num_samples=value, conditions=data(2), batch_size=np.int64(1))["theta"].shape == (
        2,
        3,
        2,
    )


def test_before_training_there_is_nothing_to_ask(tmp_path):
    """sample, log_prob and save of an approximator that has seen no data raise NotFittedError and write
    nothing."""
    fresh = approximator(built=False)
    for ask in (
        lambda: fresh.sample(num_samples=2, conditions=data()),
        lambda: fresh.log_prob(data()),
        lambda: fresh.save(tmp_path / "model"),
    ):
        with pytest.raises(NotFittedError, match=r"has not been trained. Call fit_offline or fit_online"):
            ask()
    assert list(tmp_path.iterdir()) == []


def test_a_build_that_failed_was_none():
    """After data of the wrong shape the approximator is not built, and builds with the right ones."""
    fresh = approximator(built=False)
    with pytest.raises(DataError, match="DeepSet summarizes sets"):
        fresh.build(data() | {"x": np.zeros((40, 6))}, seed=0)
    assert not fresh.is_built
    fresh.build(data(), seed=0)
    assert fresh.log_prob(data()).shape == (40,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"theta": np.zeros((40, 2, 3)), "tau": np.zeros((40, 2, 1))},
            r"inference_variables of shape \(n, width\).*got \(40, 2, 4\). Flatten theta, tau",
        ),
        (
            {"c": np.zeros((40, 20, 1))},
            r"inference_conditions of shape \(n, width\).*got \(40, 20, 1\). .*make them summary_variables",
        ),
    ],
)
def test_only_summary_variables_have_further_axes(change, message):
    """Inferred variables and direct conditions have one axis a row; more are refused when data are first
    seen."""
    with pytest.raises(DataError, match=message):
        approximator(built=False).build(data() | change, seed=0)


@pytest.mark.parametrize(
    ("roles", "network"),
    [(ROLES, None), ({"inference_variables": ["theta"], "inference_conditions": ["c"]}, DeepSet())],
)
def test_summary_variables_and_network_go_together(roles, network):
    """Summary variables without a network, and a network without variables, are refused by the
    constructor."""
    with pytest.raises(ConfigurationError, match="summary_variables and summary_network go together"):
        ContinuousApproximator(
            adapter=default_adapter(roles),
            roles=roles,
            inference_network=FlowMatching(),
            summary_network=network,
        )
