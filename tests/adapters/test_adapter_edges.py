"""Edges of transforms: defaults in files, ends of ranges, one component at fault, parts of other shapes."""

import inspect
import re

import pytest
import torch
from test_adapter_supports import WithSupport, full
from torch.distributions import TransformedDistribution, Uniform, constraints
from torch.distributions.transforms import Transform as Map
from transform_cases import normal

from sbi_models.adapters import Adapter
from sbi_models.adapters.transforms import KINDS, transform_from_json
from sbi_models.errors import ConfigurationError, DataError

A = Adapter()


@pytest.mark.parametrize("kind", ["constrain", "nan_to_num", "standardize", "subsample"])
def test_a_step_of_a_file_without_a_setting_has_the_default_of_the_adapter(kind):
    """What a file leaves out is what `Adapter` documents as its default."""
    documented = inspect.signature(getattr(Adapter, kind)).parameters
    own = inspect.signature(KINDS[kind]).parameters
    shared = [
        name for name in own if name in documented and documented[name].default is not inspect.Parameter.empty
    ]
    shared = [name for name in shared if (kind, name) != ("constrain", "scale")]  # None there: chosen by `to`
    assert shared
    assert {name: own[name].default for name in shared} == {name: documented[name].default for name in shared}


def test_a_missing_value_becomes_zero_by_default():
    """NaN is replaced by 0, from a file that names no number, too."""
    x = torch.tensor([[1.0], [torch.nan]])
    for step in (
        A.nan_to_num("x"),
        A.then(transform_from_json({"kind": "nan_to_num", "config": {"name": "x"}})),
    ):
        assert step.forward({"x": x})["x"].tolist() == [[1.0], [0.0]]


def test_a_proportion_of_zero_is_refused():
    """A row whose proportions sum to 1 with a zero has no image, and is named."""
    rows = torch.tensor([[0.2, 0.3, 0.5], [0.0, 0.4, 0.6]])
    with pytest.raises(DataError, match=r"greater than 0.0 .*got 1 of 2 rows"):
        A.constrain("x", to="simplex").forward({"x": rows})


def test_a_subset_of_a_file_without_a_seed_is_that_of_seed_0():
    """So is the one of `Adapter.subsample`; another seed chooses other elements."""
    x = {"x": torch.arange(40.0).reshape(1, 40)}
    of_file = transform_from_json({"kind": "subsample", "config": {"names": ["x"], "size": 8}})
    first = A.subsample("x", size=8, seed=0).fitted(x).forward(x)["x"]
    assert torch.equal(A.then(of_file).fitted(x).forward(x)["x"], first)
    assert torch.equal(A.subsample("x", size=8).fitted(x).forward(x)["x"], first)
    assert not torch.equal(A.subsample("x", size=8, seed=1).fitted(x).forward(x)["x"], first)


def test_a_component_of_zeros_keeps_an_sd_of_one():
    """Standardizing is the identity there, beside a component that varies."""
    x = torch.tensor([[0.0, 1.0], [0.0, 3.0]])
    adapter = A.standardize("x").fitted({"x": x})
    assert adapter.forward({"x": x})["x"].tolist() == [[0.0, -1.0], [0.0, 1.0]]
    assert adapter.forward({"x": torch.full((1, 2), 2.0)})["x"].tolist() == [[2.0, 0.0]]


def test_counts_go_up_to_the_largest_whole_number_that_float32_holds():
    """2^24 is a bound, and a value, that is taken; 2^24 + 1, which float32 rounds, is refused."""
    assert int(torch.tensor(2**24 + 1).float()) != 2**24 + 1
    largest = torch.tensor([[float(2**24)]])
    assert torch.equal(A.as_count("x", upper=2**24).forward({"x": largest})["x"], largest)
    with pytest.raises(ConfigurationError, match="from 1 to 16777216"):
        A.as_count("x", upper=2**24 + 1)


