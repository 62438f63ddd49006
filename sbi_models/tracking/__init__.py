"""MLflow: the tracking store, runs, registered models, and the server of a model.

Importing this package does not import MLflow (about two seconds): each public name is fetched when it is
first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sbi_models.tracking.loading import is_model_uri, load
    from sbi_models.tracking.record import FLOW_TAG, RunRecord
    from sbi_models.tracking.redaction import redacted
    from sbi_models.tracking.registry import list_models, register
    from sbi_models.tracking.server import serve
    from sbi_models.tracking.store import Store, file_lock, open_store
    from sbi_models.tracking.tracker import Tracker
    from sbi_models.tracking.ui import run_page, ui_command, ui_environment
    from sbi_models.tracking.versions import (
        AliasMove,
        ModelListing,
        RegisteredModel,
        alias_history,
        alias_of,
        annotate,
        set_alias,
        version_of,
    )

__all__ = [
    "FLOW_TAG",
    "AliasMove",
    "ModelListing",
    "RegisteredModel",
    "RunRecord",
    "Store",
    "Tracker",
    "alias_history",
    "alias_of",
    "annotate",
    "file_lock",
    "is_model_uri",
    "list_models",
    "load",
    "open_store",
    "redacted",
    "register",
    "run_page",
    "serve",
    "set_alias",
    "ui_command",
    "ui_environment",
    "version_of",
]

_HOMES = {
    "AliasMove": "versions",
    "alias_history": "versions",
    "FLOW_TAG": "record",
    "ModelListing": "versions",
    "RegisteredModel": "versions",
    "RunRecord": "record",
    "Store": "store",
    "Tracker": "tracker",
    "alias_of": "versions",
    "annotate": "versions",
    "file_lock": "store",
    "is_model_uri": "loading",
    "list_models": "registry",
    "load": "loading",
    "open_store": "store",
    "redacted": "redaction",
    "register": "registry",
    "run_page": "ui",
    "serve": "server",
    "set_alias": "versions",
    "ui_command": "ui",
    "ui_environment": "ui",
    "version_of": "versions",
}


def __getattr__(name: str) -> object:
    """The public name, from the module that defines it (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
