"""Arms are known by what they are and how they are served."""

from __future__ import annotations

from evalsvc.records.arms import Arm, Serving
from evalsvc.records.digests import digest
from tests.support.fakes import NUMERICS, make_arm, make_checkpoint

CHILD = make_checkpoint(2, parent=make_checkpoint(1))


def test_the_usual_serving_has_the_key_that_arms_always_had() -> None:
    assert make_arm(1).key == digest(make_checkpoint(1).digest, NUMERICS.key())
    keys = {
        Arm(CHILD, NUMERICS, Serving(merged, kind)).key for merged in (False, True) for kind in (None, "int8", "nf4")
    }
    assert len(keys) == 6