@pytest.mark.parametrize(("number", "shown"), [(5, "0, 1, 2, 3, 4 "), (6, "0, 1, 2, 3, 4, ... ")])
def test_the_message_of_an_unknown_category_lists_up_to_five(number, shown):
    """Dots stand for the rest, and only where there is one."""
    known = {"x": torch.arange(float(number))[:, None]}
    adapter = A.as_categorical("x").fitted(known)
    with pytest.raises(DataError, match=re.escape(f"{number} categories {shown}(adapter")):
        adapter.forward({"x": torch.tensor([[0.5]])})


def test_variables_without_a_last_axis_are_not_joined():
    """One number a row, shape (n,), has no axis to join along, whatever the other variable has."""
    batch = {"a": torch.zeros(4), "b": torch.zeros(4, 3)}
    with pytest.raises(DataError, match="differ in their last axis only"):
        A.concatenate(["a", "b"], into="c").fitted(batch)


@pytest.mark.parametrize("component", [0, 1])
@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
def test_moments_of_one_component_without_finite_values_are_refused(component, bad):
    """One bad component of two is refused, though the other has moments."""
    x = normal(2)
    x[:, component] = bad
    with pytest.raises(DataError, match=r"finite values of 'x' to compute moments"):
        A.standardize("x").fitted({"x": x})


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("adapter", [A.scale("x", by=[1.0, 2.0]), A.shift("x", by=[1.0, 2.0])])
def test_numbers_of_each_component_do_not_broadcast_over_another_width(adapter, width):
    """Two numbers neither fit three components nor widen a single one."""
    with pytest.raises(DataError, match=rf"one number for each of the {width} components of 'x'"):
        adapter.forward({"x": normal(width)})


@pytest.mark.parametrize(
    "adapter", [A.squeeze("x", axis=1), A.expand_dims("x", axis=4), A.squeeze("x", axis=2)]
)
def test_an_axis_that_is_not_there_is_refused_when_the_adapter_is_fitted(adapter):
    """Fitting refuses the axis already, before a training begins."""
    with pytest.raises(DataError, match="axis"):
        adapter.fitted({"x": normal(5)})


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_stack_of_a_vector_of_intervals_and_one_interval_has_the_bounds_of_both(order):
    """The narrower part counts for all elements of the wider, whichever comes first."""
    wide = constraints.interval(full(0.0, 0.0), full(1.0, 1.0))
    parts = [(wide, (0.0, 1.0)), (constraints.interval(full(-3.0), full(5.0)), (-3.0, 5.0))]
    chosen = [parts[place] for place in order]
    prior = WithSupport(constraints.stack([part for part, _ in chosen], dim=-1))
    settings = A.constrain("x", prior=prior).transforms[0].config()
    assert (settings["lower"], settings["upper"]) == tuple(
        list(both) for both in zip(*(ends for _, ends in chosen), strict=True)
    )


def test_bounds_keep_all_digits_of_the_numbers_that_a_prior_was_made_of():
    """Bounds of 0.1 and 0.7 are those numbers, and not the float32 next to them."""
    settings = A.constrain("x", prior=WithSupport(constraints.interval(0.1, 0.7))).transforms[0].config()
    assert (settings["lower"], settings["upper"]) == (0.1, 0.7)


class Fold(Map):
    """x^2 of a user, who says that it is not one-to-one and gives the sign of one half."""

    domain, codomain, bijective, sign = constraints.real, constraints.nonnegative, False, 1

    def _call(self, x):
        return x.square()


def test_a_map_that_is_not_one_to_one_has_the_support_of_its_values():
    """Ends of the support go through maps that are one-to-one only: x^2 of x in (-2, 3) is not in (4, 9)."""
    prior = TransformedDistribution(Uniform(full(-2.0), full(3.0)), [Fold()])
    settings = A.constrain("x", prior=prior).transforms[0].config()
    assert (settings["lower"], settings["upper"]) == (0.0, None)
