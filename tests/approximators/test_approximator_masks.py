"""Sets of varying length and missing values: masks, raw or made by the adapter."""

import numpy as np
import pytest
import torch

from sbi_models import seeding
from sbi_models.adapters import Adapter
from sbi_models.approximators import ContinuousApproximator, load_approximator
from sbi_models.approximators.summary_inputs import SUMMARY, SummaryInputs
from sbi_models.errors import ConfigurationError, DataError
from sbi_models.networks import DeepSet, FlowMatching, FusionNetwork, SummaryNetwork, TimeSeriesNetwork
from sbi_models.networks.registry import register

ROLES = {"inference_variables": ["theta"], "summary_variables": ["x"]}


def data(n=40, seed=0):
    """theta (n, 2), sets x (n, 6, 1) of which the first `length` elements count, and their mask (n, 6)."""
    rng = seeding.generator(seed, "test data")
    mask = np.arange(6) < rng.integers(1, 7, size=(n, 1))
    return {
        "theta": rng.normal(size=(n, 2)),
        "x": np.where(mask[..., None], 5 + 2 * rng.normal(size=(n, 6, 1)), 1e4),
        "mask": mask,
    }


def approximator(roles=ROLES, adapter=None, summary_network=None, masks=None, built_from=None):
    made = ContinuousApproximator(
        adapter=adapter or Adapter(),
        roles=roles,
        inference_network=FlowMatching(widths=(16, 16), steps=4),
        summary_network=summary_network or DeepSet(summary_dim=3, widths=(8,), head_widths=(8,)),
        standardize=("inference_variables", "summary_variables"),
        masks={"summary_variables": "mask"} if masks is None else masks,
    )
    made.build(data() if built_from is None else built_from, seed=0)
    generator = torch.Generator().manual_seed(0)
    for parameter in made.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return made.eval()


def draws(made, conditions):
    return made.sample(num_samples=5, conditions=conditions, seed=1)["theta"]


