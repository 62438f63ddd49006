"""Training schedules by number of simulations: the defaults of `inference_network="auto"`.

They were chosen once, by the log density of new simulations, for 1 000 and 10 000 simulations of six models
of `simulators/benchmarks`: two_moons, gaussian_mixture, slcp, bernoulli_glm, sir and lotka_volterra.
Schedules of other numbers interpolate and extrapolate these.
"""

from dataclasses import dataclass

import numpy as np

from sbi_models import seeding
from sbi_models.types import Variables


@dataclass(frozen=True)
class TrainingSchedule:
    """Settings of one training on a known number of simulations.

    Attributes:
        batch_size: simulations in a step.
        steps: largest number of steps; early stopping ends most trainings before.
        learning_rate: peak of the learning rate.
        dropout: share of hidden units left out.
        ema: decay of the average of the weights.
    """

    batch_size: int
    steps: int
    learning_rate: float
    dropout: float
    ema: float

    def epochs(self, num_simulations: int) -> int:
        """Number of passes over so many simulations."""
        return max(1, round(self.steps * self.batch_size / num_simulations))

    @staticmethod
    def patience(epochs: int) -> int:
        """Number of epochs without a lower validation loss after which a training ends."""
        return max(3, epochs // 5)


def for_simulations(number: int) -> TrainingSchedule:
    """Schedule for training on so many simulations."""
    few = number < 3_000
    dropout = 0.1 if few else 0.05 if number < 30_000 else 0.0
    batch = 64 if few else 128 if number < 30_000 else 256
    steps = round(3_000 * (min(max(number, 300), 100_000) / 1_000) ** 0.3)
    return TrainingSchedule(min(batch, number), steps, 2e-3, dropout, 0.99)


def for_synthetic_data(number: int) -> TrainingSchedule:
    """Schedule for training a posterior on draws of a neural likelihood of so many simulations.

    These draws have no end.
    """
    return TrainingSchedule(256, 10_000 if number < 30_000 else 20_000, 3e-3, 0.0, 0.999)


def num_likelihood_networks(number: int) -> int:
    """Number of networks that learn the likelihood of so many simulations.

    Their mixture errs less than one of them, most where simulations are few.
    """
    return 3 if number < 3_000 else 2 if number < 30_000 else 1


_MOST_HELD_OUT = 5_000


def num_held_out(number: int) -> int:
    """Number of simulations, of so many, that are kept for validation."""
    return min(max(number // 10, 20), _MOST_HELD_OUT, number // 2)


def some_of(held_out: Variables) -> Variables:
    """At most as many rows as `num_held_out` gives, at random: weights of members need no more."""
    n = len(next(iter(held_out.values())))
    if n <= _MOST_HELD_OUT:
        return held_out
    rows = seeding.generator(0, "rows").permutation(n)[:_MOST_HELD_OUT]
    return {name: np.asarray(value)[rows] for name, value in held_out.items()}


def split_off(data: Variables, seed: int) -> tuple[Variables, Variables]:
    """Simulations to train on and held-out ones, in random order."""
    n = len(next(iter(data.values())))
    order = seeding.generator(seed, "order").permutation(n)
    number = num_held_out(n)
    train, held = (
        {name: np.asarray(value)[rows] for name, value in data.items()}
        for rows in (order[number:], order[:number])
    )
    return train, held
