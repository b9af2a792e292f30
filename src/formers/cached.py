"""Results that are kept from call to call, tensors among them."""

from collections.abc import Callable
from functools import lru_cache
from typing import ParamSpec, TypeVar, cast

import torch

P = ParamSpec("P")
T = TypeVar("T")


def cached(most: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """`functools.lru_cache(most)` for a function that makes tensors: never in inference mode, since what a pass in that
    leaves behind may serve training later."""

    def decorate(make: Callable[P, T]) -> Callable[P, T]:
        return cast("Callable[P, T]", lru_cache(most)(torch.inference_mode(False)(make)))

    return decorate
