"""What diagnostics say about data that do not fit, and how named variables become columns."""

import numpy as np
import pytest
from gaussian_posterior import gaussian

from sbi_models.diagnostics import flatten_variables, fractional_ranks
from sbi_models.errors import DataError

Z = np.zeros


@pytest.mark.parametrize(
    ("samples", "truth", "message"),
    [
        (Z((3, 4)), Z((3, 1)), r"samples of shape \(num_datasets, num_samples, dim\), got shape \(3, 4\)"),
        (Z((3, 4, 1)), Z(3), r"truth of shape \(num_datasets, dim\), got shape \(3,\)"),
        (Z((3, 4, 2)), Z((4, 2)), r"truth of shape \(3, 2\).*got \(4, 2\)"),
        (Z((3, 4, 2)), Z((3, 1)), r"truth of shape \(3, 2\).*got \(3, 1\)"),
        (Z((0, 4, 2)), Z((0, 2)), "at least 1 data set"),
        (Z((3, 0, 2)), Z((3, 2)), "at least 1 posterior draw"),
        (Z((3, 4, 0)), Z((3, 0)), "at least one parameter"),
        (Z((3, 4, 1), dtype=complex), Z((3, 1)), "real numbers in samples, got complex128"),
        (np.full((3, 4, 1), "a"), Z((3, 1)), "real numbers"),
        ([[[1.0], [2.0]], [[1.0]]], Z((2, 1)), "ragged"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(samples, truth, message):
    """Wrong axes, sizes or types raise a DataError that says what was expected and got."""
    with pytest.raises(DataError, match=message):
        fractional_ranks(samples, truth)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_data_sets_with_values_that_are_not_finite_are_named(value):
    """One bad draw is enough to refuse, and the message names its data set."""
    samples, truth = gaussian(0, n=12)
    samples[7, 3, 1] = value
    with pytest.raises(DataError, match=r"finite samples, got NaN or infinity in 1 of 12 data sets: 7 \("):
        fractional_ranks(samples, truth)
    samples[7, 3, 1] = 0.0
    truth[[1, 2, 3, 5, 6, 8, 9], 0] = value
    with pytest.raises(DataError, match=r"finite truth.* in 7 of 12 data sets: 1, 2, 3, 5, 6 and 2 more"):
        fractional_ranks(samples, truth)


def test_inputs_are_not_changed_and_integers_and_lists_will_do():
    """Integer lists give the ranks of the same floats, and arrays of the caller stay as they are."""
    samples, truth = np.arange(12).reshape(2, 3, 2), np.array([[1, 2], [8, 9]])
    before = samples.copy()
    np.testing.assert_array_equal(
        fractional_ranks(samples.tolist(), truth.tolist()), fractional_ranks(samples.astype(float), truth)
    )
    np.testing.assert_array_equal(samples, before)


# --- named variables


def test_variables_become_columns_in_order():
    """Each variable takes its columns, in the order of the samples; a variable of one value keeps its plain
    name."""
    rng = np.random.default_rng(1)
    samples = {
        "beta": rng.normal(size=(5, 7, 2)),
        "tau": rng.normal(size=(5, 7, 1)),
        "cov": rng.normal(size=(5, 7, 2, 2)),
    }
    truth = {
        "x": rng.normal(size=(5, 99)),
        "cov": rng.normal(size=(5, 2, 2)),
        "tau": rng.normal(size=(5, 1)),
        "beta": rng.normal(size=(5, 2)),
    }
    flat = flatten_variables(samples, truth)
    assert flat.names == ["beta_0", "beta_1", "tau", "cov_0_0", "cov_0_1", "cov_1_0", "cov_1_1"]
    np.testing.assert_array_equal(flat.samples[:, :, 2], samples["tau"][:, :, 0])
    np.testing.assert_array_equal(flat.samples[:, :, 5], samples["cov"][:, :, 1, 0])
    np.testing.assert_array_equal(flat.truth[:, 5], truth["cov"][:, 1, 0])
    assert flat.truth.shape == (5, 7)


@pytest.mark.parametrize("draws_shape", [(5, 7), (5, 7, 1)])
@pytest.mark.parametrize("truth_shape", [(5,), (5, 1)])
def test_scalar_variables_may_lack_the_last_axis(draws_shape, truth_shape):
    """A variable of one value may come with or without an axis of length 1, in draws and truth alike."""
    flat = flatten_variables({"tau": Z(draws_shape)}, {"tau": Z(truth_shape)})
    assert (flat.samples.shape, flat.truth.shape, flat.names) == ((5, 7, 1), (5, 1), ["tau"])


def test_keys_choose_and_order_variables():
    """variable_keys picks variables in its order; one string is one key."""
    samples = {"a": Z((5, 7, 1)), "b": Z((5, 7, 2))}
    truth = {"a": Z((5, 1)), "b": Z((5, 2))}
    assert flatten_variables(samples, truth, variable_keys=["b", "a"]).names == ["b_0", "b_1", "a"]
    assert flatten_variables(samples, truth, variable_keys="b").names == ["b_0", "b_1"]


def test_arrays_stand_for_theta():
    """Plain arrays are one variable named theta."""
    assert flatten_variables(*gaussian(2)).names == ["theta_0", "theta_1"]


def test_given_names_replace_the_usual_ones():
    """variable_names name all parameters in order."""
    assert flatten_variables(*gaussian(3), variable_names=("mean", "scale")).names == ["mean", "scale"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a"], r"Expected 2 variable_names, one for each of theta_0, theta_1, got 1: a"),
        (["a", "b", "c"], "got 3: a, b, c"),
        (["a", "a"], "distinct names.*a more than once"),
        ("ab", "list of non-empty strings, got 'ab'"),
        (["a", 1], "list of non-empty strings"),
        (["a", ""], "list of non-empty strings"),
    ],
)
def test_bad_names_are_refused(names, message):
    """Too few, too many, repeated, or no strings: a DataError that lists what is to be named."""
    with pytest.raises(DataError, match=message):
        flatten_variables(*gaussian(4), variable_names=names)


@pytest.mark.parametrize(
    ("samples", "truth", "keys", "message"),
    [
        (
            {"theta": Z((5, 7, 2))},
            {"thta": Z((5, 2))},
            None,
            r"true values of variable 'theta'.*Did you mean 'thta'",
        ),
        (
            {"theta": Z((5, 7, 2))},
            {"theta": Z((5, 2))},
            ["thet"],
            r"draws of variable 'thet', got none. Did you mean 'theta'",
        ),
        ({}, {"theta": Z((5, 2))}, None, "at least one variable"),
        ({"theta": Z((5, 7, 2))}, Z((5, 2)), None, "both as mappings"),
        (
            {"theta": Z((5, 7, 2))},
            {"theta": Z((4, 2))},
            None,
            r"truth of 'theta' of shape \(5, 2\).*got \(4, 2\)",
        ),
        (
            {"theta": Z((5, 7, 2))},
            {"theta": Z((5, 3))},
            None,
            r"truth of 'theta' of shape \(5, 2\).*got \(5, 3\)",
        ),
        ({"theta": Z(5)}, {"theta": Z(5)}, None, "Add the missing axes"),
        (
            {"a": Z((5, 7, 2)), "b": Z((5, 8, 2))},
            {"a": Z((5, 2)), "b": Z((5, 2))},
            None,
            r"same \(num_datasets, num_samples\)",
        ),
        (
            {"a": Z((5, 7, 2)), "a_1": Z((5, 7, 1))},
            {"a": Z((5, 2)), "a_1": Z((5, 1))},
            None,
            "a_1 more than once",
        ),
    ],
)
def test_variables_that_do_not_fit_are_refused(samples, truth, keys, message):
    """Unknown, missing, or unequal variables raise a DataError that names them."""
    with pytest.raises(DataError, match=message):
        flatten_variables(samples, truth, variable_keys=keys)
