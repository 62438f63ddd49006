"""Mutations of model files of every kind: settings, tensors, header or bytes, with a valid checksum."""

import json
import struct
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from sbi_models import seeding
from sbi_models.adapters import Adapter
from sbi_models.approximators import (
    Approximator,
    CompositionalApproximator,
    ContinuousApproximator,
    EnsembleApproximator,
    ScoringRuleApproximator,
    files,
)
from sbi_models.networks import (
    AutoregressiveMixture,
    ConsistencyModel,
    ConvolutionalNetwork,
    CouplingFlow,
    DeepSet,
    DiffusionModel,
    FlowMatching,
    FusionNetwork,
    ScoringRuleNetwork,
    SetTransformer,
    TimeSeriesNetwork,
    TimeSeriesTransformer,
)
from sbi_models.types import Variables

SMALL: dict[str, Any] = {"widths": (16, 16)}
ROLES = {"inference_variables": ["theta", "sigma"], "summary_variables": ["x"]}
ADAPTER = Adapter().constrain("sigma", lower=0).shift("theta", by=[1.0, -2.0]).standardize("x")


def data(n: int = 60, seed: int = 0) -> Variables:
    """Raw variables of every kind: positive, simplex, increasing, classes, sets with a mask, images."""
    rng = seeding.generator(seed, "hostile files")
    p = rng.gamma(2.0, size=(n, 3))
    return {
        "theta": rng.normal(size=(n, 2)),
        "sigma": np.exp(rng.normal(size=(n, 1))),
        "p": p / p.sum(axis=1, keepdims=True),
        "o": np.sort(rng.normal(size=(n, 2)), axis=1),
        "c": rng.normal(size=(n, 3)),
        "k": rng.integers(3, size=(n, 1)).astype(float),
        "x": rng.normal(size=(n, 6, 2)),
        "seen": (np.arange(6) < rng.integers(2, 7, size=(n, 1)))[..., None].astype(float),
        "image": rng.normal(size=(n, 4, 4, 1)),
    }


def approximators() -> dict[str, Approximator]:
    """One of each kind, of each network, and of each transform, with random weights and certificates."""
    many = (
        Adapter()
        .log("sigma")
        .constrain("p", to="simplex")
        .constrain("o", to="ordered")
        .one_hot("k", num_classes=3)
        .nan_to_num("c", value=0.5, mask="c_seen")
        .scale("c", by=[1.0, 2.0, 0.5])
        .rename("sigma", to="spread")
        .concatenate(["theta", "spread", "p", "o"], into="inference_variables")
    )
    series = Adapter().constrain("sigma", lower=0, upper=100).subsample(["x"], size=4, seed=3)
    alone = {
        "inference_variables": ["theta", "sigma", "p", "o"],
        "inference_conditions": ["c", "k", "c_seen"],
    }
    fused = {"inference_variables": ["theta"], "summary_variables": ["x", "image"]}
    backbones = {"x": DeepSet(3, (8,), (8,)), "image": ConvolutionalNetwork(3, (4, 8), head_widths=(8,))}
    settransformer = SetTransformer(3, 8, 1, 2, seeds=1, head_widths=(8,))
    made: dict[str, Approximator] = {
        "flow matching": ContinuousApproximator(
            adapter=ADAPTER,
            roles=ROLES,
            inference_network=FlowMatching(**SMALL, steps=4),
            summary_network=DeepSet(3, (8,), (8,)),
        ),
        "coupling flow": ContinuousApproximator(
            adapter=ADAPTER,
            roles=ROLES,
            inference_network=CouplingFlow(2, **SMALL),
            summary_network=settransformer,
            masks={"summary_variables": "seen"},
        ),
        "diffusion": ContinuousApproximator(
            adapter=series,
            roles=ROLES,
            inference_network=DiffusionModel(**SMALL, steps=6, density_steps=4),
            summary_network=TimeSeriesTransformer(3, 8, 1, 2, seeds=1, head_widths=(8,)),
        ),
        "consistency": ContinuousApproximator(
            adapter=series,
            roles=ROLES,
            inference_network=ConsistencyModel(**SMALL),
            summary_network=TimeSeriesNetwork(3, (8,), hidden_dim=4, head_widths=(8,)),
        ),
        "autoregressive": ContinuousApproximator(
            adapter=many,
            roles=alone | {"inference_conditions": ["c", "k"]},
            inference_network=AutoregressiveMixture(
                3, trunk_width=8, head_width=8, trunk_blocks=1, head_blocks=1
            ),
        ),
        "scoring rules": ScoringRuleApproximator(
            adapter=ADAPTER,
            roles=ROLES,
            inference_network=ScoringRuleNetwork(("mean", "quantile", "mv_normal"), **SMALL),
            summary_network=DeepSet(3, (8,), (8,)),
        ),
        "fusion": ContinuousApproximator(
            adapter=Adapter(),
            roles=fused,
            inference_network=FlowMatching(**SMALL, steps=4),
            summary_network=FusionNetwork(backbones, (8,), 4),
        ),
        "compositional": CompositionalApproximator(
            adapter=ADAPTER,
            roles=ROLES,
            inference_network=DiffusionModel(**SMALL, steps=6),
            summary_network=DeepSet(3, (8,), (8,)),
        ),
    }
    members = {
        name: ContinuousApproximator(
            adapter=ADAPTER, roles=ROLES, inference_network=network, summary_network=DeepSet(3, (8,), (8,))
        )
        for name, network in (("a", FlowMatching(**SMALL, steps=3)), ("b", CouplingFlow(2, **SMALL)))
    }
    made["ensemble"] = EnsembleApproximator(members, weights={"a": 0.7, "b": 0.3}, info={"unit": "m"})
    for approximator in made.values():
        approximator.build(data(), seed=0)
        approximator.learn_certificate(data(200, seed=1), data(100, seed=2), seed=0)
        approximator.eval()
    return made


