"""What is special to each summary network; what all of them promise is in test_summary_contracts.py."""

import json

import numpy as np
import pytest
import torch

from sbi_models import BasicWorkflow, load
from sbi_models.errors import ConfigurationError, DataError
from sbi_models.networks import (
    ConvolutionalNetwork,
    DeepSet,
    FlowMatching,
    FusionNetwork,
    SetTransformer,
    TimeSeriesNetwork,
    TimeSeriesTransformer,
    network_from_json,
)
from sbi_models.networks.layers import MLP
from sbi_models.networks.layers.attention import MultiheadAttention


def rng(seed):
    return torch.Generator().manual_seed(seed)


def built(network, shape):
    """The network, built with random weights in float64."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network.build(shape)
    return network.double()


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=rng(seed), dtype=torch.float64)


@pytest.mark.parametrize("layers", [0, 1, 2, 5])
def test_initial_weights_keep_the_scale(layers):
    """Numbers of unit root mean square keep it, whatever the number of layers."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MLP(100, (256,) * layers, 256).keep_scale().double()
    assert 0.7 < network(normal(500, 100)).square().mean().sqrt() < 1.4


SCALED = {
    "deep_set": (DeepSet, (12, 2)),
    "deep": (lambda: DeepSet(widths=(64,) * 6, head_widths=(64,) * 4), (12, 2)),
    "set_transformer": (SetTransformer, (12, 2)),
    "time_series_network": (TimeSeriesNetwork, (12, 2)),
    "time_series_transformer": (TimeSeriesTransformer, (12, 2)),
    "convolutional_network": (ConvolutionalNetwork, (12, 12, 1)),
}


@pytest.mark.parametrize("name", SCALED)
def test_summaries_of_different_data_differ_before_training(name):
    """Not by a hundredth of an sd, as with weights that make the scale smaller in each layer."""
    make, shape = SCALED[name]
    network = built(make(), shape)
    data = normal(200, *shape) + normal(200, *(1 for _ in shape[1:]), shape[-1], seed=1)
    assert 0.08 < network(data).std(dim=0).mean() < 3


