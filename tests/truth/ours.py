"""What evalsvc says of a folder, by the path that `submit` takes: checks, then one scorer that keeps its base."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evalsvc.checkpoints.discover import Description, open_base, open_checkpoints
from evalsvc.engine.encoding import load_encoder
from evalsvc.engine.scorer import Scorer
from evalsvc.engine.sharding import cut_requests
from evalsvc.records.arms import Arm, Checkpoint, Serving
from evalsvc.records.plans import Request, Response
from evalsvc.records.shards import Shard
from evalsvc.scoring.preflight import examine_checkpoints, refuse_errors
from tests.support.tiny import NUMERICS


def open_checked(folder: Path, base: Path, *, base_anyway: bool = False) -> Checkpoint:
    """Return the checkpoint in a folder after the checks of `submit`, which may refuse it."""
    if folder == base:
        return open_base(str(base))
    root, (checkpoint,) = open_checkpoints(str(folder), str(base), Description())
    refuse_errors(examine_checkpoints(root, [checkpoint], {checkpoint.digest} if base_anyway else ()))
    return checkpoint


def answer(
    scorer: Scorer, checkpoint: Checkpoint, requests: Sequence[Request], serving: Serving | None = None
) -> list[Any]:
    """Return (nats, greedy), nats, or text of each request, as `oracle.ask` does."""
    cut = cut_requests(requests, load_encoder(checkpoint))
    assert not cut.refused
    responses: dict[str, Response] = {}
    for part in cut.slices:
        keys = cut.digests(part)
        shard = Shard(key=str(keys), arm=Arm(checkpoint, NUMERICS, serving or Serving()), requests=keys, work=part.work)
        responses |= {response.request: response for response in scorer.score(shard).responses}
    answers: list[Any] = []
    for request in requests:
        response = responses[request.digest]
        if request.kind == "loglikelihood":
            answers.append((response.loglikelihood, response.greedy))
        else:
            answers.append(response.text if request.kind == "generate_until" else response.loglikelihood)
    return answers
