"""Learning what certificates need at the end of a training, and issuing those that need no simulator."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sbi_models import seeding
from sbi_models.approximators.certificates.certificate import Certificate
from sbi_models.approximators.certificates.novelty import GIVEN, Novelty, Points
from sbi_models.approximators.certificates.spaces import joint_p_values
from sbi_models.approximators.certificates.statistics import observation_statistics
from sbi_models.approximators.inputs import masked
from sbi_models.types import Variables, VariablesLike

if TYPE_CHECKING:
    from sbi_models.approximators.base import Approximator
    from sbi_models.approximators.continuous import ContinuousApproximator

Members = Mapping[str, "ContinuousApproximator"]

MOST_KNOWN, MOST_HELD_OUT = 4_000, 2_000
"""Simulations that scores are learned from, and others that say what is usual."""

FEWEST = 200

_ROWS_FOR_AGREEMENT, _DRAWS_FOR_AGREEMENT = 200, 64
_NAMED, _RARE = 3, 2.5


def learn(approximator: "Approximator", known: Variables, held_out: Variables | None, seed: int) -> None:
    """Learn from simulations, raw variables (n, ...), what is usual; without held-out ones, a third of the others is held out.

    Fewer than 200 simulations teach nothing, and certificates are "not known" then.
    """
    total = len(next(iter(known.values())))
    order = seeding.generator(seed, "certificate").permutation(total)
    held = 0 if held_out is None else len(next(iter(held_out.values())))
    if held_out is None or held < FEWEST:
        number = min(MOST_HELD_OUT, total // 3)
        held_out, order = {name: value[order[:number]] for name, value in known.items()}, order[number:]
    else:
        held_out = {name: value[:MOST_HELD_OUT] for name, value in held_out.items()}
    if total < FEWEST:
        return
    known = {name: value[order[:MOST_KNOWN]] for name, value in known.items()}
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(held_out[name]).tobytes() for name in sorted(held_out))).digest()
    stamp = int.from_bytes(digest[:8], "little") >> 1
    with Evaluating(approximator):
        prepared = [approximator.prepare(part, what="simulations") for part in (known, held_out)]
        for member in approximator.members.values():
            novelty = Novelty().to(prepared[0]["inference_variables"].device)
            points, others = (points_of(member, part) for part in prepared)
            novelty.fit(points, others, stamp)
            member.novelty = novelty
        if len(approximator.members) > 1:
            some = {name: value[:_ROWS_FOR_AGREEMENT] for name, value in held_out.items()}
            approximator.usual_disagreement.values = disagreement(approximator.members, some, seed=seeding.derive(seed, "certificate"))


def issue(approximator: "Approximator", conditions: VariablesLike, *, level: float, batch_size: int | None, seed: int) -> list[Certificate]:
    """A certificate for each observation of the conditions, raw variables (n, ...)."""
    members = approximator.members
    with Evaluating(approximator):
        first = next(iter(members.values()))
        prepared = first.prepare_conditions(conditions)
        n = len(next(iter(prepared.values()))) if prepared else 0
        certificates = [Certificate(level=level)] * n
        if all(member.novelty.is_known for member in members.values()):
            points = {name: points_of(member, prepared, batch_size) for name, member in members.items()}
            certificates = _with_novelty(certificates, members, points)
        usual = approximator.usual_disagreement.values
        if len(members) > 1 and isinstance(usual, Tensor):
            observed = disagreement(members, conditions, seed=seed)
            p_values = joint_p_values(usual[:, None], observed[:, None])
            certificates = [
                replace(certificate, disagreement=float(value), agreement=float(p))
                for certificate, value, p in zip(certificates, observed, p_values, strict=True)
            ]
    return certificates


def _with_novelty(certificates: list[Certificate], members: Members, points: Mapping[str, Points]) -> list[Certificate]:
    """The p-values of all members together: jointly where they know the same simulations, else the smallest times their number."""
    novelties = {name: member.novelty for name, member in members.items()}
    scores = {name: novelty(points[name]) for name, novelty in novelties.items()}
    if len({(novelty.stamp, len(novelty.calibration)) for novelty in novelties.values()}) == 1:
        calibration = torch.cat([novelty.calibration for novelty in novelties.values()], dim=1)
        p_values = joint_p_values(calibration, torch.cat(list(scores.values()), dim=1))
    else:
        each = torch.stack([joint_p_values(novelties[name].calibration, own) for name, own in scores.items()])
        p_values = (each.amin(dim=0) * len(each)).clamp_max(1.0)
    spaces = [novelty.by_space(scores[name]) for name, novelty in novelties.items()]
    first = next(iter(members))
    unusual = novelties[first].unusual(points[first])
    return [
        replace(
            certificate,
            novelty=float(p_values[i]),
            spaces={space: min(1.0, len(spaces) * min(float(own[space][i]) for own in spaces)) for space in spaces[0]},
            unusual=in_words(unusual[i]),
        )
        for i, certificate in enumerate(certificates)
    ]


def points_of(member: "ContinuousApproximator", prepared: dict[str, Tensor], batch_size: int | None = None) -> Points:
    """What novelty looks at of prepared variables."""
    found = statistics_of(member, prepared)
    statistics = torch.stack(list(found.values()), dim=1)
    return Points(member.conditions_of(prepared, batch_size).to(torch.float64), statistics, tuple(found))


def statistics_of(member: "ContinuousApproximator", prepared: dict[str, Tensor]) -> dict[str, Tensor]:
    """Statistics, name to (n,), of the conditions among prepared variables, named as the raw variables or the summary network's inputs."""
    named = {}
    for key in (*member.inputs.names, "inference_conditions"):
        if key in prepared:
            label = " and ".join(member.roles[key]) if key in member.roles else member.inputs.names[key]
            named[label] = prepared[key], prepared.get(masked(key))
    return observation_statistics(named)


