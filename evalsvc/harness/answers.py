"""The answers themselves, right or wrong: needed for agreement, parse failures and confidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from lm_eval.api.task import Task

from evalsvc.records.digests import canonical
from evalsvc.records.scores import identify_answer


class ParsedAnswer(NamedTuple):
    """The answer to one sample under one metric; see `records.Score`."""

    answer: int | None = None
    invalid: bool | None = None
    confidence: float | None = None


NO_ANSWER = ParsedAnswer()


class Reader:
    """Parses the answers of one task under one filter."""

    def __init__(self, task: Task, filter_name: str) -> None:
        self._task = task
        self._fallbacks = _find_fallbacks(task, filter_name)

    def parse(self, doc: Any, filtered: Sequence[Any], metric: str) -> ParsedAnswer:
        """Return the answer that a metric scores.

        Args:
            filtered: The filtered responses to the document's requests.
        """
        if self._task.OUTPUT_TYPE == "multiple_choice":
            return _find_choice(self._task, doc, filtered, metric)
        if self._task.OUTPUT_TYPE == "generate_until" and len(filtered) == 1:
            text = filtered[0] if isinstance(filtered[0], str) else canonical(filtered[0])
            return ParsedAnswer(identify_answer(text), not text.strip() or text in self._fallbacks)
        return NO_ANSWER


def _find_choice(task: Task, doc: Any, filtered: Sequence[Any], metric: str) -> ParsedAnswer:
    """Return the option with the highest (for acc_norm and acc_bytes: length-normalised) log-likelihood."""
    choices = task.doc_to_choice(doc)
    likelihoods = np.array([pair[0] for pair in filtered][: len(choices)], dtype=np.float64)
    if len(likelihoods) != len(choices) or metric not in {"acc", "acc_norm", "acc_bytes"}:
        return NO_ANSWER
    lengths = {
        "acc_norm": [len(choice) for choice in choices],
        "acc_bytes": [len(choice.encode("utf-8", "surrogatepass")) for choice in choices],
    }.get(metric, [1] * len(choices))
    best = int(np.argmax(likelihoods / np.array(lengths, dtype=np.float64)))
    share = np.exp(likelihoods - likelihoods.max())
    return ParsedAnswer(best, None, float(share[best] / share.sum()))


def _find_fallbacks(task: Task, filter_name: str) -> set[str]:
    """Return the texts that the filter's steps return if they cannot extract an answer."""
    fallbacks: set[str] = set()
    for ensemble in task._filters:
        if ensemble.name == filter_name:
            for step in ensemble.filters:
                fallback = getattr(step(), "fallback", None)
                fallbacks |= {fallback} if isinstance(fallback, str) else set()
    return fallbacks
