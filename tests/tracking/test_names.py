"""Names of a user as keys of metrics and tags: one mapping, total and injective, that MLflow and file systems
take."""

import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sbi_models.tracking import Store, Tracker
from sbi_models.tracking.names import LONGEST, keys_of, name_tags

NAMES = st.lists(
    st.one_of(
        st.text(max_size=8),
        st.text("aAéÉ _./-[]$", max_size=4),
        st.sampled_from(
            [
                "H0",
                "h0",
                "a b",
                "a_b",
                "a/b",
                "a//b",
                "",
                ".",
                "..",
                "ß",
                "ss",
                "ﬁ",
                "fi",
                "n" * 300,
                "n" * 301,
                "jointly",
            ]
        ),
    ),
    max_size=12,
)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(NAMES)
def test_distinct_names_have_distinct_keys_that_mlflow_admits(names):
    """Whatever the names: each has a key of admitted characters, at most 120, that is no path, and keys
    differ in more than case and accents; none is the reserved one, and the order of the names does not
    matter."""
    keys = keys_of(names, reserved=["jointly"])
    assert set(keys) == set(names)
    folded = {
        unicodedata.normalize("NFKD", key).casefold().encode("ascii", "ignore")
        for key in keys.values()
        if key.isascii()
    }
    assert len(folded) == sum(key.isascii() for key in keys.values())
    assert len({key.lower() for key in keys.values()}) == len(keys)
    for key in keys.values():
        assert re.fullmatch(r"[\w.\-/]{1,120}", key)
        assert ".." not in key.split("/")
        assert not key.startswith("/")
        assert key.casefold() != "jointly"
    assert keys_of(reversed(names), reserved=["jointly"]) == keys
    assert len(name_tags("parameter", keys)) == sum(name != key for name, key in keys.items())


def test_ordinary_names_are_their_own_keys_in_any_company():
    """Lower-case names, and others that none resembles, stay as they are; a plain name keeps its key beside
    one that becomes it."""
    names = ["theta_0", "log_variance", "R0", "1", "alpha-2.5", "β"]
    assert list(keys_of(names).values()) == names
    assert keys_of(["a b", "a_b", "A_B"])["a_b"] == "a_b"
    assert keys_of(["speed of light"]) == {"speed of light": "speed_of_light"}
    assert len(keys_of(["n" * 300])["n" * 300]) == LONGEST


def test_mlflow_takes_the_keys_of_any_names(store: Store) -> None:
    """Metrics, tags and parameters of names that MLflow refuses are written and read back, case twins apart;
    more than a hundred tags, too."""
    names = [
        "$\\Omega_m$",
        "log(M) [Msun]",
        "H0",
        "h0",
        "p@k=1, <b>x</b>",
        "n" * 200,
        "../up",
        "a//b",
        *(f"θ {i}" for i in range(120)),
    ]
    keys = keys_of(names)
    values = dict(zip(keys.values(), np.arange(len(names), dtype=float), strict=True))
    with Tracker.start(
        store, "npe", "first", "key", {"parameter_names": {name: [name] for name in names}}
    ) as tracker:
        tracker.log_metrics({f"nrmse.{key}": value for key, value in values.items()})
        tracker.set_tags(name_tags("parameter", keys))
    run = store.client.get_run(tracker.run_id)
    assert {key: run.data.metrics[f"nrmse.{key}"] for key in values} == values
    assert run.data.tags[f"parameter.{keys['H0']}"] == "H0"
    assert run.data.params[f"parameter_names.{keys['h0']}"] == "['h0']"


@pytest.mark.parametrize("names", [["a"], ["a", "A"], []])
def test_reserved_keys_are_left_to_others(names):
    """A name whose key is reserved gets another one."""
    assert "a" not in keys_of(names, reserved=["a"]).values()