def in_words(scores: list[tuple[str, float]], others: str = "simulations") -> tuple[str, ...]:
    """The first few of the statistics and their normal scores, rarest first, as far as they are rare; each once."""
    found: list[str] = []
    named: set[str] = set()
    for name, score in scores:
        plain = name.removesuffix(GIVEN)
        if abs(score) > _RARE and plain not in named and len(named) < _NAMED:
            named.add(plain)
            share = 100 * float(torch.special.ndtr(torch.tensor(abs(score), dtype=torch.float64)))
            of = "all" if share >= 99.95 else f"{share:.1f} % of"
            found.append(f"{name} is {'above' if score > 0 else 'below'} that of {of} {others}")
    return tuple(found)


@torch.no_grad()
def disagreement(members: Members, conditions: VariablesLike, *, seed: int) -> Tensor:
    """How far the members are apart for each observation, (n,), in nats; see `Certificate`.

    With standard deviations s_k of the members and s of their mixture, all members counting the same, the mean divergence of the normal
    posteriors of members from the normal one with the moments of the mixture is log s - mean of log s_k.
    """
    draws = torch.stack(
        [
            member.standardised_draws(_DRAWS_FOR_AGREEMENT, member.given(conditions), None, seeding.derive(seed, "disagreement", name))
            for name, member in members.items()
        ]
    ).to(torch.float64)
    means, variances = draws.mean(dim=2), draws.var(dim=2)
    tiny = torch.finfo(torch.float32).tiny
    mixture = variances.mean(dim=0) + means.var(dim=0, correction=0)
    divergence = (mixture.clamp_min(tiny).log() - variances.clamp_min(tiny).log().mean(dim=0)) / 2
    return divergence.amax(dim=1)


class Evaluating:
    """A context in which a module is in evaluation mode and gradients are off."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module, self.no_grad = module, torch.no_grad()

    def __enter__(self) -> None:
        self.was_training = self.module.training
        self.module.eval()
        self.no_grad.__enter__()

    def __exit__(self, *error: object) -> None:
        self.no_grad.__exit__(*error)
        self.module.train(self.was_training)
