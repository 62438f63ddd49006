"""What an adapter refuses, and what it says."""

import pytest
import torch
from transform_cases import normal, proportions

from sbi_models.adapters import Adapter
from sbi_models.errors import ConfigurationError, DataError, ModelFileError, NotFittedError

A = Adapter()
RAW = {"theta": normal(3), "x": normal(5, 1), "k": torch.zeros(6, 1)}


@pytest.mark.parametrize(
    "adapter",
    [
        *(
            A.rename("thetta", to="y"),
            A.keep(["x", "thetta"]),
            A.drop("thetta"),
            A.concatenate(["thetta"], into="y"),
        ),
        *(
            A.split("thetta", into=["a", "b"]),
            A.constrain("thetta", lower=0),
            A.constrain("thetta", to="simplex"),
            A.log("thetta"),
        ),
        *(
            A.constrain("thetta", to="ordered"),
            A.sqrt("thetta"),
            A.scale("thetta", by=1),
            A.shift("thetta", by=1),
            A.as_set("thetta"),
        ),
        *(
            A.standardize("thetta"),
            A.one_hot("thetta", num_classes=2),
            A.broadcast("thetta", to="x"),
            A.nan_to_num("thetta"),
        ),
        *(A.expand_dims("thetta", axis=1), A.squeeze("thetta", axis=1), A.as_time_series("thetta")),
        A.subsample("thetta", size=1),
    ],
    ids=lambda adapter: adapter.transforms[0].kind,
)
def test_unknown_variables_are_named_with_a_suggestion(adapter):
    """Fitting any step to data without its variable says which one, and the nearest there is."""
    with pytest.raises(DataError, match=r"'thetta' \(.+\) is not in the data. Did you mean 'theta'\?"):
        adapter.fitted(RAW)


@pytest.mark.parametrize(
    ("adapter", "raw", "message"),
    [
        (
            A.constrain("x", lower=0),
            [[1.0], [0.0], [-3.0]],
            r"'x' greater than its lower bound 0.0, got 2 of 3 rows.*\(first row 1.*bound in",
        ),
        (
            A.constrain("x", upper=[1, 2]),
            [[0.0, 2.5]],
            r"'x' less than its upper bound \[1.0, 2.0\], got 1 of 1 rows.*instance 2.5",
        ),
        (
            A.constrain("x", lower=0, upper=1),
            [[0.5], [1.0]],
            r"less than its upper bound 1.0, got 1 of 2 rows",
        ),
        (A.constrain("x", lower=0), [[torch.nan]], r"lower bound 0.0, got 1 of 1 rows outside.*nan"),
        (A.log("x"), [[0.0]], r"'x' greater than 0.0 \(adapter.log\).*shift the variable"),
        (A.sqrt("x"), [[-1.0]], r"'x' at least 0.0 \(adapter.sqrt\)"),
        (
            A.constrain("x", to="simplex"),
            [[0.5, 0.6]],
            r"'x' to sum to 1 along the last axis.*instance 1.1.*Normalize",
        ),
        (A.constrain("x", to="simplex"), [[1.5, -0.5]], r"'x' greater than 0.0"),
        (A.constrain("x", to="simplex"), [[1.0]], r"two or more proportions"),
        (A.constrain("x", to="ordered"), [[1.0, 1.0]], r"'x' greater than the component before it.*Sort"),
        (A.one_hot("x", num_classes=3), [[3.0]], r"'x' a class 0 ... 2.*larger num_classes"),
        (A.one_hot("x", num_classes=3), [[0.5]], r"'x' a class"),
        (
            A.constrain("x", lower=[0, 1, 2]),
            [[1.0, 2.0]],
            r"lower with one number for each of the 2 components of 'x', shape \(1, 2\), got 3",
        ),
        (A.scale("x", by=[1, 2]), [[1.0]], r"scale by with one number for each of the 1 components"),
        (
            A.split("x", into=["a", "b"], widths=[1, 1]),
            [[1.0, 2.0, 3.0]],
            r"widths \[1, 1\], got shape \(1, 3\)",
        ),
        (A.split("x", into=["a", "b"]), [[1.0, 2.0, 3.0]], r"add up to the last axis"),
        (A.squeeze("x", axis=-1), [[1.0]], r"another axis after that of the rows"),
        (A.squeeze("x", axis=2), [[1.0]], r"Expected an axis after that of the rows in squeeze of 'x'"),
        (A.expand_dims("x", axis=-3), [[1.0]], r"Expected an axis after that of the rows"),
        (A.as_set("x"), [[[[1.0]]]], r"\(n, length\) or \(n, length, features\)"),
        (
            A.subsample("x", size=3),
            [[1.0, 2.0]],
            r"at least the 3 elements to keep along axis 1, got 2. Give a smaller",
        ),
        (A.subsample("x", size=1), [1.0], r"axis of elements after that of the rows, got shape \(1,\)"),
        (A.standardize("x"), [[torch.inf]], r"finite values of 'x' to compute moments"),
    ],
)
def test_values_and_shapes_that_do_not_fit_are_refused(adapter, raw, message):
    """The message names the variable, what was expected of it, how many rows are at fault, and a cure."""
    with pytest.raises(DataError, match=message):
        adapter.fitted({"x": torch.tensor(raw, dtype=torch.float64)})


