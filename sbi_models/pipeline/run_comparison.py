"""Comparison of two runs of one experiment: simulations, weights, draws, versions and machine."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors
import torch

from sbi_models.tracking import RunRecord
from sbi_models.tracking.provenance import OWN_COMMIT, OWN_DIRTY, OWN_HASH
from sbi_models.tracking.run_environment import machine

Comparison = tuple[bool, str]
"""Whether something is the same, and the words for it."""

DRAWS = {"infer": ("draws", "inference/draws.parquet"), "compose": ("composed", "composition/draws.parquet")}
"""Of each task that draws: what its draws are called, and their file in the run."""

SAME = "the same"

TRAINING = "code.fingerprint"
"""Tag with the fingerprint of the code that a training runs, comments aside."""

_MACHINE = ("platform", "processor", "torch_threads", "cuda", "gpus")


def compare_runs(record: RunRecord, again: RunRecord, scratch: Path) -> dict[str, Comparison]:
    """Whether simulator, simulations, weights and draws of two runs are the same, and how they differ.

    Args:
        record: the run that was reproduced.
        again: the run that repeats it.
        scratch: a folder for files of both.
    """
    parts: dict[str, Comparison] = {
        "simulator": (True, SAME),
        "simulations": compare_hashes(record.content_hashes, again.content_hashes),
    }
    if record.tags.get("simulator.fingerprint") != again.tags.get("simulator.fingerprint"):
        same = parts["simulations"][0]
        parts["simulator"] = (
            same,
            "of other code, settings or data, which give the same simulations" if same else "not the same",
        )
    if record.tags.get("model.sha256") == again.tags.get("model.sha256"):
        parts["weights"] = (True, SAME)
    else:
        parts["weights"] = compare_models(
            *(_model_of(run, scratch / of) for run, of in ((record, "then"), (again, "now")))
        )
    for task, (name, file) in DRAWS.items():
        if task in record.tags:
            then, now = (
                pd.read_parquet(run.fetch(file, scratch / of))
                for run, of in ((record, "then"), (again, "now"))
            )
            parts[name] = compare_draws(then, now)
    return parts


def compare_hashes(then: Mapping[str, str], now: Mapping[str, str]) -> Comparison:
    """Data sets by name, by the hashes of their content."""
    others = sorted(name for name in {*then, *now} if then.get(name) != now.get(name))
    return (not others, SAME if not others else f"not the same: {', '.join(others)}")


def compare_models(then: Path, now: Path) -> Comparison:
    """Compare two saved approximators by their tensors, to the bit, and by what else they hold."""
    (first, header), (second, other) = (_read(path) for path in (then, now))
    if missing := sorted({*first} ^ {*second}):
        return False, f"not the same: {len(missing)} tensors are in one of them only, such as {missing[0]}"
    reshaped = [
        name
        for name, value in first.items()
        if (value.shape, value.dtype) != (second[name].shape, second[name].dtype)
    ]
    if reshaped:
        name = reshaped[0]
        shapes = [
            f"{tuple(values[name].shape)} {values[name].dtype}".replace("torch.", "")
            for values in (first, second)
        ]
        return (
            False,
            f"not the same: {len(reshaped)} tensors have another shape or type, such as {name}, "
            f"{shapes[0]} then and {shapes[1]} now",
        )
    changed = [name for name, value in first.items() if _bits(value) != _bits(second[name])]
    if changed:
        largest = max(_distance(first[name], second[name]) for name in changed)
        by = (
            "not a number, or by infinity"
            if not np.isfinite(largest)
            else f"at most {largest:.2g} of the largest number of each"
        )
        return False, f"not the same: {len(changed)} of {len(first)} tensors differ, by {by}"
    return True, _with_settings(SAME, _differences(header, other))


def compare_draws(then: pd.DataFrame, now: pd.DataFrame) -> Comparison:
    """Compare two tables of draws by their values, whatever types their columns have."""
    if list(then.columns) != list(now.columns) or set(then["data_set"].astype(str)) != set(
        now["data_set"].astype(str)
    ):
        return False, "of other data sets or parameters"
    numbers = [name for name in then.columns if name != "data_set"]
    labels = [frame["data_set"].astype(str).tolist() for frame in (then, now)]
    if labels[0] == labels[1] and np.array_equal(
        then[numbers].to_numpy(), now[numbers].to_numpy(), equal_nan=True
    ):
        return True, SAME
    first, second = (
        frame.assign(data_set=frame["data_set"].astype(str)).drop(columns="draw").groupby("data_set")
        for frame in (then, now)
    )
    means = (first.mean() - second.mean()) / first.std()
    sds = second.std() / first.std() - 1
    return (
        False,
        f"means differ by at most {np.abs(means.to_numpy()).max():.3f} sd, sds by "
        f"{100 * np.abs(sds.to_numpy()).max():.1f} %",
    )


def changes_since(record: RunRecord) -> list[str]:
    """Changes since a run, in words: versions, code of sbi_models, and machine, as far as it noted them."""
    others = record.other_versions()
    words = [
        f"{name.replace('_', '-')} {now} (was {then})"
        for name, (then, now) in others.items()
        if not name.startswith("sbi_models.")
    ]
    return words + _code_words(others) + _machine_words(record)


def training_code(record: RunRecord, again: RunRecord) -> str | None:
    """Whether the code of the training has changed, comments aside; None if a run has not noted it."""
    codes = record.tags.get(TRAINING), again.tags.get(TRAINING)
    if None in codes:
        return None
    return (
        "the code of the training is the same"
        if codes[0] == codes[1]
        else "the code of the training has changed"
    )


def _code_words(others: Mapping[str, tuple[str, str]]) -> list[str]:
    """How the code of the library has changed, by its hash; and the commits, as far as they are known."""
    if not {OWN_HASH, OWN_COMMIT, OWN_DIRTY} & set(others):
        return []
    if OWN_COMMIT in others:
        then, now = others[OWN_COMMIT]
        return [f"code of sbi_models: commit {now[:12]} (was {then[:12]})"]
    if OWN_DIRTY in others:
        then, now = (
            "changed since its commit" if value == "true" else "as it was committed"
            for value in others[OWN_DIRTY]
        )
        return [f"code of sbi_models: {now} (was {then})"]
    then, now = others[OWN_HASH]
    return [f"code of sbi_models: SHA-256 {now[:12]} (was {then[:12]})"]


def _machine_words(record: RunRecord) -> list[str]:
    then, now = record.machine(), machine()
    return [
        f"{name.replace('_', ' ')} {now.get(name)} (was {then[name]})"
        for name in _MACHINE
        if name in then and then[name] != now.get(name)
    ]


def _model_of(run: RunRecord, folder: Path) -> Path:
    """The trained approximator that a run has kept."""
    return run.fetch(f"checkpoints/{run.experiment_name}.safetensors", folder)


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and header of a saved approximator of any release."""
    with safetensors.safe_open(path, framework="pt") as file:
        header = {name: json.loads(text) for name, text in (file.metadata() or {}).items()}
        return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118 - not a dict


