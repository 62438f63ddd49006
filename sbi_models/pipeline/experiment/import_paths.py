"""Objects by import path, from installed modules and from those in the folder of an experiment."""

import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

from sbi_models.errors import ConfigurationError, is_from_outside

_MOVED = {
    f"flows.{name}": f"sbi_models.pipeline.studies.{name}" for name in ("michelson", "influenza", "hare_lynx")
}
"""Modules of studies that published settings name by an earlier import path."""


def load_object(path: str, folder: str = "") -> Any:
    """The object at an import path `module:attribute`.

    The module may also be in a folder, which stays on the import path.

    Raises:
        ConfigurationError: if there is none, or if importing the module fails, which is then said.
    """
    module, _, attribute = path.partition(":")
    if module in _MOVED:
        warnings.warn(
            f"{module} is now {_MOVED[module]}: change the study in the settings.",
            FutureWarning,
            stacklevel=2,
        )
        module = _MOVED[module]
    if folder and str(Path(folder)) not in sys.path:
        sys.path.insert(0, str(Path(folder)))
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"Expected an import path 'module:attribute', got {path!r}: {error}"
        ) from None
    except BaseException as error:
        if is_from_outside(error):
            raise
        raise ConfigurationError(
            f"Importing {module!r} of {path!r} failed: {type(error).__name__}: {error}"
        ) from error
