"""Arms of a store: reads them, finds them by name, and finds the base that an arm is compared with."""

from __future__ import annotations

import difflib
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from evalsvc.errors import EvidenceError, UsageError
from evalsvc.records.arms import (
    DECLARED,
    Checkpoint,
    Cost,
    Serving,
    find_reference,
    format_label,
    identify_reference,
)
from evalsvc.records.serialise import build_record
from evalsvc.store.database import Connection
from evalsvc.store.rows import Row, fetch_rows


@dataclass(frozen=True, slots=True)
class Family:
    """A base arm and the arms that were adapted from it, under the same numerics."""

    base: StoredArm
    arms: tuple[StoredArm, ...]


def find_arm(arms: Sequence[StoredArm], text: str) -> StoredArm:
    """Return the arm with this label, name, path or digest prefix.

    Raises:
        UsageError: None or several arms match; the message lists them.
    """
    path, prefix = str(Path(text).expanduser().resolve()), text.removeprefix("sha256:")
    meanings: tuple[Callable[[StoredArm], bool], ...] = (
        lambda arm: arm.label == text,
        lambda arm: arm.checkpoint.name == text,
        lambda arm: arm.checkpoint.path == path and not arm.checkpoint.is_prompted,
        lambda arm: len(text) >= 4 and arm.checkpoint.digest.removeprefix("sha256:").startswith(prefix),
    )
    for matches in meanings:
        matching = [arm for arm in arms if matches(arm) and not arm.is_rerun]
        # Of one checkpoint: the arm that is neither quantised nor merged, then the newest numerics.
        newest = {arm.checkpoint.digest: arm for arm in sorted(matching, key=lambda arm: not arm.serving.words)}
        if len(newest) == 1:
            return next(iter(newest.values()))
        if newest:
            listed = ", ".join(f"{a.label} ({a.checkpoint.digest[7:19]})" for a in newest.values())
            raise UsageError(f"arm {text!r}: {len(newest)} arms match: {listed}; give a label or a digest")
    near = difflib.get_close_matches(text, [arm.label for arm in arms], n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "see `evalsvc status`"
    raise UsageError(f"arm {text!r}: not in the store by label, name, path or digest; {hint}")


def find_base_folder(arms: Sequence[StoredArm], checkpoint: Checkpoint) -> str | None:
    """Return the folder of the base of a stored checkpoint: its own record of it, else where the base is."""
    folders = (arm.checkpoint.path for arm in arms if arm.checkpoint.digest == checkpoint.parent)
    return checkpoint.base_path or next(folders, None)


def find_base(arms: Sequence[StoredArm], adapted: StoredArm) -> StoredArm:
    """Return the arm that an arm is compared with; see `records.arms.identify_reference`.

    Raises:
        EvidenceError: The arm is a base, or its base is not in the store with the same numerics and quantisation.
    """
    reference, label = identify_reference(adapted), adapted.label
    if reference is None:
        raise EvidenceError(f"{label} is a base, which has no base to compare with; name an adapted arm")
    base = find_reference(adapted, arms)
    if base is None:
        known = any(arm.checkpoint.digest == reference[0] for arm in arms)
        reason = "was scored with other numerics or quantisation" if known else "is not in the store"
        raise EvidenceError(f"the base of {label} {reason}; submit {label} again, which scores its base alongside")
    return base


def find_rerun(arms: Sequence[StoredArm], base: StoredArm) -> StoredArm | None:
    """Return the second run of a base with the same numerics (A/A), if there is one."""
    key = json.loads(base.numerics)
    for arm in reversed(arms):
        if arm.checkpoint.digest == base.checkpoint.digest and arm.serving == base.serving:
            numerics = json.loads(arm.numerics)
            if numerics.pop("rerun", 0) and numerics == key:
                return arm
    return None


def group_families(arms: Sequence[StoredArm]) -> list[Family]:
    """Return every base with the arms that are compared with it, for the newest numerics that such arms have."""
    compared: dict[tuple[object, str], list[StoredArm]] = defaultdict(list)
    for arm in arms:
        compared[identify_reference(arm), arm.numerics].append(arm)
    families: dict[tuple[str, Serving], Family] = {}
    for base in arms:
        identity = base.checkpoint.digest, base.serving
        if base.checkpoint.parent is None and (children := compared.get((identity, base.numerics))):
            families[identity] = Family(base, tuple(children))
    return list(families.values())


def find_family(arms: Sequence[StoredArm], base: str | None = None) -> Family:
    """Return the family of a base; without a name, the store's only family.

    Raises:
        UsageError: The store has several families, or no arm of that name.
        EvidenceError: No base in the store has adapted arms.
    """
    families = group_families(arms)
    if base is not None:
        named = find_arm(arms, base)
        for family in families:
            if (family.base.checkpoint.digest, family.base.serving) == (named.checkpoint.digest, named.serving):
                return family
        raise EvidenceError(f"{base}: no arm in the store was adapted from it; submit an adapted checkpoint")
    if not families:
        raise EvidenceError(
            "the store has no adapted checkpoint; run: evalsvc submit CHECKPOINT --base BASE --suite SUITE"
        )
    if len(families) > 1:
        names = ", ".join(family.base.label for family in families)
        raise UsageError(f"the store has {len(families)} bases ({names}); choose one with --base")
    return families[0]


_CHECKPOINT = ", ".join(f"c.{name}" for name in [*(f.name for f in fields(Checkpoint) if f.name != "cost"), *DECLARED])


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredArm:
    """An arm in the store, with its number there.

    Attributes:
        digest: The arm's identity, `Arm.key`.
    """

    number: int
    digest: str
    checkpoint: Checkpoint
    numerics: str
    serving: Serving = Serving()

    @property
    def label(self) -> str:
        """The checkpoint's label, with quantisation and merging if any."""
        return format_label(self.checkpoint, self.serving)

    @property
    def run(self) -> tuple[str, int | None]:
        """What all steps of a training run share: the run's name and seed; names need not be unique."""
        return self.checkpoint.trajectory or self.checkpoint.name, self.checkpoint.seed

    @property
    def is_rerun(self) -> bool:
        """Whether this is a base scored a second time, to measure run-to-run noise (A/A)."""
        return bool(json.loads(self.numerics).get("rerun"))


def read_arms(connection: Connection) -> dict[int, StoredArm]:
    """Return all arms by number, oldest first."""
    cursor = connection.execute(
        f"""
        WITH newest AS (
            SELECT u.arm, u.prompt_tokens FROM runs u JOIN plans p USING (plan)
            WHERE u.state = 'done' AND p.role = 'domain' AND p.part_of IS NULL
            QUALIFY row_number() OVER (PARTITION BY u.arm, p.suite ORDER BY u.plan DESC) = 1
        ),
        queries AS (SELECT arm, avg(prompt_tokens) AS tokens FROM newest GROUP BY arm)
        SELECT a.arm, a.digest AS key, a.numerics, a.merged, a.quantisation, q.tokens AS tokens_per_query,
               n.trainable / n.parameters AS changed_share, {_CHECKPOINT}
        FROM arms a JOIN checkpoints c ON c.digest = a.checkpoint
        LEFT JOIN queries q ON q.arm = a.arm LEFT JOIN changes n ON n.checkpoint = a.checkpoint ORDER BY a.arm
        """
    )
    return {
        row["arm"]: StoredArm(
            number=row["arm"],
            digest=row["key"],
            checkpoint=_build_checkpoint(row),
            numerics=row["numerics"],
            serving=Serving(bool(row["merged"]), row["quantisation"]),
        )
        for row in fetch_rows(cursor)
    }


def _build_checkpoint(row: Row) -> Checkpoint:
    """Return a checkpoint with its cost; the trainable share as declared or read from files, else by its weights."""
    share = row["changed_share"] if row["trainable_share"] is None else row["trainable_share"]
    return build_record(Checkpoint, row, cost=build_record(Cost, row, trainable_share=share))
