"""Generation settings mean what lm-eval's HFLM makes of them."""

from __future__ import annotations

import re
from typing import Any

import pytest
import transformers
from lm_eval.models.utils import normalize_gen_kwargs

from evalsvc.records.generation import LIMITS, STRATEGY, Decoding, find_problem, make_explicit, read_decoding


@pytest.mark.parametrize(
    ("settings", "strategy"),
    [
        ({"until": "x"}, {"do_sample": False}),
        ({"until": ["x", "y"], "max_tokens": 5, "max_gen_toks": 7}, {"do_sample": False}),
        ({"until": ["x", ""]}, {"do_sample": False}),
        ({"until": [], "max_new_tokens": "12", "max_length": 40}, {"do_sample": False}),
        ({"temperature": 0.7, "top_p": 0.9}, {"do_sample": True, "temperature": 0.7, "top_p": 0.9}),
        ({"do_sample": False, "temperature": 0.7}, {"do_sample": False}),
        ({"do_sample": True, "temperature": 0.4}, {"do_sample": True, "temperature": 0.4}),
        ({"do_sample": True}, {"do_sample": True, "temperature": 1.0}),
        ({"do_sample": True, "temperature": 0}, {"do_sample": False}),
    ],
)
def test_settings_are_read_as_lm_eval_reads_them(settings: dict[str, Any], strategy: dict[str, Any]) -> None:
    assert find_problem(settings) is None
    decoding = read_decoding(settings)
    stock = normalize_gen_kwargs(settings)
    assert decoding == Decoding(
        stops=tuple(stock["until"]),
        max_gen_toks=stock["max_gen_toks"],
        max_length=stock.get("max_length"),
        strategy=strategy,
    )
    assert read_decoding(make_explicit(settings)) == decoding


def test_every_setting_of_transformers_is_obeyed_or_refused_by_name() -> None:
    config: Any = transformers.GenerationConfig
    known = {name for name in vars(config()) if not name.startswith("_")}
    assert known - {"transformers_version"} >= STRATEGY
    for name in known - STRATEGY - {*LIMITS, "max_length"}:
        assert f"{name}: 7 is not supported" in str(find_problem({name: 7})), name


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"temprature": 1}, "temprature: 1 is not supported; did you mean temperature"),
        ({"stop": ["x"]}, r"stop: \['x'\] is not supported; use until"),
        ({"num_return_sequences": 3}, "num_return_sequences: 3 is not supported; set the task's repeats"),
        ({"max_gen_toks": 0}, "max_gen_toks: must be a number of tokens, at least 1, got 0"),
        ({"max_length": "all"}, "max_length: must be a number of tokens"),
        ({"until": 3}, "until: must be"),
        ({"do_sample": "false"}, "do_sample: must be true or false, got 'false'"),
        ({"temperature": -1}, "temperature: must be a number, at least 0, got -1"),
    ],
)
def test_what_cannot_be_obeyed_is_named(settings: dict[str, Any], problem: str) -> None:
    assert re.search(problem, str(find_problem(settings)))
