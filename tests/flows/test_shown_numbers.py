"""Tables on the screen, the page and the run show what is known of a number: as many digits as its sd asks
for, whatever its offset."""

import io

import pytest
from rich.console import Console

from sbi_models.cli import sample as sampling
from sbi_models.pipeline.report.markdown import markdown_table
from sbi_models.pipeline.report.numbers import digits_of, fixed

ROW = {"mean": 1126259462.42371, "sd": 0.0021, "2.5 %": 1126259462.41949}


@pytest.mark.parametrize(
    ("value", "sd", "shown"),
    [
        (1126259462.42371, 0.0021, "1126259462.4237"),
        (2461000.512345, 0.11, "2461000.51"),
        (1126259462.4237123, 2.2e-7, "1126259462.4237123"),
        (5.4321e-46, 1.1e-47, "5.432e-46"),
        (-5.4321e-46, 1.1e-46, "-5.432e-46"),
        (0.0, 1e-40, "0"),
        (123456.7, 1000.0, "123457"),
        (1.5, 0.0, "1.500"),
        (float("nan"), 1e-9, "nan"),
    ],
)
def test_numbers_have_the_digits_that_their_sd_asks_for(value: float, sd: float, shown: str) -> None:
    """Two digits of the sd; with fewer than four in all, four."""
    assert fixed(value, digits_of(sd)) == shown


def test_gps_times_are_whole_in_the_summary_of_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """The screen of `sbi-models sample` tells mean and quantile apart, which differ in the thirteenth
    digit."""
    screen = io.StringIO()
    monkeypatch.setattr(sampling, "Console", lambda **_: Console(file=screen, width=200))
    sampling._print_summary("title", [{"data_set": "1", "parameter": "t", **ROW}], None, [], [])
    assert "1126259462.42371" in screen.getvalue()
    assert "1126259462.41949" in screen.getvalue()


def test_gps_times_are_whole_in_the_description_of_a_run() -> None:
    """So does the table that MLflow's pages show."""
    (*_, row) = markdown_table([{"quantity": "t", "unit": "s", **ROW}])
    assert "| 1126259462.423710 | 0.002100 | 1126259462.419490 |" in row
