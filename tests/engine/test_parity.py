"""On every architecture, packed unique tokens give the numbers of lm-eval's own model, one request at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lm_eval.models.huggingface import HFLM

from evalsvc.engine import likelihood, unpacked
from evalsvc.engine.attention import NAME, FlexPackAttention
from evalsvc.engine.packs import packs
from evalsvc.engine.parity import Parity, examine, make_parity_work
from tests.support import architectures, tiny
from tests.support.sequences import WINDOW, Item, build_work, make_sequences

pytestmark = pytest.mark.slow


def stock(model: Any, items: list[Item]) -> list[tuple[float, bool]]:
    # One at a time: stock's cache of one-token continuations mixes up splits of the same text.
    harness = HFLM(pretrained=model, tokenizer=tiny.make_tokenizer(), batch_size=1, max_length=WINDOW)
    return [
        harness._loglikelihood_tokens([(("", ""), context, target)], disable_tqdm=True)[0] for context, target in items
    ]


@pytest.fixture(scope="module", params=architectures.TRIE)
def model(request: pytest.FixtureRequest) -> Any:
    torch.set_num_threads(1)
    return architectures.make(request.param)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32), st.sampled_from([(1536, 256), (64, 16), (32, 4)]))
def test_the_trie_gives_stocks_numbers(model: Any, seed: int, sizes: tuple[int, int]) -> None:
    items = make_sequences(np.random.default_rng(seed))
    own = model.config._attn_implementation
    expected = stock(model, items)
    model.set_attn_implementation(NAME)
    found = likelihood.score(model, build_work(items), sizes[0], block=sizes[1])
    model.set_attn_implementation(own)
    for value, greedy, (wanted, wanted_greedy) in zip(found.loglikelihood, found.greedy, expected, strict=True):
        assert value == pytest.approx(wanted, abs=1e-4, rel=1e-6)
        assert greedy == wanted_greedy


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma2", "gpt_oss"])
def test_one_masked_kernel_gives_the_same_numbers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = architectures.make(name)
    made.set_attn_implementation(NAME)
    work = build_work(make_sequences(np.random.default_rng(1)))
    expected = likelihood.score(made, work, 64, block=16)
    monkeypatch.setattr(likelihood, "pack_attention", lambda _device: FlexPackAttention())
    for rows, block in ((64, 16), (1536, 256)):
        found = likelihood.score(made, work, rows, block=block)
        assert found.loglikelihood == pytest.approx(expected.loglikelihood, abs=1e-4)
        assert found.greedy.tolist() == expected.greedy.tolist()


def test_the_probe_chooses_the_trie_and_leaves_the_model_as_it_was(model: Any) -> None:
    own = model.config._attn_implementation
    parity = examine(model, own)
    assert parity.trie, parity.reason
    assert not parity.alone
    assert model.config._attn_implementation == own


@pytest.mark.parametrize("name", architectures.PLAIN)
def test_what_the_trie_cannot_follow_takes_the_plain_path_and_says_why(name: str) -> None:
    model = architectures.make(name)
    parity = examine(model, model.config._attn_implementation)
    assert not parity.trie
    assert "packed rows" in parity.reason
    assert not parity.alone
    items = make_sequences(np.random.default_rng(0))
    values, greedy = unpacked.score(model, build_work(items))
    for value, hit, (wanted, wanted_greedy) in zip(values, greedy, stock(model, items), strict=True):
        assert value == pytest.approx(wanted, abs=1e-4, rel=1e-6)
        assert hit == wanted_greedy


def test_a_rotation_that_depends_on_the_longest_sequence_bounds_the_trie() -> None:
    scaled = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0}
    model = architectures.make("llama", rope_parameters=scaled)
    assert examine(model, "sdpa").longest == WINDOW


def test_a_model_that_mixes_the_rows_of_a_batch_scores_them_one_by_one() -> None:
    model = architectures.make("llama")
    model.model.norm.register_forward_hook(lambda _module, _inputs, states: states + states.mean(dim=(0, 1)))
    parity = examine(model, "sdpa")
    assert not parity.trie
    assert parity.alone
    assert parity.path.endswith("; one sequence at a time, as its scores depend on the batch")
    items = make_sequences(np.random.default_rng(0))
    expected = stock(model, items)
    values, greedy = unpacked.score(model, build_work(items), unpacked.ALONE)
    assert values == pytest.approx([value for value, _ in expected], abs=1e-4, rel=1e-6)
    assert greedy.tolist() == [is_greedy for _, is_greedy in expected]
    assert unpacked.score(model, build_work(items))[0] != pytest.approx(values, abs=1e-2)


def test_a_wrong_mask_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    model = architectures.make("llama")

    def blind(*arguments: Any) -> Any:
        return [pack for pack in packs(*arguments) if setattr_ends(pack)]

    def setattr_ends(pack: Any) -> bool:
        pack.ends[:] = len(pack.ends)  # every row sees its neighbours' branches
        return True

    monkeypatch.setattr(likelihood, "packs", blind)
    parity: Parity = examine(model, "sdpa")
    assert not parity.trie
    assert "differ by" in parity.reason


def test_the_probe_has_every_kind_of_unit() -> None:
    made = packs(make_parity_work(300, (24, 40)).trie, 32, 8)
    assert any(pack.trunks for pack in made)
    assert any(pack.blocks for pack in made)
    assert any(ancestor.trunk not in {t.number for t in pack.trunks} for pack in made for ancestor in pack.ancestors)
