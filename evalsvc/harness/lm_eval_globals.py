"""What lm-eval and its tasks keep per process: output, templates, imported task modules, random generators.

lm-eval runs once per process; evalsvc plans many suites in one. Every plan must be what a new process would get.
"""

from __future__ import annotations

import ast
import gc
import logging
import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import datasets
import lm_eval.api.task
import lm_eval.utils
import numpy as np
from jinja2 import StrictUndefined, Template
from jinja2.sandbox import SandboxedEnvironment
from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED

_TEMPLATES = 1024
"""Compiled templates that are kept."""
_LITERALS = 65_536
"""Parsed texts that are kept while a suite is planned."""


class _Templates(SandboxedEnvironment):
    """lm-eval's template environment, which compiles a template once, not for every document, and runs no code.

    The sandbox refuses what leads from a document's values to Python's own objects.
    """

    def __init__(self, original: Any) -> None:
        super().__init__(loader=original.loader, undefined=StrictUndefined, keep_trailing_newline=True)
        self.filters.update(original.filters)
        self._compile_once = lru_cache(_TEMPLATES)(self._compile_text)

    def from_string(self, source: Any, *_: Any, **__: Any) -> Any:
        """Return the compiled template of a text."""
        return self._compile_once(source)

    def _compile_text(self, source: str) -> Template:
        template = super().from_string(source)
        template.globals = dict(template.globals)  # a chain of mappings takes longer than rendering
        return template


_TEMPLATE_ENVIRONMENT = _Templates(lm_eval.utils.env)


class _Literals:
    """Python's `ast` for lm-eval's tasks: rendered choices are parsed once, not for every shot that shows them."""

    def __init__(self) -> None:
        self._parse_once = lru_cache(_LITERALS)(ast.literal_eval)

    def literal_eval(self, text: str) -> Any:
        """Return the value of a text; the caller may change it."""
        value = self._parse_once(text)
        return list(value) if type(value) is list and set(map(type, value)) <= {str} else deepcopy(value)


@contextmanager
def quiet() -> Iterator[None]:
    """Hide lm-eval's and datasets' progress bars and messages, and render their templates in a sandbox, fast.

    What lm-eval or a task prints does not reach the standard output, where `--json` has one object. Of an error that
    lm-eval logs, the exception that follows is told.
    """
    logger = logging.getLogger("lm_eval")
    level, bar, environment, literals = logger.level, lm_eval.api.task.tqdm, lm_eval.utils.env, lm_eval.api.task.ast
    bars = datasets.are_progress_bars_disabled()
    logger.setLevel(logging.CRITICAL)
    lm_eval.api.task.tqdm = lambda iterable, **_: iterable
    lm_eval.utils.env, lm_eval.api.task.ast = _TEMPLATE_ENVIRONMENT, _Literals()
    datasets.disable_progress_bars()
    try:
        with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            yield
    finally:
        logger.setLevel(level)
        lm_eval.api.task.tqdm, lm_eval.utils.env, lm_eval.api.task.ast = bar, environment, literals
        if not bars:
            datasets.enable_progress_bars()


@contextmanager
def collecting_later() -> Iterator[None]:
    """Let Python's collector of cycles wait: it would look at all of a plan's objects again and again, in vain."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def forget_task_modules() -> None:
    """Forget the Python files that lm-eval has imported for tasks: one may have drawn from a generator of its own."""
    for name, module in list(sys.modules.items()):
        if "__mtime__" in getattr(module, "__dict__", {}):  # lm-eval's mark
            del sys.modules[name]


# ------------------------------------------------------------------------------------------------ random generators


@dataclass(frozen=True, slots=True, eq=False)
class GlobalGenerators:
    """The states of the global random generators of Python, numpy and, where it is imported, torch."""

    python: Any
    numpy: Any
    torch: Any

    @classmethod
    def capture(cls) -> GlobalGenerators:
        """Return the states as they are now."""
        torch = sys.modules.get("torch")
        return cls(random.getstate(), np.random.get_state(), torch.get_rng_state() if torch else None)

    def install(self) -> None:
        """Set the generators to these states."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        if self.torch is not None:
            sys.modules["torch"].set_rng_state(self.torch)

    def equals(self, other: GlobalGenerators) -> bool:
        """Whether nothing was drawn between the two."""
        same_torch = self.torch is None or other.torch is None or bool((self.torch == other.torch).all())
        same_numpy = all(np.array_equal(ours, theirs) for ours, theirs in zip(self.numpy, other.numpy, strict=True))
        return self.python == other.python and same_numpy and same_torch


@contextmanager
def drawing_from(generators: GlobalGenerators) -> Iterator[None]:
    """Let tasks draw from global generators in these states, and put the caller's back afterwards."""
    before = GlobalGenerators.capture()
    generators.install()
    try:
        yield
    finally:
        before.install()


@contextmanager
def seed_generators(*, with_torch: bool) -> Iterator[None]:
    """Seed the global generators as `lm_eval.simple_evaluate` does before it loads tasks, and put the caller's back.

    Args:
        with_torch: Seed torch even if nothing has imported it; takes the seconds of its import.
    """
    with drawing_from(GlobalGenerators.capture()):
        random.seed(DEFAULT_RANDOM_SEED)
        np.random.seed(DEFAULT_OTHER_SEED)
        if with_torch or "torch" in sys.modules:
            lm_eval.utils.set_torch_seed(DEFAULT_OTHER_SEED)
        yield
