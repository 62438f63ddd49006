"""One entry for each promise-keeping adapter: the contract tests take every one of them through every
promise.

A new transform needs one entry here.
"""

from dataclasses import dataclass, field

import torch
from torch.distributions import AffineTransform, Dirichlet, Gamma, TransformedDistribution, Uniform

from sbi_models.adapters import Adapter

N = 6


@dataclass
class Case:
    """An adapter, the raw data it is for, and the adapted variable whose density is tested.

    adapted: the variable that a network would infer; None if the adapter has no density.
    inferred: raw variables that `adapted` is made of; the Jacobian is taken with respect to them.
    simplex: the one inferred variable has its last component determined by the others.
    lost: raw variables that do not come back.
    """

    adapter: Adapter
    raw: dict[str, torch.Tensor]
    adapted: str | None
    inferred: list[str] = field(default_factory=lambda: ["x"])
    total: float | None = None
    lost: tuple[str, ...] = ()

    @property
    def fitted(self) -> Adapter:
        return self.adapter.fitted(self.raw)


def normal(*shape, seed=0, n=N):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uniform(*shape, low=0.0, high=1.0, seed=0):
    u = torch.rand(N, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return low + (high - low) * (0.01 + 0.98 * u)


def proportions(width, seed=0):
    return torch.softmax(2 * normal(width, seed=seed), dim=-1)


def positive(*shape, seed=0):
    return normal(*shape, seed=seed).exp()


A = Adapter()
MIXED = torch.stack([uniform(low=-1, high=2), positive(seed=1), 3 - positive(seed=2), normal(seed=3)], dim=-1)

CASES = {
    "rename": Case(A.rename("x", to="y"), {"x": normal(3)}, "y"),
    "keep": Case(A.keep("x"), {"x": normal(3), "z": normal(1)}, "x", lost=("z",)),
    "drop": Case(A.drop(["z"]), {"x": normal(3), "z": normal(1)}, "x", lost=("z",)),
    "concatenate": Case(
        A.concatenate(["b", "a"], into="y"), {"a": normal(2), "b": normal(1, seed=1)}, "y", ["a", "b"]
    ),
    "split": Case(A.split("x", into=["a", "b"], widths=[1, 2]), {"x": normal(3)}, None),
    "split in halves": Case(
        A.split("x", into=["a", "b"]).concatenate(["b", "a"], into="y"), {"x": normal(4)}, "y"
    ),
    "log": Case(A.log("x"), {"x": positive(3)}, "x"),
    "sqrt": Case(A.sqrt("x"), {"x": positive(3)}, "x"),
    "scale": Case(A.scale("x", by=-2.5), {"x": normal(3)}, "x"),
    "scale each": Case(A.scale("x", by=[0.1, -3.0]), {"x": normal(2)}, "x"),
    "shift": Case(A.shift("x", by=[0.1, -3.0]), {"x": normal(2)}, "x"),
    "standardize": Case(A.standardize("x"), {"x": 100 + 5 * normal(4, 2)}, "x"),
    "standardize, given": Case(A.standardize("x", mean=1.5, sd=[0.1, 7.0]), {"x": normal(2)}, "x"),
    "standardize, half given": Case(A.standardize(["x"], mean=0), {"x": 3 * normal(2)}, "x"),
    "constrain lower": Case(A.constrain("x", lower=0), {"x": 5 * positive(3)}, "x"),
    "constrain upper": Case(A.constrain("x", upper=-2.5), {"x": -2.5 - positive(3)}, "x"),
    "constrain both": Case(A.constrain("x", lower=-1, upper=3), {"x": uniform(3, low=-1, high=3)}, "x"),
    "constrain both, logit": Case(
        A.constrain("x", lower=-1, upper=3, scale="logit"), {"x": uniform(3, low=-1, high=3)}, "x"
    ),
    "constrain each": Case(
        A.constrain("x", lower=[-1, 0, None, None], upper=[2, float("inf"), 3, None]), {"x": MIXED}, "x"
    ),
    "constrain each, mixed": Case(
        A.constrain("x", lower=[0, None, 0, 0, None], upper=[None, None, 1, None, None]),
        {
            "x": torch.stack(
                [positive(), normal(seed=1), uniform(seed=2), positive(seed=3), normal(seed=4)], dim=-1
            )
        },
        "x",
    ),
    "constrain sets": Case(A.constrain("x", lower=[0, 1]), {"x": 1 + positive(5, 2)}, "x"),
    "ordered": Case(A.constrain("x", to="ordered"), {"x": normal(4).sort(dim=-1).values}, "x"),
    "simplex": Case(A.constrain("x", to="simplex"), {"x": proportions(4)}, "x", total=1.0),
    "simplex of two": Case(A.constrain("x", to="simplex"), {"x": proportions(2)}, "x", total=1.0),
    "expand_dims": Case(A.expand_dims("x", axis=1), {"x": normal(3)}, "x"),
    "expand_dims, last": Case(A.expand_dims("x", axis=-1), {"x": normal(3)}, "x"),
    "squeeze": Case(A.squeeze("x", axis=1), {"x": normal(1, 3)}, "x"),
    "squeeze, last": Case(A.squeeze("x", axis=-1), {"x": normal(3, 1)}, "x"),
    "as_set": Case(A.as_set(["x", "y"]), {"x": normal(5), "y": normal(5, 2)}, "x"),
    "as_time_series": Case(A.as_time_series("x"), {"x": normal(5)}, "x"),
    "broadcast": Case(
        A.broadcast(["x", "u"], to="y"), {"x": normal(2), "u": normal(1, 3), "y": normal(4, 1)}, None
    ),
    "broadcast to images": Case(A.broadcast("x", to="y"), {"x": normal(2), "y": normal(4, 3, 1)}, None),
    "one_hot": Case(
        A.one_hot("x", num_classes=3),
        {"x": torch.tensor([[0.0, 2], [1, 1], [2, 0]], dtype=torch.float64)},
        None,
    ),
    "nan_to_num": Case(
        A.nan_to_num("x", value=-1, mask="seen"),
        {"x": normal(3).where(normal(3, seed=1) > 0, torch.nan)},
        None,
    ),
    "nan_to_num by the mean": Case(
        A.nan_to_num("x", value="mean", mask="seen"),
        {"x": normal(3).where(normal(3, seed=1) > 0, torch.nan)},
        None,
    ),
    "subsample": Case(
        A.subsample(["x", "m"], size=3),
        {"x": normal(7, 2), "m": normal(7), "z": normal(1)},
        None,
        lost=("x", "m"),
    ),
    "subsample, a fraction": Case(
        A.subsample("x", size=0.5, seed=3), {"x": normal(6, 4, 1), "z": normal(1)}, None, lost=("x",)
    ),
    "constrain, prior": Case(
        A.constrain("x", prior=Uniform(torch.tensor([-1.0, 0.1]), torch.tensor([2.0, 5.0]))),
        {"x": torch.stack([uniform(low=-1, high=2), uniform(low=0.1, high=5)], dim=-1)},
        "x",
    ),
    "constrain, prior of half-lines": Case(
        A.constrain(
            "x", prior=TransformedDistribution(Gamma(torch.ones(3), 1.0), AffineTransform(1.0, -2.0))
        ),
        {"x": 1 - positive(3)},
        "x",
    ),
    "simplex, prior": Case(
        A.constrain("x", prior=Dirichlet(torch.ones(4))), {"x": proportions(4)}, "x", total=1.0
    ),
    # chains, in which Jacobians must travel by name
    "log, scale, concatenate": Case(
        A.log("a")
        .scale("a", by=[2.0, -0.5])
        .constrain("b", lower=0, upper=1)
        .concatenate(["b", "a"], into="y"),
        {"a": positive(2), "b": uniform(1)},
        "y",
        ["a", "b"],
    ),
    "concatenate, constrain, split, one part": Case(
        A.concatenate(["a", "b"], into="ab")
        .constrain("ab", lower=0)
        .split("ab", into=["a", "c"], widths=[2, 1])
        .rename("a", to="y"),
        {"a": positive(2), "b": positive(1, seed=1)},
        "y",
        ["a"],
    ),
    "rename, ordered, standardize": Case(
        A.rename("x", to="y").constrain("y", to="ordered").standardize("y"),
        {"x": normal(3).sort(dim=-1).values},
        "y",
    ),
    "percentages": Case(
        A.scale("x", by=0.01).constrain("x", to="simplex").scale("x", by=[1, 2, 3]),
        {"x": 100 * proportions(4)},
        "x",
        total=100.0,
    ),
    "squeeze, sqrt, shift": Case(
        A.squeeze("x", axis=-1).sqrt("x").shift("x", by=1), {"x": positive(3, 1)}, "x"
    ),
    "log twice": Case(A.log("x").constrain("x", lower=0).scale("x", by=3), {"x": 1 + positive(3)}, "x"),
}
