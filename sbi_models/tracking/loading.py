"""Load an approximator from a file or a registered model, without unpickling or running its code."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from sbi_models.approximators import Approximator, load_approximator
from sbi_models.arguments import known_arguments

if TYPE_CHECKING:
    from sbi_models.tracking.store import Store


def is_model_uri(source: Path | str) -> bool:
    """Whether `source` is an address in a tracking store rather than a path.

    >>> is_model_uri("models:/two_moons@champion"), is_model_uri("model.safetensors")
    (True, False)
    """
    return isinstance(source, str) and source.startswith(("models:/", "runs:/"))


@known_arguments
def load(source: Path | str, store: "Store | None" = None, *, certify: bool = True) -> Approximator:
    """The approximator at `source`.

    - a path: a file that was saved before;
    - `models:/NAME@ALIAS`, `models:/NAME/VERSION`, `models:/NAME/latest`: a registered model;
    - `runs:/RUN_ID/FILE.safetensors`: a file of a run; `runs:/RUN_ID/NAME`: the model NAME that the run has
      logged.

    A model from a store looks at every observation that it is sampled for, and warns (TrustWarning) where
    they are not like the simulations of its training; certify=False switches that off, and
    `certify(conditions)` says more. `store` defaults to the one that `open_store()` finds; a missing one is a
    TrackingError and is not made. Raises ModelFileError for a file that is damaged, or that is not the one
    that was registered.
    """
    if not is_model_uri(source):
        return load_approximator(source)
    # MLflow takes two seconds to import; whoever loads a plain file need not wait for it.
    from sbi_models.tracking.addresses import fetch, locate  # noqa: PLC0415
    from sbi_models.tracking.store import open_store  # noqa: PLC0415

    store = store or open_store(create=False)
    with TemporaryDirectory() as scratch:
        stored = load_approximator(fetch(store, locate(store, str(source)), Path(scratch)))
    stored.certifies_draws = certify
    return stored