def test_padding_does_not_matter():
    """Draws and densities are the same whatever stands in the padding; what counts does matter."""
    made, raw = approximator(), data(8, seed=1)
    other = raw | {"x": np.where(raw["mask"][..., None], raw["x"], -3.0)}
    np.testing.assert_allclose(draws(made, other), draws(made, raw), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(made.log_prob(other), made.log_prob(raw), rtol=1e-5)
    assert not np.isclose(draws(made, raw | {"x": raw["x"] + raw["mask"][..., None]}), draws(made, raw)).any()


def test_moments_are_those_of_the_elements_that_count():
    """Padding has no part in the mean and sd of the elements."""
    raw, made = data(), approximator()
    there = raw["x"][raw["mask"]]
    assert made.standardizer.summary_variables_mean.item() == pytest.approx(there.mean(), rel=1e-12)
    assert made.standardizer.summary_variables_sd.item() == pytest.approx(there.std(), rel=1e-12)


def test_missing_values_are_filled_and_masked_by_the_adapter():
    """NaN in x, filled and masked by nan_to_num, gives the draws of the same set with its mask as a variable;
    inf is refused still."""
    adapter = Adapter().nan_to_num("x", value=-7.0, mask="present")
    raw = data(40)
    with_nan = {"theta": raw["theta"], "x": np.where(raw["mask"][..., None], raw["x"], np.nan)}
    made, expected = (
        approximator(adapter=adapter, masks={"summary_variables": "present"}, built_from=with_nan),
        approximator(),
    )
    np.testing.assert_allclose(draws(made, with_nan), draws(expected, raw), rtol=1e-5, atol=1e-6)
    assert made.condition_names == ("x",)
    with pytest.raises(DataError, match=r"got inf in 1 of 40 rows of variable 'x'"):
        draws(made, with_nan | {"x": np.where(np.arange(40)[:, None, None] == 3, np.inf, with_nan["x"])})
    with pytest.raises(DataError, match=r"got NaN or inf in 1 of 40 rows of variable 'theta'"):
        made.log_prob(with_nan | {"theta": np.where(np.arange(40)[:, None] == 3, np.nan, raw["theta"])})


def test_without_nan_to_num_missing_values_are_refused():
    """NaN that nothing fills is refused, with what a workflow and a YAML file can say as the cure."""
    raw = data()
    with pytest.raises(
        DataError,
        match=r"NaN or inf .* of variable 'x'.*missing=\{'x': 'x_there'\} in a workflow, missing: \{x: ",
    ):
        approximator(
            masks={},
            built_from={"theta": raw["theta"], "x": np.where(raw["mask"][..., None], raw["x"], np.nan)},
        )


def test_masks_are_saved(tmp_path):
    """A loaded approximator masks as the saved one does."""
    made = approximator()
    loaded = load_approximator(made.save(tmp_path / "model"))
    np.testing.assert_array_equal(draws(loaded, data(8, seed=1)), draws(made, data(8, seed=1)))


@pytest.mark.parametrize(
    ("masks", "change", "error", "message"),
    [
        (
            {"x": "mask"},
            {},
            ConfigurationError,
            r"no summary input 'x' for the mask 'mask'. .*summary_variables",
        ),
        ({"summary_variables": "maks"}, {}, DataError, r"'maks' is missing in the data. Did you mean 'mask'"),
        (
            {"summary_variables": "mask"},
            {"mask": np.ones((40, 5))},
            DataError,
            r"mask 'mask' of shape \(40, 6\), .* got \(40, 5\)",
        ),
    ],
)
def test_masks_that_do_not_fit_are_refused(masks, change, error, message):
    """A mask of an unknown input, a missing one and one of another length are refused before any training."""
    with pytest.raises(error, match=message):
        approximator(masks=masks, built_from=data() | change)


@register("test_two_inputs")
class TwoInputs(SummaryNetwork):
    """Means of the elements that count, of two inputs."""

    summary_dim = 2
    input_names = ("x", "y")

    def _build(self, input_shape):
        assert input_shape == {"x": (6, 1), "y": (4,)}
        self.scale = torch.nn.Parameter(torch.ones(2))

    def forward(self, x, mask=None):
        there = torch.ones_like(x["x"][..., 0], dtype=torch.bool) if mask is None else mask["x"]
        mean = torch.where(there[..., None], x["x"], 0.0).sum(dim=(1, 2)) / there.sum(dim=1)
        return self.scale * torch.stack([mean, x["y"].mean(dim=1)], dim=1)


def test_a_summary_network_may_take_several_inputs(tmp_path):
    """A network with input_names gets a dict of standardized inputs and of masks; its approximator is saved
    and loaded to the bit."""
    raw = data() | {"y": 100 + seeding.generator(3).normal(size=(40, 4))}
    roles = ROLES | {"summary_variables": ["x", "y"]}
    made = approximator(roles, summary_network=TwoInputs(), masks={"x": "mask"}, built_from=raw)
    prepared = made.prepare(raw)
    there = prepared["summary_variables/x"][prepared["mask of summary_variables/x"]]
    assert there.mean().item() == pytest.approx(0.0, abs=1e-6)
    assert prepared["summary_variables/y"].std(correction=0, dim=0) == pytest.approx(1.0, rel=1e-5)
    assert not np.isclose(draws(made, raw | {"y": raw["y"] + 1}), draws(made, raw)).any()
    loaded = load_approximator(made.save(tmp_path / "model"))
    np.testing.assert_array_equal(draws(loaded, raw), draws(made, raw))
    with pytest.raises(
        ConfigurationError, match=r"The summary network takes 'y', which the adapter does not give"
    ):
        approximator(
            roles, summary_network=TwoInputs(), adapter=Adapter().drop("y"), masks={}, built_from=raw
        )


def test_sets_series_and_masks_are_fused(tmp_path):
    """A fusion of a set and a series with missing values: padding of either does not matter, each of them
    does, files hold it all."""
    raw = data() | {"y": seeding.generator(4).normal(size=(40, 5, 2))}
    raw["y"][3:9, 1:3, 0] = np.nan
    made = approximator(
        ROLES | {"summary_variables": ["x", "y"]},
        adapter=Adapter().nan_to_num("y", value=1e3, mask="y_there"),
        summary_network=FusionNetwork(
            {"x": DeepSet(summary_dim=3, widths=(8,)), "y": TimeSeriesNetwork(widths=(8,), hidden_dim=4)}
        ),
        masks={"x": "mask", "y": "y_there"},
        built_from=raw,
    )
    expected = draws(made, raw)
    other = raw | {"x": np.where(raw["mask"][..., None], raw["x"], -3.0), "y": raw["y"].copy()}
    other["y"][3:9, 1:3, 1] = 77.0  # a step of which one feature is missing does not count
    np.testing.assert_allclose(draws(made, other), expected, rtol=1e-5, atol=1e-6)
    for name in ("x", "y"):
        assert np.isclose(draws(made, raw | {name: raw[name] + 0.5}), expected).mean() < 0.02
    loaded = load_approximator(made.save(tmp_path / "model"))
    np.testing.assert_array_equal(draws(loaded, raw), expected)


def summary_inputs(masks=None):
    return SummaryInputs(DeepSet(summary_dim=3, widths=(8,), head_widths=(8,)), masks or {})


def test_elements_count_whose_mask_is_above_one_half():
    """One half and less is padding; a mask has one axis of elements unless data of any length say more."""
    inputs = summary_inputs({SUMMARY: "mask"})
    assert inputs.axes == {SUMMARY: 1}
    adapted = {SUMMARY: torch.zeros(2, 3, 1), "mask": torch.tensor([[0.0, 0.5, 1.0], [0.5001, 0.4999, 1.0]])}
    _, masks = inputs.of(adapted)
    assert masks[SUMMARY].tolist() == [[False, False, True], [True, False, True]]


def test_variables_of_any_length_that_are_joined_have_the_same_lengths():
    """Their common mask is that of each; other lengths in one data set are refused."""
    inputs = summary_inputs()
    inputs.allow_any_length({"a": 1, "b": 1}, {SUMMARY: ["a", "b"]}, DeepSet())
    there = torch.tensor([[True, True, False], [True, True, True]])
    adapted = {SUMMARY: torch.zeros(2, 3, 2)}
    _, masks = inputs.of(adapted, {"a": there, "b": there.clone()})
    assert torch.equal(masks[SUMMARY], there)
    with pytest.raises(DataError, match="'a' and 'b' of the same length in each data set"):
        inputs.of(adapted, {"a": there, "b": torch.ones(2, 3, dtype=torch.bool)})
