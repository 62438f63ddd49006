"""Everything that knows MLflow: where runs are kept, how a run is written, how approximators are registered, loaded and served.

Importing this package does not import MLflow (about two seconds): each public name is fetched when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from sbi_models.tracking.environment import prepare_environment

if TYPE_CHECKING:
    from sbi_models.tracking.loading import is_model_uri, load
    from sbi_models.tracking.registry import ModelListing, RegisteredModel, list_models, register
    from sbi_models.tracking.store import Store, open_store
    from sbi_models.tracking.tracker import Tracker
    from sbi_models.tracking.ui import ui_command, ui_environment

__all__ = [
    "ModelListing",
    "RegisteredModel",
    "Store",
    "Tracker",
    "is_model_uri",
    "list_models",
    "load",
    "open_store",
    "register",
    "ui_command",
    "ui_environment",
]

_HOMES = {
    "ModelListing": "registry",
    "RegisteredModel": "registry",
    "Store": "store",
    "Tracker": "tracker",
    "is_model_uri": "loading",
    "list_models": "registry",
    "load": "loading",
    "open_store": "store",
    "register": "registry",
    "ui_command": "ui",
    "ui_environment": "ui",
}

prepare_environment()


def __getattr__(name: str) -> object:
    """The public name, from the module that defines it (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
