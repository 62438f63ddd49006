"""Which simulations each member sees, recorded while it trains."""

from itertools import chain, combinations, pairwise

import numpy as np
import pytest
from linear_gaussian import ensemble

from sbi_models import make_simulator
from sbi_models.approximators import ContinuousApproximator
from sbi_models.datasets import SimulationFiles
from sbi_models.errors import ConfigurationError, DataError
from sbi_models.simulators import FailurePolicy, Simulator

pytestmark = pytest.mark.filterwarnings("ignore:.*it has whole numbers only:sbi_models.errors.TrustWarning")

REUSE = pytest.mark.parametrize("reuse", [0, 0.8, 1.0])
MEMBERS = pytest.mark.parametrize("members", [2, 3])
WITH_AUGMENTATIONS = pytest.mark.parametrize(  # each reuse, and each number of members, with and without
    ("reuse", "members", "augmented"),
    [(0, 2, False), (0, 3, True), (0.8, 2, True), (0.8, 3, False), (1.0, 2, False), (1.0, 3, True)],
)


def data(n):
    """Simulations whose first parameter is the number of their row."""
    rng = np.random.default_rng(0)
    theta = np.stack([np.arange(n), rng.normal(size=n)], axis=1)
    return {"theta": theta, "x": rng.normal(size=(n, 2))}


@pytest.fixture
def seen(monkeypatch):
    """For each member, the rows of each of its batches, by the first parameter, which is standardized as a
    whole number of the rows."""
    batches, plain = {}, ContinuousApproximator.loss

    def spied(self, prepared, generator=None):
        theta = self.standardizer.inverse("inference_variables", prepared["inference_variables"].double())[
            :, 0
        ]
        batches.setdefault(id(self), []).append(theta.round().long().tolist())
        return plain(self, prepared, generator)

    monkeypatch.setattr(ContinuousApproximator, "loss", spied)
    return batches


def by_member(seen, made):
    return [seen[id(member)] for member in made.approximator.members.values()]


