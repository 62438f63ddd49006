"""What every registered summary network promises."""

import pytest
import torch
from network_contract import (
    SHAPES,
    each,
    every_order,
    every_set,
    every_summary,
    first,
    inputs,
    make,
    mask_of,
    rng,
    small,
)

from sbi_models.errors import DataError


@every_summary
def test_shapes_of_summary_networks(name):
    """summary_dim finite numbers a row, float32, with or without a mask; also for one row."""
    network = make(name)
    assert network.summary_dim == 5
    for n in (1, 7):
        x = inputs(name, n)
        mask = each(lambda x: mask_of(x, torch.arange(1, 8)[: len(x)]), x)
        for summaries in (network(x), network(x, mask)):
            assert summaries.shape == (n, 5)
            assert summaries.isfinite().all()
            assert summaries.dtype == torch.float32


@every_summary
def test_names_of_inputs(name):
    """Networks of several inputs say their names; the others take one tensor."""
    shape = SHAPES.get(name)
    assert make(name, built=False).input_names == (tuple(shape) if isinstance(shape, dict) else ())


@every_summary
def test_shapes_that_cannot_be_summarized_are_refused(name):
    """build refuses one axis too few or too many, and an axis without places, with what was expected, what
    was got, and a cure."""
    shape = SHAPES.get(name, (6, 2))
    for wrong in (lambda shape: shape[:-1], lambda shape: (*shape, 2, 1), lambda shape: (0, *shape[1:])):
        got = {**shape, "y": wrong(shape["y"])} if isinstance(shape, dict) else wrong(shape)
        listed = ", ".join(map(str, got["y"] if isinstance(got, dict) else got))
        with pytest.raises(
            DataError,
            match=rf"expected variables of shape \(n, .*(features|channels)\), got \(n, {listed}\)\. Add ",
        ):
            make(name, built=False).build(got)


@every_summary
def test_masks_of_another_shape_are_refused(name):
    """A mask of fewer or more elements is refused."""
    network, x = make(name), inputs(name)
    for change in (lambda m: m[:, :-1], lambda m: m[..., None], lambda m: m[:1]):
        with pytest.raises(DataError, match="Expected a mask of shape"):
            network(x, each(lambda x, change=change: change(mask_of(x, 6)), x))


@every_summary
def test_a_summary_can_be_learned(name):
    """Sixty steps of Adam bring a summary near the mean and the log spread of each input, leaving less than a
    third of their variance."""
    torch.manual_seed(0)
    network = small(name)
    network.build(SHAPES.get(name, (6, 2)))
    generator = rng(1)
    x = each(
        lambda x: x * torch.randn(128, generator=generator).exp().reshape(-1, *[1] * (x.ndim - 1)) + 1.0,
        inputs(name, 128),
    )
    values = [value.flatten(1) for value in (x.values() if isinstance(x, dict) else [x])]
    target = torch.cat(
        [torch.stack([value.std(dim=1).log(), torch.asinh(value.mean(dim=1))], dim=1) for value in values],
        dim=1,
    )
    target = (target - target.mean(dim=0)) / target.std(dim=0)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = (network(x)[:, : target.shape[1]] - target).square().mean()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1 / 3


@every_set
def test_sets_have_no_order(name):
    """Summaries of a set do not depend on the order of its elements, nor, with a mask, on where they
    stand."""
    network = make(name).double()
    x = torch.randn(4, 6, 2, generator=rng(0), dtype=torch.float64)
    order = torch.randperm(6, generator=rng(1))
    torch.testing.assert_close(network(x[:, order]), network(x))
    mask = torch.tensor([True, True, False, True, False, True]).expand(4, 6)
    torch.testing.assert_close(network(x[:, order], mask[:, order]), network(x, mask))
    assert not torch.any(torch.isclose(network(x), network(x.flip(0))))


@every_order
def test_order_matters_to_series_and_images(name):
    """Other orders of the same steps or pixels have other summaries."""
    network, x = make(name).double(), inputs(name, dtype=torch.float64)
    for reordered in (
        each(lambda x: x.flip(1), x),
        each(lambda x: x.roll(1, dims=1), x),
        each(lambda x: x[:, [0, 2, 1, 3, 5, 4]], x),
    ):
        assert (network(reordered) - network(x)).abs().amax(dim=1).min() > 1e-3


