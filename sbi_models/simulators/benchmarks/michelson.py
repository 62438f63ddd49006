"""Michelson's measurements of the speed of light in air, 1879: five experiments of twenty runs each.

Every speed is in km/s minus 299 000, the unit in which the data have been printed ever since. The model of
one experiment is the normal model with mu, the mean of its runs, and v, the log of their variance in
(km/s)^2:

    mu ~ Normal(800, 100),   v ~ Normal(2 log 100, 1),   speed_i ~ Normal(mu, exp(v / 2)),   i = 1..20

so a priori the speed is 299 800 +- 100 km/s and a run scatters by 37 to 271 km/s (central 95 %).

Source of the data: A. A. Michelson, Experimental determination of the velocity of light made at the United
States Naval Academy, Annapolis, Astronomical Papers 1 (1882), 109-145; also known as R's data set `morley`.
Today's value for the speed in air on this scale is 734.5: S. M. Stigler, Do robust estimators work with real
data?, Annals of Statistics 5 (1977), 1055-1098.
"""

from pathlib import Path

from sbi_models.simulators.benchmarks.normal import NormalModel

SPEED_OFFSET = 299_000.0
"""What to add to mu and to an observation for a speed in km/s."""

SPEED_TODAY = 734.5
"""The speed of light in air on the scale of the data (Stigler 1977)."""

DATA = Path(__file__).resolve().parents[2] / "data" / "michelson_speed_of_light.csv"
"""Columns experiment (1..5), run (1..20), speed (km/s minus 299 000)."""


class Michelson(NormalModel):
    """Normal model on the scale of Michelson's data: theta = (mu, log variance), 20 observations."""

    def __init__(self) -> None:
        super().__init__(location=800.0, scale=100.0, num_observations=20)


MODEL = Michelson()
SIMULATOR = MODEL.simulator
