"""Calibration of certificates after a training, and certificates that need no simulator."""

import hashlib
import math
from collections.abc import Collection, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from sbi_models import seeding
from sbi_models.adapters.transforms import Concatenate
from sbi_models.approximators.certificates.certificate import Certificate
from sbi_models.approximators.certificates.out_of_distribution import (
    ObservationFeatures,
    OutOfDistributionScores,
)
from sbi_models.approximators.certificates.protocols import CertifiedApproximator, CertifiedMember
from sbi_models.approximators.certificates.ranks import Sizes, joint_p_values, tie_breakers, unique_sizes
from sbi_models.approximators.certificates.statistics import observation_statistics
from sbi_models.approximators.summary_inputs import masked
from sbi_models.ragged import content
from sbi_models.types import Variables, VariablesLike

Members = Mapping[str, CertifiedMember]

MOST_KNOWN, MOST_HELD_OUT = 4_000, 2_000
"""Largest numbers of simulations for training the scores, and for their calibration."""

FEWEST = 200

_ROWS_FOR_AGREEMENT, _ROWS_OF_SEVERAL_SIZES, _DRAWS_FOR_AGREEMENT = 200, 400, 64


def calibrate_certificates(
    approximator: CertifiedApproximator,
    known: Variables,
    held_out: Variables | None,
    seed: int,
    contexts: Collection[str] = (),
) -> None:
    """Calibrate the tests of certificates on simulations, raw variables (n, ...).

    Without held-out simulations, a third of the others is held out.

    Fewer than 200 simulations teach nothing, and certificates are "not known" then. Observations are compared
    with simulations of like `contexts`, which name direct conditions that are given, not observed.
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
    digest = hashlib.sha256(b"".join(content(held_out[name]) for name in sorted(held_out))).digest()
    stamp = int.from_bytes(digest[:8], "little") >> 1
    with EvaluationMode(approximator):
        prepared = [approximator.prepare(part, what="simulations") for part in (known, held_out)]
        for member in approximator.members.values():
            novelty = OutOfDistributionScores().to(prepared[0]["inference_variables"].device)
            columns = context_columns(member, prepared[0], contexts)
            novelty.kept.context_columns = columns  # type: ignore[assignment]
            member.novelty = novelty
            points, others = (features_of(member, part) for part in prepared)
            novelty.fit(points, others, stamp)
        if len(approximator.members) > 1 and approximator.has_draws:
            number = _ROWS_FOR_AGREEMENT if len(unique_sizes(others.sizes)) == 1 else _ROWS_OF_SEVERAL_SIZES
            some = {name: value[:number] for name, value in held_out.items()}
            approximator.usual_disagreement.values = disagreement(
                approximator.members, some, seed=seeding.derive(seed, "certificate")
            )


def issue_certificates(
    approximator: CertifiedApproximator,
    conditions: VariablesLike,
    *,
    level: float,
    batch_size: int | None,
    seed: int,
) -> list[Certificate]:
    """A certificate for each observation of the conditions, raw variables (n, ...)."""
    members = approximator.members
    with EvaluationMode(approximator):
        first = next(iter(members.values()))
        prepared = first.prepare_conditions(conditions)
        n = len(next(iter(prepared.values()))) if prepared else 0
        certificates, ties = [Certificate(level=level)] * n, tie_breakers(n, seed)
        points = {name: features_of(member, prepared, batch_size) for name, member in members.items()}
        if all(member.novelty.is_known for member in members.values()):
            certificates = with_out_of_distribution_p_values(certificates, members, points, ties)
            usual = approximator.usual_disagreement.values
            if len(members) > 1 and isinstance(usual, Tensor):
                observed = disagreement(members, conditions, seed=seed)
                sizes = sizes_of_disagreement(approximator, points[next(iter(members))])
                p_values = joint_p_values(usual[:, None], observed[:, None], sizes=sizes, ties=ties)
                certificates = [
                    replace(certificate, disagreement=float(value), agreement=float(p))
                    for certificate, value, p in zip(certificates, observed, p_values, strict=True)
                ]
    return certificates


def sizes_of_disagreement(approximator: CertifiedApproximator, points: ObservationFeatures) -> Sizes:
    """Numbers of set elements of the simulations behind the disagreement, and of observations."""
    usual = approximator.usual_disagreement.values
    assert isinstance(usual, Tensor)
    sizes = next(iter(approximator.members.values())).novelty.sizes(points)
    return Sizes(sizes.usual[: len(usual)], sizes.observed)


def with_out_of_distribution_p_values(
    certificates: list[Certificate], members: Members, points: Mapping[str, ObservationFeatures], ties: Tensor
) -> list[Certificate]:
    """Add the out-of-distribution p-values of all members together to certificates.

    They are joint where the members know the same simulations, else the smallest times their number.
    """
    novelties = {name: member.novelty for name, member in members.items()}
    scores = {name: novelty(points[name]) for name, novelty in novelties.items()}
    sizes = {name: novelty.sizes(points[name]) for name, novelty in novelties.items()}
    first = next(iter(members))
    if len({(novelty.stamp, len(novelty.calibration)) for novelty in novelties.values()}) == 1:
        calibration = torch.cat([novelty.calibration for novelty in novelties.values()], dim=1)
        p_values = joint_p_values(
            calibration, torch.cat(list(scores.values()), dim=1), sizes=sizes[first], ties=ties
        )
    else:
        each = torch.stack(
            [
                joint_p_values(novelties[name].calibration, scores_of_member, sizes=sizes[name], ties=ties)
                for name, scores_of_member in scores.items()
            ]
        )
        p_values = (each.amin(dim=0) * len(each)).clamp_max(1.0)
    spaces = [novelty.by_space(scores[name], sizes[name], ties) for name, novelty in novelties.items()]
    unusual = novelties[first].unusual(points[first])
    return [
        replace(
            certificate,
            novelty=float(p_values[i]),
            spaces={
                space: min(
                    1.0, len(spaces) * min(float(scores_of_member[space][i]) for scores_of_member in spaces)
                )
                for space in spaces[0]
            },
            unusual=unusual[i],
        )
        for i, certificate in enumerate(certificates)
    ]


def features_of(
    member: CertifiedMember, prepared: dict[str, Tensor], batch_size: int | None = None
) -> ObservationFeatures:
    """Features of prepared variables for out-of-distribution scores."""
    statistics_by_name, (sets, sizes) = statistics_of(member, prepared), sizes_of(member, prepared)
    statistics = torch.stack(list(statistics_by_name.values()), dim=1)
    columns = member.novelty.kept.context_columns
    contexts = (
        prepared["inference_conditions"][:, columns].to(torch.float64)
        if isinstance(columns, Tensor)
        else statistics[:, :0]
    )
    return ObservationFeatures(
        member.conditions_of(prepared, batch_size).to(torch.float64),
        statistics,
        tuple(statistics_by_name),
        sizes,
        sets,
        contexts,
    )


def context_columns(
    member: CertifiedMember, prepared: Mapping[str, Tensor], contexts: Collection[str]
) -> Tensor | None:
    """Columns of the prepared direct conditions that are contexts; None if none are known.

    They are known where the adapter joins these conditions in one step, each with its own numbers.
    """
    joins = [step for step in member.adapter.transforms if "inference_conditions" in step.makes()]
    if len(joins) != 1 or not isinstance(joins[0], Concatenate):
        return None
    owners = [name for name in joins[0].names for _ in range(math.prod(member.shapes.get(name, ())))]
    columns = [column for column, name in enumerate(owners) if name in contexts]
    if not columns or len(owners) != prepared["inference_conditions"].shape[1]:
        return None
    return torch.tensor(columns, dtype=torch.int64, device=prepared["inference_conditions"].device)


def statistics_of(member: CertifiedMember, prepared: dict[str, Tensor]) -> dict[str, Tensor]:
    """Statistics, name to (n,), of the conditions among prepared variables.

    They have the names of the raw variables or of the summary network's inputs.
    """
    return observation_statistics(
        {
            label: (prepared[key], prepared.get(masked(key)))
            for key, label in _labels(member, prepared).items()
        }
    )


def sizes_of(member: CertifiedMember, prepared: dict[str, Tensor]) -> tuple[tuple[str, ...], Tensor]:
    """Names of those conditions that have a mask, and how many of their elements count, (n, s) in float64."""
    labels = {
        masked(key): label for key, label in _labels(member, prepared).items() if masked(key) in prepared
    }
    sizes = [prepared[mask].flatten(1).sum(dim=1).to(torch.float64) for mask in labels]
    some = next(iter(prepared.values()))
    return tuple(labels.values()), torch.stack(sizes, dim=1) if sizes else torch.empty(
        len(some), 0, dtype=torch.float64, device=some.device
    )


def _labels(member: CertifiedMember, prepared: dict[str, Tensor]) -> dict[str, str]:
    return {
        key: " and ".join(member.roles[key]) if key in member.roles else member.inputs.names[key]
        for key in (*member.inputs.names, "inference_conditions")
        if key in prepared
    }


@torch.no_grad()
def disagreement(members: Members, conditions: VariablesLike, *, seed: int) -> Tensor:
    """Disagreement of the members for each observation, (n,), in nats; see `Certificate`.

    With standard deviations s_k of the members and s of their mixture, all members counting the same, the
    mean divergence of the normal posteriors of members from the normal one with the moments of the mixture is
    log s - mean of log s_k. Whole numbers count as spread over an interval of length 1: equal draws have a
    variance.
    """
    draws = torch.stack(
        [
            member.standardized_draws(
                _DRAWS_FOR_AGREEMENT,
                member.given(conditions),
                None,
                seeding.derive(seed, "disagreement", name),
            )
            for name, member in members.items()
        ]
    ).to(torch.float64)
    means, variances = draws.mean(dim=2), draws.var(dim=2)
    for column, *_ in next(iter(members.values())).inference_network.discrete:
        variances[..., column] += 1 / 12
    tiny = torch.finfo(torch.float32).tiny
    mixture = variances.mean(dim=0) + means.var(dim=0, correction=0)
    divergence = (mixture.clamp_min(tiny).log() - variances.clamp_min(tiny).log().mean(dim=0)) / 2
    return divergence.amax(dim=1)


class EvaluationMode:
    """A context in which a module is in evaluation mode and gradients are off."""

    def __init__(self, module: CertifiedApproximator) -> None:
        self.module, self.no_grad = module, torch.no_grad()

    def __enter__(self) -> None:
        self.was_training = self.module.training
        self.module.eval()
        self.no_grad.__enter__()

    def __exit__(self, *error: object) -> None:
        self.no_grad.__exit__(*error)
        self.module.train(self.was_training)
