"""What every training of these tests costs beside its steps, paid once."""

from functools import cache

import pytest
from lightning.pytorch.trainer.connectors import callback_connector


@pytest.fixture(scope="session", autouse=True)
def _entry_points_are_read_once():
    """Lightning asks all installed packages for callbacks at each training, which none of them has."""
    with pytest.MonkeyPatch.context() as patch:
        found = cache(callback_connector._load_external_callbacks)
        patch.setattr(callback_connector, "_load_external_callbacks", found)
        yield
