"""Numbers as texts, with as many digits as say something."""

from collections.abc import Mapping
from math import floor, isfinite, log10

from sbi_models.approximators.certificates.certificate import LEVEL, p_in_words

MISSING = "–"


def digits_of(sd: float) -> int:
    """Decimals that show two digits of a standard deviation."""
    return max(0, 1 - floor(log10(sd))) if sd > 0 and isfinite(sd) else 3


def fixed(value: float, digits: int) -> str:
    """A number with so many decimals; in powers of ten, of as many digits, where these would be many.

    >>> fixed(1126259462.4237, 3), fixed(1126259462.5, 7), fixed(5.4321e-46, 48)
    ('1126259462.424', '1126259462.5', '5.432e-46')
    """
    if digits <= 6 or not isfinite(value):
        return f"{value:.{digits}f}"
    before = floor(log10(abs(value))) + 1 if value else 0
    return f"{value:.{min(17, max(4, digits + before))}g}"


def number(value: float | None) -> str:
    """Three digits of a number."""
    return MISSING if value is None or not isfinite(value) else f"{value:.3g}"


def p_value(value: float | None, level: float = LEVEL) -> str:
    """A p-value with two digits, or as many as show on which side of a level it is."""
    if value is None or not isfinite(value):
        return MISSING
    return "< 1e-15" if value < 1e-15 else p_in_words(value, level)


def estimate(interval: Mapping[str, float | None], *, signed: bool = False, percent: bool = False) -> str:
    """A number with its interval."""
    value, low, high = (interval[name] for name in ("value", "low", "high"))
    if value is None:
        return MISSING
    text = _percent if percent else _signed if signed else _plain
    return text(value) if low is None or high is None else f"{text(value)} [{text(low)}, {text(high)}]"


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _signed(value: float) -> str:
    return f"{value:+.2f}"


def _plain(value: float) -> str:
    return f"{value:.2f}"
