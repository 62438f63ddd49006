"""A step of the pipeline: a Prefect task with a cache key from its arguments, and a typed outcome."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from time import perf_counter
from typing import Any, Generic, ParamSpec, TypeVar

from prefect import task
from prefect.context import TaskRunContext
from prefect.tasks import Task
from pydantic import ValidationError

from sbi_models.errors import DataError
from sbi_models.pipeline.json_results import only_plain_json
from sbi_models.pipeline.outcomes import JSONObject, Outcome

P = ParamSpec("P")
O = TypeVar("O", bound=Outcome)  # noqa: E741 - outcome


class Step(Generic[P, O]):
    """A function that returns an outcome, as a Prefect task.

    Prefect keeps the outcome as plain JSON, which names no class, under a key made of the arguments alone.

    Args:
        fn: body of the step.
        name: name of the task, in runs and in the cache.
        outcome: type of what the body returns.
        key: cache key from the arguments of the body by name; None: the step runs each time.
    """

    def __init__(
        self,
        fn: Callable[P, O],
        name: str,
        outcome: type[O],
        key: Callable[[dict[str, Any]], str] | None,
    ) -> None:
        self.fn, self.name, self.outcome = fn, name, outcome

        @wraps(fn)
        def body(*arguments: P.args, **options: P.kwargs) -> JSONObject:
            return fn(*arguments, **options).model_dump()

        cached: dict[str, Any] = {}
        if key is not None:
            cached = {"persist_result": True, "result_serializer": "json", "cache_key_fn": keyed(key)}
        self.task: Task[..., JSONObject] = task(name=name, **cached)(body)

    def __call__(self, *arguments: P.args, **options: P.kwargs) -> O:
        """Run the task in the flow around it, or take its kept outcome."""
        return self.outcome.model_validate(self.task(*arguments, **options))

    def reuse(self, *arguments: Any, fresh: bool = False) -> tuple[O, bool]:
        """The outcome, and whether it was finished in an earlier run.

        What is damaged on disk is computed again, and everything if `fresh`.

        Raises:
            DataError: if the files of the outcome cannot be read back.
        """
        run = self.task.with_options(refresh_cache=True) if fresh else self.task
        state: Any = run(*arguments, return_state=True)  # a State; overloads of Task hide it
        outcome = self._kept(state.result())
        if outcome is not None and outcome.is_intact:
            return outcome, state.name == "Cached"
        again = self.task.with_options(refresh_cache=True)
        outcome = self.outcome.model_validate(again(*arguments))
        if not outcome.is_intact:
            raise DataError(
                f"What the task {self.name} has just written cannot be read back: {outcome}. Check the disk."
            )
        return outcome, False

    def _kept(self, content: Any) -> O | None:
        """A kept outcome; None if it is not of the type of this step."""
        try:
            return self.outcome.model_validate(content)
        except ValidationError:
            return None


def step(
    name: str, outcome: type[O], key: Callable[[dict[str, Any]], str] | None = None
) -> Callable[[Callable[P, O]], Step[P, O]]:
    """Decorator that makes a step of a function; arguments as for `Step`."""
    return lambda fn: Step(fn, name, outcome, key)


def keyed(key: Callable[[dict[str, Any]], str]) -> Callable[[TaskRunContext, dict[str, Any]], str]:
    """A cache key of Prefect from the arguments of a task alone.

    A result under it that is no plain JSON is removed before it is read.
    """
    return lambda context, arguments: only_plain_json(key(arguments))


def done(started: float) -> dict[str, Any]:
    """Fields of an outcome that ends now: seconds since a `perf_counter`, and the time."""
    finished = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return {"seconds": perf_counter() - started, "finished": finished}