def test_new_data_are_checked_like_training_data():
    """A fitted adapter refuses values outside the support, and a batch with a part of what it joins."""
    raw = {"a": normal(1).exp(), "b": normal(1)}
    adapter = A.constrain("a", lower=0).concatenate(["a", "b"], into="y").fitted(raw)
    with pytest.raises(DataError, match=r"'a' greater than its lower bound 0.0, got 6 of 6 rows"):
        adapter.log_abs_det(raw | {"a": -raw["a"]}, "y")
    with pytest.raises(
        DataError, match=r"all or none of 'a', 'b' \(joined into 'y'\), got \['a'\] without 'b'. Add 'b'"
    ):
        adapter.forward({"a": raw["a"]})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: A.constrain("x"), "Give lower= or upper="),
        (lambda: A.constrain("x", lower=1, upper=1), "lower < upper"),
        (lambda: A.constrain("x", lower=[0, 2], upper=1), "lower < upper"),
        (lambda: A.constrain("x", lower=-1e308, upper=1e308), "lower < upper"),
        (lambda: A.constrain("x", lower="0"), "Expected lower as a number"),
        (lambda: A.constrain("x", lower=[0, 1], upper=[2, 3, 4]), "as many lower as upper"),
        (lambda: A.constrain("x", to="simplx"), "Did you mean 'simplex'"),
        (lambda: A.constrain("x", to="ordered", lower=0), "no bounds with to='ordered'"),
        (lambda: A.scale("x", by=0), "other than 0"),
        (lambda: A.scale("x", by=[1, float("nan")]), "finite number"),
        (lambda: A.shift("x", by=None), "finite number"),
        (lambda: A.standardize("x", sd=-1), "positive sd"),
        (lambda: A.one_hot("x", num_classes=1), "at least 2"),
        (lambda: A.expand_dims("x", axis=0), "other than 0"),
        (lambda: A.split("x", into=["a", "a"]), "different variables"),
        (lambda: A.split("x", into=["a", "b"], widths=[1]), "one positive width"),
        (lambda: A.rename("x", to="x"), "got the same"),
        (lambda: A.broadcast("x", to="x"), "got itself"),
        (lambda: A.nan_to_num("x", mask="x"), "another name for the mask"),
        (lambda: A.subsample("x", size=0), "number of elements"),
        (lambda: A.subsample("x", size=1.5), "number of elements"),
        (lambda: A.subsample("x", size=True), "number of elements"),
        (lambda: A.subsample("x", size=2, seed=-1), "non-negative integer"),
        (lambda: A.log([]), "one or more different variables"),
        (lambda: A.log(3), "one or more different variables"),
        (lambda: A.then("log"), "Expected a Transform"),
    ],
)
def test_settings_that_make_no_sense_are_refused_at_once(make, message):
    """A wrong argument is refused when the step is added, not when data come."""
    with pytest.raises(ConfigurationError, match=message):
        make()