VARIANTS = {
    "inducing points": lambda: SetTransformer(summary_dim=3, width=8, heads=2, inducing_points=3),
    "one seed": lambda: SetTransformer(summary_dim=3, width=8, heads=1, blocks=1, seeds=1, head_widths=()),
    "observation times": lambda: TimeSeriesTransformer(summary_dim=3, width=8, heads=2, time_axis=-1),
    "each step alone": lambda: TimeSeriesTransformer(summary_dim=3, width=8, heads=2, kernel_size=1),
    "wide kernel": lambda: TimeSeriesTransformer(summary_dim=3, width=8, heads=2, kernel_size=5),
    "one direction": lambda: TimeSeriesNetwork(summary_dim=3, widths=(4,), hidden_dim=4, bidirectional=False),
    "no convolution": lambda: TimeSeriesNetwork(summary_dim=3, widths=(), hidden_dim=4),
    "stride": lambda: TimeSeriesNetwork(summary_dim=3, widths=(4, 4), hidden_dim=4, stride=2, kernel_size=5),
    "odd stride": lambda: TimeSeriesNetwork(summary_dim=3, widths=(4,), hidden_dim=4, stride=3),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_options_keep_the_promise_about_masks(variant):
    """With any options a padded input has the summary of the shorter one, and an empty row a finite one."""
    network, x = built(VARIANTS[variant](), (9, 2)), normal(4, 9, 2)
    for size in range(1, 10):
        mask = (torch.arange(9) < size).expand(4, 9)
        torch.testing.assert_close(
            network(x.where(mask[..., None], float("nan")), mask), network(x[:, :size])
        )
    assert network(x, torch.zeros(4, 9, dtype=torch.bool)).isfinite().all()
    network(x).square().sum().backward()
    assert [key for key, parameter in network.named_parameters() if not parameter.grad.abs().max() > 0] == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_options_are_saved(variant):
    """JSON rebuilds a network with these options, its weights fit, and it gives the same summaries."""
    network = built(VARIANTS[variant](), (9, 2))
    rebuilt = network_from_json(json.loads(json.dumps(network.to_json()))).double()
    rebuilt.load_state_dict(network.state_dict())
    assert torch.equal(rebuilt(normal(4, 9, 2)), network(normal(4, 9, 2)))


def test_attention_is_that_of_torch():
    """Multihead attention with the weights of torch.nn.MultiheadAttention has its results, with holes in the
    mask too."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ours, theirs = (
            MultiheadAttention(8, 2).double(),
            torch.nn.MultiheadAttention(8, 2, batch_first=True).double(),
        )
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, torch.zeros(8), ours.value.bias]))
        theirs.out_proj.weight.copy_(ours.out.weight)
        theirs.out_proj.bias.copy_(ours.out.bias)
    queries, elements = normal(4, 3, 8), normal(4, 6, 8, seed=1)
    mask = torch.rand(4, 6, generator=rng(2)) < 0.5
    mask[:, 2] = True
    for present in (None, mask):
        expected = theirs(
            queries,
            elements,
            elements,
            key_padding_mask=None if present is None else ~present,
            need_weights=False,
        )[0]
        torch.testing.assert_close(ours(queries, elements, present), expected)


def test_inducing_points_need_linear_memory():
    """With inducing points no tensor in the attention of 3 000 elements is as large as their pairs."""
    network = built(SetTransformer(width=8, heads=2, inducing_points=4), (3000, 1)).float()
    largest = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: largest.append(tensor.numel()) or tensor, lambda tensor: tensor
    ):
        network(torch.randn(1, 3000, 1, generator=rng(0)))
    assert max(largest) < 3000 * 100


def test_transformers_of_series_keep_the_positions_of_holes():
    """A step that a mask leaves out leaves a gap behind: the summary is not that of the series closed up."""
    network, x = built(TimeSeriesTransformer(summary_dim=3, width=8, heads=2), (6, 2)), normal(4, 6, 2)
    mask = torch.tensor([True, True, False, True, False, True])
    assert (network(x, mask.expand(4, 6)) - network(x[:, mask])).abs().amax(dim=1).min() > 1e-3


def test_recurrent_networks_skip_holes():
    """To the recurrent network a series with holes is the series of the other steps; holes may differ from
    row to row."""
    network, x = built(TimeSeriesNetwork(summary_dim=3, widths=(4, 4), hidden_dim=4), (6, 2)), normal(4, 6, 2)
    mask = torch.rand(4, 6, generator=rng(1)) < 0.5
    mask[:, 3] = True
    for row, present, summary in zip(x, mask, network(x, mask), strict=True):
        torch.testing.assert_close(summary, network(row[present][None])[0])


def test_the_place_of_the_times_does_not_matter_but_the_times_do():
    """Times in the first, last or another feature give the same summary; moved, stretched or exchanged times
    give others."""
    values, times = normal(4, 6, 2), torch.rand(4, 6, 1, generator=rng(1), dtype=torch.float64).cumsum(dim=1)
    network = built(TimeSeriesTransformer(summary_dim=3, width=8, heads=2, time_axis=0), (6, 3))
    summaries = network(torch.cat([times, values], dim=-1))
    for axis, order in (
        (2, (values, times)),
        (-1, (values, times)),
        (1, (values[..., :1], times, values[..., 1:])),
    ):
        same = built(TimeSeriesTransformer(summary_dim=3, width=8, heads=2, time_axis=axis), (6, 3))
        same.load_state_dict(network.state_dict())
        torch.testing.assert_close(same(torch.cat(order, dim=-1)), summaries)
    for other in (times + 0.5, times * 1.5, times.flip(0)):
        assert (network(torch.cat([other, values], dim=-1)) - summaries).abs().amax(dim=1).min() > 1e-4


def test_observations_with_times_have_no_order_without_the_convolution():
    """With kernel_size=1 and times of their own, observations may be stored in any order, and times alone are
    a series too."""
    network = built(
        TimeSeriesTransformer(summary_dim=3, width=8, heads=2, time_axis=1, kernel_size=1), (6, 2)
    )
    x, order = normal(4, 6, 2), torch.randperm(6, generator=rng(1))
    torch.testing.assert_close(network(x[:, order]), network(x))
    events = built(TimeSeriesTransformer(summary_dim=3, width=8, heads=2, time_axis=0), (6, 1))
    assert (events(x[..., :1]) - events(x[..., 1:])).abs().amax(dim=1).min() > 1e-4


@pytest.mark.parametrize(
    "network", [TimeSeriesTransformer(width=8, heads=2), TimeSeriesNetwork(widths=(4,), hidden_dim=4)]
)
def test_series_may_be_longer_than_in_training(network):
    """A series twice as long as the ones that it was built for has a finite summary, another one than its
    first half."""
    series = built(network.clone(), (6, 2))
    x = normal(4, 12, 2)
    assert series(x).isfinite().all()
    assert (series(x) - series(x[:, :6])).abs().amax(dim=1).min() > 1e-3


def test_images_may_be_shifted_but_not_scrambled():
    """A pattern far from the edges may move by whole squares of the last stage without any change; its pixels
    may not be exchanged."""
    network = built(ConvolutionalNetwork(summary_dim=3, widths=(4, 4)), (48, 48, 1))
    pattern = normal(6, 6)

    def image(pattern, row, column):
        x = torch.zeros(1, 48, 48, 1, dtype=torch.float64)
        x[0, row : row + 6, column : column + 6, 0] = pattern
        return network(x)

    centre = image(pattern, 20, 20)
    torch.testing.assert_close(image(pattern, 22, 18), centre)
    for other in (
        image(pattern.flatten()[torch.randperm(36, generator=rng(1))].reshape(6, 6), 20, 20),
        image(pattern, 0, 20),
    ):
        assert (other - centre).abs().max() > 1e-6


def test_images_need_not_be_square_nor_even():
    """Images of any size, one pixel too, and masked ones with holes have finite summaries."""
    for shape in ((1, 1, 1), (5, 9, 3), (8, 3, 2)):
        network, x = built(ConvolutionalNetwork(widths=(4, 4, 4), blocks=2), shape), normal(3, *shape)
        assert network(x).isfinite().all()
        assert network(x, torch.rand(x.shape[:-1], generator=rng(1)) < 0.5).isfinite().all()


FUSION = {
    "y": TimeSeriesNetwork(summary_dim=3, widths=(4,), hidden_dim=4),
    "x": DeepSet(summary_dim=5, widths=(8,), head_widths=()),
}
SHAPES = {"x": (5, 1), "y": (6, 2)}


def test_fusion_uses_every_input_and_every_mask():
    """Another x, another y, or a mask for one of them alone change the summary; masks of None and of True do
    not."""
    network = built(FusionNetwork(FUSION, head_widths=(8,), summary_dim=4), SHAPES)
    assert network.input_names == ("x", "y")
    assert network.built_with == {"input_shape": {"x": [5, 1], "y": [6, 2]}}
    x, y = normal(4, 5, 1), normal(4, 6, 2, seed=1)
    summaries = network({"y": y, "x": x})
    assert summaries.shape == (4, 4)
    half = torch.arange(6) < 3
    for inputs, mask in (
        ({"x": x + 1, "y": y}, None),
        ({"x": x, "y": y + 1}, None),
        ({"x": x, "y": y}, {"x": half[:5].expand(4, 5)}),
        ({"x": x, "y": y}, {"y": half.expand(4, 6)}),
    ):
        assert (network(inputs, mask) - summaries).abs().amax(dim=1).min() > 1e-4
    assert torch.equal(network({"x": x, "y": y}, {}), summaries)
    torch.testing.assert_close(
        network({"x": x, "y": y}, {"x": torch.ones(4, 5, dtype=torch.bool)}), summaries
    )


def test_fusion_survives_a_file_that_sorts_its_keys():
    """JSON with sorted keys, as in files, rebuilds the same network; the backbones given stay unbuilt and are
    not shared."""
    network = built(FusionNetwork(FUSION, summary_dim=4), SHAPES)
    rebuilt = network_from_json(json.loads(json.dumps(network.to_json(), sort_keys=True))).double()
    rebuilt.load_state_dict(network.state_dict())
    inputs = {"x": normal(4, 5, 1), "y": normal(4, 6, 2, seed=1)}
    assert torch.equal(rebuilt(inputs), network(inputs))
    assert all(backbone.built_with is None for backbone in FUSION.values())
    same = DeepSet(widths=(8,))
    twins = built(FusionNetwork({"keys": same, "a.b": same}), {"keys": (5, 1), "a.b": (5, 1)})
    assert not torch.equal(twins.parts[0].features.weight, twins.parts[1].features.weight)


def test_fusion_takes_names_of_networks():
    """A backbone may be a registered name, and images and sets go together."""
    network = built(
        FusionNetwork({"image": "convolutional_network", "x": "deep_set"}), {"image": (6, 6, 1), "x": (5, 1)}
    )
    assert network({"image": normal(2, 6, 6, 1), "x": normal(2, 5, 1)}).shape == (2, 16)


def test_fusion_says_which_variable_does_not_fit():
    """Missing, unknown and misshapen variables are refused by name, and so is a tensor without one."""
    network = FusionNetwork(FUSION)
    with pytest.raises(DataError, match=r"variable 'y' is missing"):
        network.build({"x": (5, 1)})
    with pytest.raises(
        DataError, match=r"Variable 'y': TimeSeriesNetwork.*expected.*\(n, time, features\), got \(n, 6\)"
    ):
        network.build({"x": (5, 1), "y": (6,)})
    network = built(FusionNetwork(FUSION), SHAPES)
    with pytest.raises(
        DataError, match=r"has no backbone for variable 'z'. Did you mean|has no backbone for variable 'z'"
    ):
        network({"x": normal(4, 5, 1), "y": normal(4, 6, 2), "z": normal(4, 2)})
    with pytest.raises(DataError, match="expected a dict of variables x, y, got Tensor"):
        network(normal(4, 5, 1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: SetTransformer(width=10, heads=4),
            "multiple of the number of heads, got width=10 and heads=4",
        ),
        (lambda: SetTransformer(inducing_points=0), "inducing_points of at least 1"),
        (lambda: SetTransformer(dropout=1.0), r"dropout in \[0, 1\), got 1.0"),
        (lambda: TimeSeriesTransformer(kernel_size=2), "odd kernel_size"),
        (lambda: TimeSeriesTransformer(width=0, heads=1), "multiple of the number of heads"),
        (lambda: TimeSeriesTransformer(time_axis=2).build((6, 2)), "index of one of 2 features, got 2"),
        (lambda: TimeSeriesNetwork(kernel_size=4), "odd kernel_size"),
        (lambda: TimeSeriesNetwork(stride=0), "at least 1"),
        (lambda: ConvolutionalNetwork(widths=()), "one or more widths"),
        (
            lambda: TimeSeriesNetwork(stride=4),
            "kernel_size, not below the stride; got kernel_size=3, stride=4",
        ),
        (FusionNetwork, "backbones as a dict of variables to summary networks"),
        (lambda: FusionNetwork([DeepSet()]), "backbones as a dict"),
        (lambda: FusionNetwork({"x": DeepSet}), "backbones as a dict"),
        (lambda: FusionNetwork({"x": FlowMatching()}), "backbones as a dict"),
        (lambda: FusionNetwork({"x": "deep_sett"}), "Did you mean 'deep_set'"),
        (
            lambda: FusionNetwork({"x": FusionNetwork(FUSION)}),
            "networks of one input as backbones, got a FusionNetwork for 'x'",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(make, message):
    """Sizes that do not fit are refused by the constructor, or by build where they concern the data."""
    with pytest.raises(ConfigurationError, match=message):
        make()


def test_dropout_is_for_training_only():
    """Dropout changes summaries while training, from the global random state, and not afterwards."""
    x = normal(4, 6, 2)
    for kind in (SetTransformer, TimeSeriesTransformer):
        network = built(kind(width=8, heads=2, dropout=0.5), (6, 2))
        with torch.random.fork_rng():
            torch.manual_seed(1)
            first = network(x)
            assert not torch.equal(network(x), first)
            torch.manual_seed(1)
            assert torch.equal(network(x), first)
        assert torch.equal(network.eval()(x), network(x))


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        ("set_transformer", (5, 1)),
        (TimeSeriesTransformer(summary_dim=4, width=8, heads=2), (5, 1)),
        (TimeSeriesNetwork(summary_dim=4, widths=(4,), hidden_dim=4), (5,)),
        (ConvolutionalNetwork(summary_dim=4, widths=(4, 4)), (4, 6, 2)),
    ],
    ids=["set", "series", "misshapen", "images"],
)
def test_workflows_train_and_save_them(network, shape, tmp_path):
    """A workflow trains with the network, and the file it saves gives the same draws; inputs without features
    are refused before."""
    rng = np.random.default_rng(0)
    theta = rng.normal(size=(32, 2))
    data = {"theta": theta, "x": rng.normal(theta[:, 0].reshape(-1, *[1] * len(shape)), size=(32, *shape))}
    workflow = BasicWorkflow(
        inference_variables="theta",
        summary_variables="x",
        inference_network=FlowMatching(widths=(8,), steps=2),
        summary_network=network,
        standardize="all",
        seed=1,
    )
    if len(shape) == 1:
        with pytest.raises(
            DataError,
            match=r"TimeSeriesNetwork.*expected variables of shape \(n, time, features\), got \(n, 5\)",
        ):
            workflow.fit_offline(data, epochs=1, batch_size=16)
        return
    workflow.fit_offline(data, epochs=1, batch_size=16)
    draws = workflow.sample(num_samples=3, conditions=data, seed=2)["theta"]
    loaded = load(workflow.approximator.save(tmp_path / "model.safetensors"))
    np.testing.assert_array_equal(loaded.sample(num_samples=3, conditions=data, seed=2)["theta"], draws)
