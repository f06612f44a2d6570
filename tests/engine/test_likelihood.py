"""What one pass over the packs yields besides log-likelihoods: divergences, references, and survival without memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import psutil
import pytest
import torch

from evalsvc.engine import likelihood
from evalsvc.engine.attention import NAME, PackAttention
from evalsvc.engine.packs import BLOCK_ROWS, Pack
from tests.support import architectures
from tests.support.sequences import build_work, make_sequences

ITEMS = make_sequences(np.random.default_rng(5))
WORK = build_work(ITEMS)


def model(name: str = "llama", seed: int = 0) -> Any:
    made = architectures.make(name, seed)
    made.set_attn_implementation(NAME)
    return made


@pytest.mark.parametrize("name", ["llama", "gemma2", "cohere"])
def test_divergence_is_that_of_full_distributions(name: str) -> None:
    base, adapted = model(name), model(name, seed=1)
    reference = likelihood.score(base, WORK, 64, keep=True).reference
    found = likelihood.score(adapted, WORK, 64, reference=reference)
    assert found.kl is not None
    for owner in range(len(ITEMS)):
        context, target = ITEMS[owner]
        tokens = torch.tensor([(context + target)[-97:][:-1]])
        for one in (base, adapted):
            one.set_attn_implementation("eager")
        with torch.no_grad():
            p, q = (one(tokens).logits[0, -len(target) :].double().log_softmax(-1) for one in (base, adapted))
        expected = (p.exp() * (p - q)).sum(-1).numpy()
        assert found.kl[WORK.owners == owner] == pytest.approx(expected, abs=1e-4, rel=1e-4)
    assert found.kl.min() > 0.01


def test_a_model_does_not_diverge_from_itself() -> None:
    base = model()
    reference = likelihood.score(base, WORK, 64, keep=True).reference
    again = likelihood.score(base, WORK, 64, reference=reference)
    assert again.kl is not None
    assert np.abs(again.kl).max() < 1e-6


def test_out_of_memory_halves_the_packs_and_keeps_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    base = model()
    expected = likelihood.score(base, WORK, 64, block=8)
    run = PackAttention.run
    sizes: list[int] = []

    def scarce(self: PackAttention, decoder: Any, pack: Pack, device: torch.device) -> torch.Tensor:
        if len(sizes) >= 2 and len(pack.tokens) > 32:
            raise torch.OutOfMemoryError("no memory")
        sizes.append(len(pack.tokens))
        return run(self, decoder, pack, device)

    monkeypatch.setattr(PackAttention, "run", scarce)
    monkeypatch.setattr(likelihood, "BLOCK_ROWS", 8)
    found = likelihood.score(base, WORK, 64, block=8)
    assert found.loglikelihood == pytest.approx(expected.loglikelihood, abs=1e-4)
    assert found.greedy.tolist() == expected.greedy.tolist()
    assert sum(sizes) < WORK.trie.rows + 2 * 64, "what was done was done again"


def test_out_of_memory_at_the_smallest_pack_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(PackAttention, "run", never)
    with pytest.raises(torch.OutOfMemoryError):
        likelihood.score(model(), WORK, 1024)


def test_the_same_work_gives_the_same_bits() -> None:
    base = model()
    one, two = (likelihood.score(base, WORK, 64).loglikelihood for _ in range(2))
    assert one.tobytes() == two.tobytes()


def test_packs_shrink_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    base = model()
    assert likelihood.pack_rows(base) == likelihood.CPU_PACK_ROWS
    memory = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory._replace(available=20_000_000))
    assert BLOCK_ROWS <= likelihood.pack_rows(base) < likelihood.CPU_PACK_ROWS