def _bits(value: torch.Tensor) -> bytes:
    return (
        value.contiguous().view(torch.uint8).numpy().tobytes()
        if value.ndim
        else value.reshape(1).view(torch.uint8).numpy().tobytes()
    )


def _distance(then: torch.Tensor, now: torch.Tensor) -> float:
    first, second = then.to(torch.float64), now.to(torch.float64)
    scale = float(first.abs().max()) or 1.0
    return float((first - second).abs().max()) / scale


def _differences(then: Any, now: Any, path: str = "") -> list[str]:
    """Dotted names at which two JSON contents differ; checksums, which follow from the rest, are left out."""
    if isinstance(then, dict) and isinstance(now, dict):
        names = sorted({*then, *now} - ({"sha256"} if path.count(".") == 0 else set()))
        return [
            parts
            for name in names
            for parts in _differences(then.get(name), now.get(name), f"{path}.{name}".lstrip("."))
        ]
    return [] if then == now else [path]


def _with_settings(words: str, others: list[str]) -> str:
    """The words, and which settings beside the tensors differ; names of cache keys are left out."""
    names = [
        name.removeprefix("sbi_models.settings.") for name in others if not name.endswith(("trained_by",))
    ]
    return (
        words if not names else f"{words} in every tensor; the file says otherwise of {', '.join(names[:5])}"
    )