@every_summary
@pytest.mark.parametrize("padding", [0.0, 1e6, float("nan"), float("inf")])
def test_masked_elements_are_not_there(name, padding):
    """An input padded with anything, also with large numbers or NaN, has the summary of the shorter one; a
    mask of True changes nothing."""
    network, x = make(name).double(), inputs(name, dtype=torch.float64)
    for size in (1, 3, 4, 6):
        padded = each(lambda x, size=size: x.where(mask_of(x, size)[..., None], padding), x)
        shorter = network(each(lambda x, size=size: first(x, size), x))
        torch.testing.assert_close(network(padded, each(lambda x, size=size: mask_of(x, size), x)), shorter)
    assert not torch.any(torch.isclose(network(each(lambda x: first(x, 4), x)), network(x)))


@every_summary
def test_what_a_mask_leaves_out_has_no_influence(name):
    """With holes in the mask, values and gradients do not depend on what the holes hold; what is left does
    matter."""
    network, x = make(name).double(), inputs(name, dtype=torch.float64)
    mask = each(lambda x: torch.rand(x.shape[:-1], generator=rng(3)) < 0.6, x)
    other = each(lambda x, m: x.where(m[..., None], float("nan")), x, mask)
    assert torch.equal(network(x, mask), network(other, mask))
    assert (network(each(lambda x: x + 0.1, x), mask) - network(x, mask)).abs().amax(dim=1).min() > 1e-4
    network(other, mask).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@every_summary
def test_rows_where_nothing_is_there(name):
    """A row without any element has a finite summary that depends on nothing, finite gradients, and does not
    disturb its neighbours."""
    network, x = make(name).double(), inputs(name, dtype=torch.float64)
    mask = each(lambda x: mask_of(x, [0, 6, 3, 0]), x)
    summaries = network(each(lambda x, m: x.where(m[..., None], float("nan")), x, mask), mask)
    assert summaries.isfinite().all()
    torch.testing.assert_close(summaries[0], summaries[3])
    nothing = network(each(lambda x: first(x, 2), x), each(lambda x: mask_of(first(x, 2), 0), x))
    torch.testing.assert_close(nothing[0], summaries[0])
    torch.testing.assert_close(summaries[1], network(x)[1])
    assert (summaries[:1] - summaries[1:3]).abs().amax(dim=1).min() > 1e-3
    summaries.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@every_summary
def test_summaries_do_not_depend_on_their_neighbours(name):
    """The summary of a row is the same alone, in company and in any order, with and without a mask."""
    network, x = make(name).double(), inputs(name, dtype=torch.float64)
    mask = each(lambda x: mask_of(x, [2, 6, 1, 4]), x)
    order = [2, 0, 3]
    for masks in (None, mask):
        together = network(x, masks)
        part = None if masks is None else each(lambda m: m[order], masks)
        torch.testing.assert_close(network(each(lambda x: x[order], x), part), together[order])
        alone = None if masks is None else each(lambda m: m[1:2], masks)
        torch.testing.assert_close(network(each(lambda x: x[1:2], x), alone), together[1:2])


@every_set
def test_sets_have_scale_extremes_and_size(name):
    """Sets of equal mean but another scale, maximum or number of elements have other summaries; equal
    elements give finite ones."""
    network = make(name).double()
    sets = torch.tensor(
        [[-1.0, 1.0, -1.0, 1.0], [-2.0, 2.0, -2.0, 2.0], [-3.0, 1.0, 1.0, 1.0]], dtype=torch.float64
    )
    x = sets[..., None].expand(3, 4, 2)
    summaries = network(x)
    assert torch.cdist(summaries, summaries)[torch.triu_indices(3, 3, 1).unbind()].min() > 1e-3
    assert (network(x.repeat(1, 2, 1)) - summaries).abs().max() > 1e-3
    assert network(torch.full((1, 4, 2), 3.0, dtype=torch.float64)).isfinite().all()