def written(header: dict[str, Any], tensors: dict[str, torch.Tensor], path: Path) -> None:
    """A file with a right checksum, of any header that JSON can hold and any tensors."""
    header = {name: value for name, value in header.items() if name != "sha256"}
    header["sha256"] = files._digest(header, tensors)
    path.write_bytes(
        safetensors.torch.save(tensors, metadata={"sbi_models": json.dumps(header, sort_keys=True)})
    )


VALUES: list[Any] = [
    *(
        None,
        True,
        False,
        -1,
        0,
        1,
        2,
        3,
        7,
        1000,
        10**5,
        10**6,
        10**9,
        2**63,
        10**30,
        -(10**9),
        0.5,
        -0.5,
        1e-300,
        1e300,
        4.0,
    ),
    *(
        float("nan"),
        float("inf"),
        "",
        "x",
        "theta",
        "os.system",
        "large",
        "inference_variables",
        "\ud800",
        "a" * 10_000,
    ),
    *(
        [],
        {},
        [1],
        [[]],
        [10**9],
        [3, 3],
        ["x"],
        {"x": 1},
        [None],
        [0.5],
        {"network": {}},
        [10**5, 10**5],
        [16, 10**9],
    ),
]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Ways to everything inside of JSON."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(way for key, item in inside for way in places(item, (*path, key)))]