def test_misspelt_keywords_are_refused():
    """An option that does not exist is an error, in calls and in files."""
    with pytest.raises(ConfigurationError, match=r"no argument .lowr.. Did you mean .lower."):
        A.constrain("x", lowr=0)
    entries = A.constrain("x", lower=0).to_json()
    entries[0]["config"]["lowr"] = 0
    with pytest.raises(
        ModelFileError, match=r"'constrain' an unknown argument 'lowr'. Did you mean 'lower'\?"
    ):
        Adapter.from_json(entries)


@pytest.mark.parametrize(
    "adapter",
    [
        A.rename("theta", to="x"),
        A.concatenate(["theta"], into="x"),
        A.split("theta", into=["x", "k", "z"]),
        A.nan_to_num("theta", mask="x"),
    ],
)
def test_a_step_does_not_overwrite_a_variable(adapter):
    """A new variable of a name that is taken is refused."""
    with pytest.raises(DataError, match=r"'x'.*Choose another name"):
        adapter.fitted(RAW)


@pytest.mark.parametrize(
    "adapter",
    [A.standardize("x"), A.broadcast("x", to="y"), A.split("x", into=["a", "b"]), A.subsample("x", size=1)],
)
def test_an_adapter_that_must_learn_says_so(adapter):
    """Use before fitting is an error with a cure, where a step has something to learn."""
    with pytest.raises(NotFittedError, match=r"Call fitted\(batch\)"):
        adapter.forward({"x": normal(2)})


@pytest.mark.parametrize(
    "adapter", [A.as_set("x"), A.concatenate(["a", "b"], into="x"), A.broadcast("x", to="y")]
)
def test_an_adapter_that_must_learn_says_so_on_the_way_back(adapter):
    """The same for inverse."""
    with pytest.raises(NotFittedError, match=r"Call fitted\(batch\)"):
        adapter.inverse({"x": normal(2)})


@pytest.mark.parametrize(
    "adapter",
    [
        A.one_hot("k", num_classes=2),
        A.broadcast("k", to="x"),
        A.nan_to_num("k", mask="m").concatenate(["k", "m"], into="y"),
    ],
)
def test_no_density_goes_through_a_step_that_is_no_bijection(adapter):
    """The log determinant of such a variable is refused by name of the step; those of other variables are not
    affected."""
    fitted = adapter.fitted(RAW)
    name = "y" if len(adapter.transforms) > 1 else "k"
    with pytest.raises(
        ConfigurationError,
        match=f"'{name}' has no density: .* {adapter.transforms[0].kind}, which is no bijection",
    ):
        fitted.log_abs_det(RAW, name)
    assert torch.equal(fitted.log_abs_det(RAW, "theta"), torch.zeros(6, dtype=torch.float64))


def test_infinite_densities_are_refused():
    """The root of a count of 0 is a fine condition, but has no finite density; an unknown variable has none
    at all."""
    adapter = A.sqrt("k").fitted(RAW)
    assert torch.equal(adapter.forward(RAW)["k"], torch.zeros(6, 1))
    assert torch.equal(adapter.log_abs_det(RAW, "theta"), torch.zeros(6, dtype=torch.float64))
    with pytest.raises(DataError, match="not finite in 6 of 6 rows"):
        adapter.log_abs_det(RAW, "k")
    with pytest.raises(DataError, match="Did you mean 'theta'"):
        adapter.log_abs_det(RAW, "thetta")


def test_roles_that_no_step_makes_are_concatenated():
    """route() adds what is missing and leaves alone the roles that a step has made, whatever its kind."""
    roles = {"inference_variables": ["p"], "inference_conditions": ["theta"], "summary_variables": ["x"]}
    adapter = (
        A.rename("p", to="inference_variables").constrain("inference_variables", to="simplex").route(roles)
    )
    assert [t.kind for t in adapter.transforms] == ["rename", "simplex", "concatenate", "concatenate"]
    assert adapter.route(roles).to_json() == adapter.to_json()
    raw = {"p": proportions(3), **RAW}
    assert tuple(adapter.fitted(raw).forward(raw)["inference_variables"].shape) == (6, 2)
