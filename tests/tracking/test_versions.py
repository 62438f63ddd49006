"""Aliases, tags and descriptions of registered versions."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sbi_models.errors import ConfigurationError, TrackingError
from sbi_models.tracking import Store, Tracker, alias_of, annotate, register, set_alias, version_of


@pytest.fixture
def two_versions(store: Store, fake_approximators: Callable[..., Path], tmp_path: Path) -> Store:
    run_id = Tracker.start(store, "npe", "first", "key").run_id
    register(
        store,
        "normal",
        fake_approximators(tmp_path / "1", shift=1.0),
        run_id,
        aliases=("champion", "challenger"),
        description="# One",
    )
    register(store, "normal", fake_approximators(tmp_path / "2", shift=2.0), run_id, aliases=("challenger",))
    return store


def test_aliases_move_and_say_where_they_were(two_versions: Store) -> None:
    """Registration points several aliases; `set_alias` returns the version of before, so that a promotion can
    be taken back."""
    store = two_versions
    assert [alias_of(store, "normal", alias) for alias in ("champion", "challenger", "nobody")] == [
        1,
        2,
        None,
    ]
    assert set_alias(store, "normal", "champion", 2) == 1
    assert alias_of(store, "normal", "champion") == 2
    assert set_alias(store, "normal", "champion", 1) == 2
    assert set_alias(store, "normal", "previous", 2) is None
    assert set_alias(store, "normal", "previous", 2) == 2


def test_a_version_is_found_by_each_of_its_addresses(two_versions: Store) -> None:
    """By alias, number and latest: name, version, the address of exactly this version, and all aliases that
    point to it."""
    one, two = (version_of(two_versions, f"models:/normal/{number}") for number in (1, 2))
    assert (one.name, one.version, one.uri, one.aliases, one.reused) == (
        "normal",
        1,
        "models:/normal/1",
        ("champion",),
        True,
    )
    assert version_of(two_versions, "models:/normal@champion") == one
    assert (
        version_of(two_versions, "models:/normal/latest")
        == version_of(two_versions, "models:/normal@challenger")
        == two
    )


def test_notes_are_tags_and_markdown_of_the_version(two_versions: Store) -> None:
    """Tags are added or replaced, a description too; what is not given stays as it was."""
    client = two_versions.client
    assert client.get_model_version("normal", "1").description == "# One"
    annotate(two_versions, "normal", 1, tags={"verdict": "calibrated", "gate.passed": True})
    annotate(two_versions, "normal", 1, tags={"verdict": "biased"})
    version = client.get_model_version("normal", "1")
    assert (version.tags["verdict"], version.tags["gate.passed"], version.description) == (
        "biased",
        "True",
        "# One",
    )
    annotate(two_versions, "normal", 1, description="Refused: **over-confident**")
    assert client.get_model_version("normal", "1").description == "Refused: **over-confident**"


def test_what_is_not_there_is_said(two_versions: Store) -> None:
    """Unknown models and versions, addresses of other kinds, and one alias as a text are errors with a cure;
    no alias moves."""
    for wrong in (
        lambda: set_alias(two_versions, "normal", "champion", 3),
        lambda: annotate(two_versions, "normal", 3, tags={"a": 1}),
        lambda: version_of(two_versions, "models:/normal/3"),
    ):
        with pytest.raises(TrackingError, match=r"no version '3'. Known: 1, 2."):
            wrong()
    with pytest.raises(TrackingError, match="Did you mean 'normal'"):
        alias_of(two_versions, "norml", "champion")
    with pytest.raises(TrackingError, match="Expected models:/NAME@ALIAS"):
        version_of(two_versions, "runs:/abc/normal")
    with pytest.raises(ConfigurationError, match=r"Pass aliases=\('champion',\)"):
        register(two_versions, "normal", "file", "run", aliases="champion")
    assert alias_of(two_versions, "normal", "champion") == 1


def test_each_change_of_an_alias_is_seen_once(two_versions: Store) -> None:
    """Of two that move one alias at once, each sees what the other left: no move is lost, and none is seen by
    both."""

    def moves(start: int) -> list[tuple[int | None, int]]:
        wanted = [1 + (start + i) % 2 for i in range(10)]
        return [(set_alias(two_versions, "normal", "champion", version), version) for version in wanted]

    with ThreadPoolExecutor(2) as pool:
        seen = [move for part in pool.map(moves, (0, 1)) for move in part]
    changes = Counter((before, after) for before, after in seen if before != after)
    last = alias_of(two_versions, "normal", "champion")
    assert changes[1, 2] - changes[2, 1] == (1 if last == 2 else 0)
    assert sum(changes.values()) > 2