def window(n, members, reuse):
    """ceil(N / f) by hand."""
    return {(0, 2): -(-n // 2), (0, 3): -(-n // 3), (0.8, 2): -(-n * 10 // 12), (0.8, 3): -(-n * 10 // 14)}[
        reuse, members
    ]


def check_windows(epochs, n, members, reuse):
    """`epochs`: for each member, the rows of each epoch. The share in common is that of the formula, and
    every epoch has the same rows."""
    rows = [set(of_member[0]) for of_member in epochs]
    for of_member, own in zip(epochs, rows, strict=True):
        assert all(sorted(epoch) == sorted(own) for epoch in of_member)  # each row once
    assert set().union(*rows) == set(range(n))
    if reuse == 1:
        assert all(own == set(range(n)) for own in rows)
    elif reuse == 0:
        assert sum(map(len, rows)) == n
        assert max(map(len, rows)) == window(n, members, 0)
        assert max(map(len, rows)) - min(map(len, rows)) <= 1
    else:
        w = window(n, members, reuse)
        assert all(len(own) == w for own in rows)
        starts = [round(k * n / members) for k in range(members)]
        ring = [{(start + i) % n for i in range(w)} for start in starts]
        for a, b in combinations(range(members), 2):
            assert len(rows[a] & rows[b]) == len(ring[a] & ring[b])
        assert all(max(own) - min(own) > w for own in rows)  # shuffled: no window is a run of the file


def epochs_of(batches, per_epoch):
    return [list(chain(*batches[i : i + per_epoch])) for i in range(0, len(batches), per_epoch)]


@WITH_AUGMENTATIONS
def test_offline(seen, members, reuse, augmented):
    """Each member trains on its window of the shuffled data, in an order of its own in each epoch; at reuse 1
    all have the same batches."""
    made = ensemble(ensemble_size=members)
    same = {"x": lambda x: x} if augmented else None
    made.fit_offline(data(100), epochs=2, batch_size=8, data_reuse=reuse, augmentations=same)
    batches = by_member(seen, made)
    rows = 100 if reuse == 1 else window(100, members, reuse)
    check_windows([epochs_of(b, -(-rows // 8)) for b in batches], 100, members, reuse)
    for of_member in batches:
        own = len(epochs_of(of_member, -(-rows // 8))[0])
        assert [len(batch) for batch in of_member] == 2 * ([8] * (own // 8) + ([own % 8] if own % 8 else []))
    if reuse == 1:
        assert batches[0] == batches[1]
    else:
        first, second = epochs_of(batches[0], -(-rows // 8))
        assert first != second
        assert first != sorted(first)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder with 100 simulations in 7 files, of which 3 are in memory at a time, and the numbers of the
    files that are read."""
    rows, reads, plain = data(100), [], SimulationFiles.read
    for k, part in enumerate(np.array_split(np.arange(100), 7)):
        np.savez(tmp_path / f"{k}.npz", **{name: value[part] for name, value in rows.items()})

    def spied(self, numbers):
        reads.extend(numbers)
        return plain(self, numbers)

    monkeypatch.setattr(SimulationFiles, "read", spied)
    monkeypatch.setattr("sbi_models.datasets.disk._ROWS_IN_MEMORY", 40)
    return tmp_path, reads


@WITH_AUGMENTATIONS
def test_disk(seen, files, members, reuse, augmented):
    """Members have windows of the rows, whichever files they are in, and each file is read once an epoch."""
    folder, reads = files
    made = ensemble(ensemble_size=members)
    same = (lambda batch: batch) if augmented else None
    made.fit_disk(folder, pattern="*.npz", epochs=3, batch_size=8, data_reuse=reuse, augmentations=same)
    batches = by_member(seen, made)
    own = 100 if reuse == 1 else window(100, members, reuse)
    check_windows([_by_rows(b, 3) for b in batches], 100, members, reuse)
    assert max(len(b) for b in batches) == 3 * -(-own // 8)
    if reuse < 1:
        assert batches[0] != batches[1]
        assert _by_rows(batches[0], 3)[0] != _by_rows(batches[0], 3)[1]
    assert len(reads) == 7 * 5  # once for the moments, and once for certificates
    assert all(sorted(reads[k : k + 7]) == list(range(7)) for k in range(0, 35, 7))


def _by_rows(batches, epochs):
    """Batches of a member by epoch: each epoch has the same number of them."""
    assert len(batches) % epochs == 0
    return epochs_of(batches, len(batches) // epochs)


@REUSE
@MEMBERS
def test_online(seen, members, reuse):
    """A step simulates ceil(f B) rows once, and members have the neighbours on this ring that the formula
    gives; no row comes twice."""
    asked = []

    class Rows(Simulator):
        def rows(self, start, stop, *, seed, **arguments):
            asked.append((seed, start, stop))
            return {name: value[start:stop] for name, value in data(20_000).items()}

    made = ensemble(ensemble_size=members, simulator=Rows([lambda rng: {"theta": rng.normal(size=2)}]))
    made.fit_online(epochs=2, num_batches_per_epoch=3, batch_size=32, data_reuse=reuse)
    pool = {(0, 2): 64, (0, 3): 96, (0.8, 2): 39, (0.8, 3): 45, (1.0, 2): 32, (1.0, 3): 32}[reuse, members]
    table = asked[-2][0]  # the others are for the moments and, last, for certificates
    asked = sorted((start, stop) for seed, start, stop in asked if seed == table)
    assert asked[0][0] == 0
    assert asked[-1][1] == 6 * pool
    assert all(stop == start for (_, stop), (start, _) in pairwise(asked))
    steps = list(zip(*by_member(seen, made), strict=True))
    assert len(steps) == 6
    for step, batches in enumerate(steps):
        expected = [
            [(round(k * pool / members) + i) % pool + step * pool for i in range(32)] for k in range(members)
        ]
        if reuse == 1:
            assert all(batch == list(range(step * 32, step * 32 + 32)) for batch in batches)
        else:
            assert [list(batch) for batch in batches] == expected
        common = [len(set(a) & set(b)) for a, b in combinations(batches, 2)]
        if members == 2:
            assert common == [{0: 0, 0.8: 25, 1.0: 32}[reuse]]
        assert reuse > 0 or common == [0] * len(common)


@pytest.mark.parametrize("reuse", [-0.1, 1.1, float("nan"), "0.5", None, True, [0.5]])
@pytest.mark.parametrize("fit", ["fit_offline", "fit_online", "fit_disk"])
def test_a_reuse_outside_of_0_to_1_is_refused(fit, reuse, tmp_path):
    """data_reuse is a number from 0 to 1, and anything else an error before any work."""
    own = {"fit_offline": {"data": data(40)}, "fit_online": {}, "fit_disk": {"root": tmp_path}}[fit]
    with pytest.raises(ConfigurationError, match="data_reuse as a number from 0"):
        getattr(ensemble(), fit)(data_reuse=reuse, **own)


def test_too_few_simulations_are_said_so():
    """A batch larger than what a member has, and fewer simulations than members, are errors."""
    with pytest.raises(DataError, match="at most the 20 simulations that a member has of the 40"):
        ensemble().fit_offline(data(40), batch_size=21, data_reuse=0)
    with pytest.raises(DataError, match="at least one simulation for each of 5 members, got 4"):
        ensemble(ensemble_size=5).fit_offline(data(4), batch_size=1, data_reuse=0)


def test_unequal_windows_lose_no_row(seen):
    """Where one member has a row more than fills a batch, the others sit that step out, and the training goes
    on."""
    made = ensemble(ensemble_size=3, early_stopping=None)
    history = made.fit_offline(data(97), epochs=2, batch_size=8, data_reuse=0)
    sizes = [[len(batch) for batch in batches] for batches in by_member(seen, made)]
    assert sorted(map(sum, sizes)) == [64, 64, 66]
    assert sorted(map(len, sizes)) == [8, 8, 10]
    assert history.epochs == 2


def test_members_have_augmentations_of_their_own():
    """Random augmentations differ between members that have rows of their own, and are drawn once where all
    have the same batch."""
    drawn = []

    def noisy(batch):
        batch["x"] = batch["x"] + (noise := np.random.normal(size=batch["x"].shape))
        drawn.append(noise[0, 0])
        return batch

    for reuse, calls in ((0.5, 2), (1.0, 1)):
        drawn.clear()
        ensemble().fit_offline(data(40), epochs=1, batch_size=20, data_reuse=reuse, augmentations=noisy)
        steps = 2  # of 27 or of 40 rows
        assert len(drawn) == len(set(drawn)) == steps * calls


def test_the_simulator_is_called_once_for_all_members():
    """A training of five members asks for as many simulations as one of two."""
    counts = []
    for members in (2, 5):
        calls = []

        def prior(batch_size, rng, calls=calls):
            calls.append(batch_size)
            return {"theta": rng.normal(size=(batch_size, 2)), "x": rng.normal(size=(batch_size, 2))}

        made = ensemble(ensemble_size=members, simulator=make_simulator([prior], is_batched=True))
        made.fit_online(epochs=1, num_batches_per_epoch=16, batch_size=32)
        counts.append(sum(calls))
    assert counts[0] == counts[1]


def test_failed_simulations_leave_smaller_rings(seen):
    """Where simulations may fail, members share what is left of a step as they would have shared the whole;
    disjoint stays disjoint."""

    def prior(rng):
        theta = np.array([rng.integers(1_000_000), rng.normal()])
        if theta[1] > 1:
            raise ValueError("no such parameters")
        return {"theta": theta, "x": rng.normal(size=2)}

    simulator = make_simulator([prior], failures=FailurePolicy(retries=0, allowed=0.5))
    made = ensemble(ensemble_size=3, simulator=simulator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sbi_models.workflows.fitting._ROWS_AHEAD", 1)
        made.fit_online(epochs=1, num_batches_per_epoch=6, batch_size=32, data_reuse=0)
    sizes = [[len(batch) for batch in batches] for batches in by_member(seen, made)]
    assert sizes[0] == sizes[1] == sizes[2]
    assert min(sizes[0]) < 32
    assert all(
        set(a).isdisjoint(b)
        for step in zip(*by_member(seen, made), strict=True)
        for a, b in combinations(step, 2)
    )