def changed_settings(header: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """One or two places of the settings changed."""
    header = deepcopy(header)
    for _ in range(int(rng.integers(1, 3))):
        ways = [way for way in places(header) if way and way[0] not in ("schema_version", "sha256")]
        way = ways[int(rng.integers(len(ways)))]
        owner = header
        for key in way[:-1]:
            owner = owner[key]
        last: Any = way[-1]
        action = str(rng.choice(["value", "value", "value", "value", "delete", "add", "number", "swap"]))
        value = VALUES[int(rng.integers(len(VALUES)))]
        if action == "delete":
            del owner[last]
        elif action == "add" and isinstance(owner[last], dict):
            owner[last][str(rng.choice(["extra", "name", "config", "widths", "theta"]))] = value
        elif action == "add" and isinstance(owner[last], list):
            owner[last].append(deepcopy(owner[last][0]) if owner[last] and rng.random() < 0.5 else value)
        elif (
            action == "number" and isinstance(owner[last], int | float) and not isinstance(owner[last], bool)
        ):
            owner[last] = type(owner[last])(owner[last] * rng.choice([-1, 2, 10, 1000, 10**6])) + int(
                rng.integers(-1, 2)
            )
        elif action == "swap":
            other = ways[int(rng.integers(len(ways)))]
            found: Any = header
            for key in other:
                found = (
                    found[key]
                    if isinstance(found, dict | list)
                    and (key in found if isinstance(found, dict) else key < len(found))
                    else value
                )
            owner[last] = deepcopy(found)
        else:
            owner[last] = value
    return header


def changed_tensors(tensors: dict[str, torch.Tensor], rng: np.random.Generator) -> dict[str, torch.Tensor]:
    """One tensor changed, left out or added."""
    tensors = dict(tensors)
    name = str(rng.choice(sorted(tensors)))
    value = tensors[name]
    changes: list[Callable[[], torch.Tensor]] = [
        lambda: value.to(torch.float64),
        lambda: value.to(torch.float16),
        lambda: value.to(torch.int64),
        lambda: value.to(torch.bool),
        lambda: value.reshape(-1),
        lambda: value[None],
        lambda: value.mT.contiguous() if value.ndim > 1 else value.flatten()[:1],
        lambda: value[:0] if value.ndim else value.reshape(1)[:0],
        lambda: torch.cat([value, value]) if value.ndim else value.repeat(3),
        lambda: torch.full_like(value, 10**4),
        lambda: torch.full_like(value, -1),
        lambda: torch.full_like(value, float("nan")) if value.is_floating_point() else value + 2**40,
        lambda: torch.full_like(value, 1e30) if value.is_floating_point() else -value,
        lambda: torch.zeros_like(value),
        lambda: torch.zeros(0),
    ]
    action = int(rng.integers(len(changes) + 3))
    if action < len(changes):
        tensors[name] = changes[action]().contiguous().clone()
    else:
        del tensors[name]
        if action == len(changes):
            tensors[name + "x"] = value
        elif action == len(changes) + 1:
            other = str(rng.choice(sorted(tensors)))
            tensors[name] = tensors[other].clone()
    return tensors


def changed_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    """A file cut, with flipped bits, or with another header."""
    size = int.from_bytes(content[:8], "little")
    action = int(rng.integers(6))
    if action == 0:
        return content[: int(rng.integers(len(content)))]
    if action == 1:
        damaged = bytearray(content)
        for place in rng.integers(len(content), size=int(rng.integers(1, 20))):
            damaged[int(place)] ^= 1 << int(rng.integers(8))
        return bytes(damaged)
    if action == 2:
        return (
            struct.pack("<Q", int(rng.choice([0, 1, 2**31, 2**40, 2**62, size + 1, size - 1]))) + content[8:]
        )
    if action == 3:
        return content + b"\0" * int(rng.integers(1, 100))
    header = json.loads(content[8 : 8 + size])
    if action == 4:  # tensors that lie about their places
        name = str(rng.choice([name for name in header if name != "__metadata__"]))
        key = str(rng.choice(["dtype", "shape", "data_offsets"]))
        header[name][key] = [
            VALUES[int(rng.integers(len(VALUES)))],
            [10**9, 10**9],
            [2**40],
            [0, 2**62],
            [2**62, 0],
            "F64",
            "U64",
        ][int(rng.integers(7))]
        text = json.dumps(header)
    else:  # a header of another kind of JSON
        deep = "[" * 100_000 + "]" * 100_000
        own = header["__metadata__"]["sbi_models"]
        texts = [
            "[]",
            "null",
            "3",
            '"x"',
            "{}",
            deep,
            '{"kind": ' + deep + "}",
            own[:-5],
            own.replace('"info":', '"info": NaN, "x":', 1),
        ]
        texts += [
            own.replace("{", '{"a": ' + deep + ",", 1),
            own.replace('"kind"', '"kind": 3, "kind"', 1),
            "1" * 10_000,
        ]
        header["__metadata__"]["sbi_models"] = texts[int(rng.integers(len(texts)))]
        text = json.dumps(header)
    return struct.pack("<Q", len(text.encode())) + text.encode() + content[8 + size :]


def mutated(header: dict[str, Any], tensors: dict[str, torch.Tensor], seed: int, path: Path) -> str:
    """Write a mutated file; returns the kind of mutation."""
    rng = seeding.generator(seed, "mutation")
    kind = str(rng.choice(["settings", "settings", "settings", "tensors", "bytes"]))
    if kind == "bytes":
        written(header, tensors, path)
        path.write_bytes(changed_bytes(path.read_bytes(), rng))
        return kind
    changed = changed_settings(header, rng) if kind == "settings" else header
    written(changed, changed_tensors(tensors, rng) if kind == "tensors" else tensors, path)
    return kind


def ask(approximator: Approximator) -> None:
    """Call every method of an approximator for two data sets."""
    given = data(2, seed=9)
    if approximator.has_draws:
        approximator.sample(num_samples=2, conditions=given, seed=1)
        if getattr(approximator, "has_density", True):
            approximator.log_prob(given)
    else:
        approximator.estimate(given)
    approximator.certify(given, seed=1)
