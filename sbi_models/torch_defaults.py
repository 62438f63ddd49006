"""PyTorch's global defaults of the user: default device, default dtype, inference mode.

They reach the functions of the user, and not the computations of this package.

The default device and inference mode belong to a thread: public calls put them aside while they run
(`aside`), and functions of users get the device back (`as_user`). The default dtype belongs to the whole
process, so that it is never changed while anything is computed: dtypes are named where tensors are made, and
`single_precision` is for the moment in which layers are.
"""

import copy
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from threading import RLock
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    import torch

P = ParamSpec("P")
R = TypeVar("R")

_inside: ContextVar[bool] = ContextVar("inside a public call", default=False)
_device: ContextVar["torch.device | None"] = ContextVar("the default device of the user", default=None)
_layers = RLock()


def aside(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a function without the user's default device and inference mode.

    A call inside of another one costs nothing.
    """
    torch = sys.modules.get("torch")
    if (
        torch is None or not hasattr(torch, "get_default_device") or _inside.get()
    ):  # not, or not wholly, imported: nothing is set
        return function(*args, **kwargs)
    device = torch.get_default_device()
    tokens = _inside.set(True), _device.set(None if device.type == "cpu" else device)
    try:
        with ExitStack() as stack:
            if device.type != "cpu":
                stack.enter_context(torch.device("cpu"))
            if torch.is_inference_mode_enabled():
                stack.enter_context(torch.inference_mode(mode=False))
            return function(*args, **kwargs)
    finally:
        _inside.reset(tokens[0])
        _device.reset(tokens[1])


def as_user(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a function of the user with the default device that `aside` has put aside, in any thread."""
    device = _device.get()
    tokens = _inside.set(False), _device.set(None)
    try:
        if device is None:
            return function(*args, **kwargs)
        with device:
            return function(*args, **kwargs)
    finally:
        _inside.reset(tokens[0])
        _device.reset(tokens[1])


def in_double_precision(value: Any, copies: dict[int, Any] | None = None) -> Any:
    """A torch distribution or transform with all its tensors in float64 on the CPU.

    That includes those of the distributions and transforms inside.

    `made` has the copies that are made already: a transform and its inverse hold each other.
    """
    import torch  # noqa: PLC0415 - whoever has a distribution has imported it

    copies = {} if copies is None else copies
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", torch.float64) if value.is_floating_point() else value.detach().cpu()
    if isinstance(value, list | tuple):
        return type(value)(in_double_precision(item, copies) for item in value)
    if not isinstance(value, torch.distributions.Distribution | torch.distributions.Transform):
        return value
    if id(value) not in copies:
        copies[id(value)] = changed = copy.copy(value)
        changed.__dict__.update(
            {name: in_double_precision(item, copies) for name, item in vars(value).items()}
        )
    return copies[id(value)]


@contextmanager
def single_precision() -> Iterator[None]:
    """Make layers in float32 whatever the default dtype, which is changed by one thread at a time."""
    import torch  # noqa: PLC0415 - whoever makes layers has imported it

    with _layers:
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(before)
