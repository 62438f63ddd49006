"""Profiles of property tests: few examples, the same each time, or many new ones.

`quick` is the default. `make nightly` runs the files `test_*_properties.py` with `deep`, as does
`pytest --hypothesis-profile deep FILE`; an example that fails is printed with the line that repeats it.
"""

from hypothesis import HealthCheck, settings

_ALWAYS = settings(
    deadline=None,  # times belong into benchmarks
    database=None,  # examples of one run do not change the next, and leave no folder
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

settings.register_profile("quick", _ALWAYS, max_examples=12, derandomize=True)
settings.register_profile("deep", _ALWAYS, max_examples=1_000, print_blob=True)
settings.load_profile("quick")
