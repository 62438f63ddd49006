"""Changed model files, of every kind of approximator, network and transform: refused as such, or good enough
to draw from."""

import contextlib
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import mutations

from sbi_models.approximators import files, load_approximator
from sbi_models.errors import ModelFileError, SbiModelsError
from sbi_models.safe_construction import allotted, misfit

MOST_SECONDS = 8.0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict, dict]]:
    """Header and tensors of a file of each kind."""
    path, parts = tmp_path_factory.mktemp("whole") / "file", {}
    for name, approximator in mutations.approximators().items():
        kind, own, tensors = files.read(approximator.save(path))
        parts[name] = ({"schema_version": files.SCHEMA_VERSION, "kind": kind, "settings": own}, tensors)
    return parts


@pytest.mark.nightly
def test_files_as_they_were_are_read(whole: dict, tmp_path: Path) -> None:
    """Written again by the mutator without a change, every kind of file loads and answers: below, changes are
    refused."""
    for header, tensors in whole.values():
        mutations.written(header, tensors, tmp_path / "file")
        mutations.ask(load_approximator(tmp_path / "file"))


@pytest.mark.nightly
@settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 10**6))
def test_a_changed_file_is_refused_or_usable(whole: dict, tmp_path: Path, seed: int) -> None:
    """One or two settings, a tensor, the header or bytes changed, with a right checksum: ModelFileError and
    nothing else, soon."""
    name = sorted(whole)[seed % len(whole)]
    mutations.mutated(*whole[name], seed, tmp_path / "file")
    started = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            approximator = load_approximator(tmp_path / "file")
        except ModelFileError:
            approximator = None
        if approximator is not None:
            with contextlib.suppress(
                SbiModelsError
            ):  # such as observations that are outside of a changed support
                mutations.ask(approximator)
    assert time.process_time() - started < MOST_SECONDS


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (
            ("inference_network", "built_with", "theta_dim"),
            10**9,
            r"numbers at once, more than its tensors are|of at most",
        ),
        (
            ("inference_network", "config", "widths"),
            [10**9, 10**9],
            r"widths of flow_matching\[0\]: expected a whole number of at most",
        ),
        (("inference_network", "config", "steps"), 10**6, r"Expected steps of at most 512"),
        (
            ("inference_network", "config"),
            [],
            r"settings.inference_network.config: expected an object, got \[\]",
        ),
        (("shapes", "x"), [10**9, 2], r"shape of summary inputs"),
        (("shapes", "x"), "x", r"settings.shapes.x: expected a list, got 'x'"),
        (("adapter",), None, r"settings.adapter: expected a list, got None"),
        (
            ("roles", "inference_variables"),
            [["theta"]],
            r"settings.roles.inference_variables\[0\]: expected text",
        ),
        (
            ("widths", "inference_variables"),
            -1,
            r"settings.widths.inference_variables: expected a whole number from 0",
        ),
    ],
)
def test_the_message_names_the_setting(
    whole: dict, tmp_path: Path, place: tuple, value: object, message: str
) -> None:
    """What does not fit is named, with what was expected and what is there."""
    header, tensors = mutations.deepcopy(whole["flow matching"][0]), whole["flow matching"][1]
    owner = header["settings"]
    for key in place[:-1]:
        owner = owner[key]
    owner[place[-1]] = value
    mutations.written(header, tensors, tmp_path / "file")
    with pytest.raises(ModelFileError, match=message):
        load_approximator(tmp_path / "file")


def test_moments_and_types_of_tensors_are_looked_at(whole: dict, tmp_path: Path) -> None:
    """A standard deviation of zero, and weights in another precision, are refused: draws would be wrong
    without a word."""
    header, tensors = whole["flow matching"]
    zero = tensors | {"standardizer.inference_variables_sd": torch.zeros(3, dtype=torch.float64)}
    mutations.written(header, zero, tmp_path / "file")
    with pytest.raises(ModelFileError, match="inference_variables_sd: expected positive numbers"):
        load_approximator(tmp_path / "file")
    half = {name: value.half() if value.dtype == torch.float32 else value for name, value in tensors.items()}
    mutations.written(header, half, tmp_path / "file")
    with pytest.raises(ModelFileError, match=r"expected torch.float32, got torch.float16"):
        load_approximator(tmp_path / "file")


def test_tensors_are_counted_before_they_are_made() -> None:
    """Of more numbers than a file allots, at once or one after the other, none is made; other tensors are."""
    with allotted(10):
        torch.zeros(1000, 1000)
        with pytest.raises(ModelFileError, match="1000000 x 1000000 numbers"):
            torch.empty(10**6, 10**6)
        made = [torch.randn((10**5, 2)) for _ in range(15)]
        with pytest.raises(ModelFileError, match="100000 x 2 numbers at once"):
            made += [torch.randn((10**5, 2)) for _ in range(15)]
    torch.empty(10**7)


def test_misfits_in_words() -> None:
    """Types of annotations and what JSON has: what fits is None."""
    assert misfit(3, int | None, "n") is None
    assert misfit(None, int | None, "n") is None
    assert misfit(True, int, "n") == "n: expected a whole number, got True"
    assert misfit([1, "a"], str | list[int], "n") == "n[1]: expected a whole number, got 'a'"
    assert misfit(float("nan"), float, "n") == "n: expected a finite number, got nan"
    assert misfit(10**400, float, "n") is not None
