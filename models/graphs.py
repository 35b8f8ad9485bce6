"""CUDA graphs: a model's call is captured once for every shape of its arguments, and replayed after that."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor

P = ParamSpec("P")
Result = TypeVar("Result")
Capture = Callable[[Callable[[], Any]], tuple[Callable[[], None], Any]]

WARM_CALLS = 2  # before a capture: kernels are compiled and libraries set up


@dataclass(frozen=True)
class _Captured:
    inputs: list[Tensor]  # that the graph reads
    replay: Callable[[], None]
    results: Any  # that it writes


def capture_cuda(run: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
    """Capture a call on the current device: what replays it, and the results that every replay writes anew."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_CALLS):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        results = run()
    return graph.replay, results


class CudaGraphs:
    """Calls functions of tensors by replaying what they launched before.

    Launching the kernels of a small model takes the CPU longer than running them takes the GPU, and the first and
    the steady chunk of every stream launch the same ones each time.

    Arguments are tensors, tuples or lists of them, and other values that can be compared; results are tensors and
    tuples of them. The first dimension of every tensor counts streams, or a multiple of them: a batch is filled up
    with its last stream to a power of two, so that few graphs serve all. A function must not look at values on the
    host. What cannot be captured is called as it is, with a warning.

    Args:
        capture: how a call is captured; tests put another way in its place.
        most: graphs that are kept; the one that was not used for longest goes first.
    """

    def __init__(self, capture: Capture = capture_cuda, most: int = 32) -> None:
        self._capture = capture
        self._most = most
        self._captured: dict[Any, _Captured | None] = {}

    def __call__(self, function: Callable[P, Result], *arguments: P.args, **named: P.kwargs) -> Result:
        """function(*arguments, **named), in new tensors."""
        given = (arguments, tuple(sorted(named.items())))
        tensors = _tensors(given)
        batch = tensors[0].shape[0]
        bucket = 1 << (batch - 1).bit_length()
        key = (
            function,
            torch.is_autocast_enabled(tensors[0].device.type),
            _mapped(given, lambda x: (x.shape[0] // batch * bucket, *x.shape[1:], x.dtype, x.device)),
        )
        if key in self._captured:
            captured = self._captured.pop(key)
        else:
            captured = self._captured_call(function, _mapped(given, lambda x: _filled(x, batch, bucket).clone()))
            if len(self._captured) >= self._most:
                del self._captured[next(iter(self._captured))]
        self._captured[key] = captured
        if captured is None:
            return function(*arguments, **named)
        for mine, theirs in zip(captured.inputs, tensors, strict=True):
            mine[: len(theirs)].copy_(theirs)
            mine[len(theirs) :].copy_(_filled(theirs, batch, bucket)[len(theirs) :])
        captured.replay()
        return cast(Result, _mapped(captured.results, lambda x: x[: x.shape[0] // bucket * batch].clone()))

    def _captured_call(self, function: Callable[..., Any], given: Any) -> _Captured | None:
        """A captured call on tensors that stay where they are; None if it cannot be."""
        arguments, named = given
        try:
            replay, results = self._capture(lambda: function(*arguments, **dict(named)))
        except RuntimeError as error:
            name = getattr(function, "__qualname__", type(function).__name__)
            logging.warning("%s runs without a CUDA graph, since it could not be captured: %s", name, error)
            return None
        return _Captured(_tensors(given), replay, results)


def _mapped(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """The same value with something in the place of each tensor; lists become tuples."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple | list):
        return tuple(_mapped(item, change) for item in value)
    return value


def _tensors(value: Any) -> list[Tensor]:
    """All tensors in a value, in order."""
    found: list[Tensor] = []
    _mapped(value, found.append)
    return found


def _filled(x: Tensor, batch: int, bucket: int) -> Tensor:
    """Rows of `batch` streams, and those of the last one again until they are of `bucket`."""
    if batch == bucket:
        return x
    last = x[len(x) - len(x) // batch :]
    return torch.cat([x, *[last] * (bucket - batch)])
