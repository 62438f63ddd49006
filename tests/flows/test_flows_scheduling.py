"""Schedules before they start: what cannot be scheduled is refused, and times are those of the time zone."""

import sys
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from sbi_models.cli.main import main
from sbi_models.errors import ConfigurationError
from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.pipeline.experiment.yaml_files import load_experiment
from sbi_models.pipeline.schedule import Times, refuse_versions


@pytest.mark.parametrize(
    ("prefect", "sqlalchemy", "works"),
    [
        ("3.8.8", "2.0.58", True),
        ("3.9.1", "2.1.9", True),
        ("3.10.0", "2.1.0", True),
        ("3.8.8", "2.1.9", False),
    ],
)
def test_versions_whose_scheduler_makes_no_runs_are_refused(
    prefect: str, sqlalchemy: str, works: bool
) -> None:
    """Prefect 3.8 with SQLAlchemy 2.1 would wait for ever; the error names the cure."""
    with nullcontext() if works else pytest.raises(ConfigurationError, match=r"pip install .*prefect>=3\.9"):
        refuse_versions(prefect, sqlalchemy)


@pytest.mark.parametrize(
    ("cron", "timezone", "message"),
    [
        ("0 3 * *", "UTC", "Expected a cron line of five fields"),
        ("0 3 * * * *", "UTC", "Expected a cron line of five fields"),
        ("0 30 * * *", "UTC", "got '0 30 \\* \\* \\*'"),
        ("H 3 * * *", "UTC", "Expected a cron line of five fields"),
        ("", "UTC", "got ''"),
        ("0 0 30 2 *", "UTC", "Expected a cron line with times to come"),
        ("0 3 * * *", "Europe/Berln", "Unknown time zone 'Europe/Berln'.*Europe/Berlin"),
    ],
)
def test_bad_times_are_refused(cron: str, timezone: str, message: str) -> None:
    """Too few or too many fields, an hour of 30, Jenkins' H, a thirtieth of February and an unknown time zone
    are errors with a cure."""
    with pytest.raises(ConfigurationError, match=message):
        Times(cron, timezone)


@pytest.mark.parametrize("timezone", ["UTC", "Europe/Berlin", "Asia/Kathmandu"])
def test_the_next_times_are_those_of_the_time_zone(timezone: str) -> None:
    """The next three times of a daily cron are to come, in the right zone, at the right hour there, on three
    days in a row."""
    times = Times("30 3 * * *", timezone).next()
    assert times[0] > datetime.now(UTC)
    assert times[0] - datetime.now(UTC) <= timedelta(days=1, hours=1)
    assert [(time.hour, time.minute, str(time.tzinfo)) for time in times] == [(3, 30, timezone)] * 3
    assert [(time.date() - times[0].date()).days for time in times] == [0, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("michelsn", "--cron", "* * * * *"), "Unknown experiment 'michelsn'. Did you mean 'michelson'?"),
        (("michelson", "--cron", "* * * *"), "Expected a cron line of five fields"),
        (("michelson", "--cron", "* * * * *", "--timezone", "Mars"), "Unknown time zone 'Mars'"),
        (
            ("michelson", "--cron", "* * * * *", "--flow", "pipelin"),
            "Unknown flow 'pipelin'. Did you mean 'pipeline'?",
        ),
    ],
)
def test_bad_schedules_are_one_line(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An unknown experiment, flow or time zone and a bad cron line end `sbi-models schedule` with one line
    and code 2; no server starts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["sbi-models", "schedule", *arguments])
    monkeypatch.setattr("sbi_models.pipeline.prefect_server.process.subprocess.Popen", None)
    with pytest.raises(SystemExit) as stop:
        main()
    errors = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in errors
    assert len(errors.strip().splitlines()) == 1


def test_the_deployments_of_prefect_yaml_are_the_experiments() -> None:
    """The parameters of each deployment are, after validation, the experiment of its name."""
    deployments = yaml.safe_load((Path(__file__).parents[2] / "prefect.yaml").read_text())["deployments"]
    assert deployments
    for deployment in deployments:
        assert Experiment.model_validate(deployment["parameters"]["experiment"]) == load_experiment(
            deployment["name"]
        )
