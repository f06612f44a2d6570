"""Arms of a store: rows as records, arms by name, and which base an arm is compared with."""

from __future__ import annotations

import difflib
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from evalsvc.errors import EvidenceError, UsageError
from evalsvc.records.arms import DECLARED, Checkpoint, Cost, Serving, served_label
from evalsvc.records.serialise import build_record
from evalsvc.store.database import Connection
from evalsvc.store.rows import Row, fetch_rows


@dataclass(frozen=True, slots=True)
class Family:
    """A base arm and the arms that were adapted from it, under the same numerics."""

    base: StoredArm
    arms: tuple[StoredArm, ...]


def find_arm(arms: Sequence[StoredArm], text: str) -> StoredArm:
    """Return the arm that a user means by a label, name, path or the beginning of a digest.

    Raises:
        UsageError: None or several are meant; the message lists them.
    """
    path, prefix = str(Path(text).expanduser().resolve()), text.removeprefix("sha256:")
    meanings: tuple[Callable[[StoredArm], bool], ...] = (
        lambda arm: arm.label == text,
        lambda arm: arm.checkpoint.name == text,
        lambda arm: arm.checkpoint.path == path and not arm.checkpoint.is_prompted,
        lambda arm: len(text) >= 4 and arm.checkpoint.digest.removeprefix("sha256:").startswith(prefix),
    )
    for meant in meanings:
        found = [arm for arm in arms if meant(arm) and not arm.is_rerun]
        # The same checkpoint under newer numerics replaces its older self; as usual served it stands for all others.
        newest = {arm.checkpoint.digest: arm for arm in sorted(found, key=lambda arm: not arm.serving.words)}
        if len(newest) == 1:
            return next(iter(newest.values()))
        if newest:
            listed = ", ".join(f"{a.label} ({a.checkpoint.digest[7:19]})" for a in newest.values())
            raise UsageError(f"arm {text!r}: means {len(newest)} arms: {listed}; give a label or a digest")
    near = difflib.get_close_matches(text, [arm.label for arm in arms], n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "see `evalsvc status`"
    raise UsageError(f"arm {text!r}: the store has none of that name, path or digest; {hint}")


def find_base(arms: Sequence[StoredArm], adapted: StoredArm) -> StoredArm:
    """Return the arm that an arm is held against: its base under the same numerics and quantisation.

    What quantising itself does to a base is shown against the base as it is.

    Raises:
        EvidenceError: It has no base, or the base was scored otherwise.
    """
    checkpoint, quantisation = adapted.checkpoint, adapted.serving.quantisation
    parent = checkpoint.parent
    if parent is None and quantisation is not None:
        parent, quantisation = checkpoint.digest, None
    if parent is None:
        raise EvidenceError(f"{adapted.label} is a base: there is nothing to compare it with; name an adapted arm")
    found = [arm for arm in arms if arm.checkpoint.digest == parent]
    same = [arm for arm in found if arm.numerics == adapted.numerics and arm.serving == Serving(False, quantisation)]
    if not same:
        reason = "was scored under other numerics or quantisation" if found else "is not in the store"
        label = adapted.label
        raise EvidenceError(f"the base of {label} {reason}; submit {label} again, which scores its base alongside")
    return same[-1]


def find_rerun(arms: Sequence[StoredArm], base: StoredArm) -> StoredArm | None:
    """Return the second run of a base under the same numerics, if it had one."""
    key = json.loads(base.numerics)
    for arm in reversed(arms):
        if arm.checkpoint.digest == base.checkpoint.digest and arm.serving == base.serving:
            numerics = json.loads(arm.numerics)
            if numerics.pop("rerun", 0) and numerics == key:
                return arm
    return None


def _belongs_to(arm: StoredArm, base: StoredArm) -> bool:
    """Whether `find_base` holds an arm against this base, of those with the base's digest and numerics."""
    if arm.checkpoint.digest == base.checkpoint.digest:
        return arm != base and not base.serving.words
    return arm.serving.quantisation == base.serving.quantisation


def group_families(arms: Sequence[StoredArm]) -> list[Family]:
    """Return every base that has adapted arms, with the newest numerics under which it has any."""
    kin: dict[tuple[str, str], list[StoredArm]] = defaultdict(list)
    for arm in arms:
        kin[arm.checkpoint.parent or arm.checkpoint.digest, arm.numerics].append(arm)
    found: dict[str, Family] = {}
    for members in kin.values():
        for base in (arm for arm in members if arm.checkpoint.parent is None):
            children = tuple(arm for arm in members if _belongs_to(arm, base))
            if children:
                found[base.checkpoint.digest + base.serving.words] = Family(base, children)
    return list(found.values())


def find_family(arms: Sequence[StoredArm], base: str | None = None) -> Family:
    """Return the family of a base; without a name, the only one.

    Raises:
        UsageError: There are several, or none of that name.
        EvidenceError: No base in the store has adapted arms.
    """
    known = group_families(arms)
    if base is not None:
        wanted = find_arm(arms, base)
        for family in known:
            if (family.base.checkpoint.digest, family.base.serving) == (wanted.checkpoint.digest, wanted.serving):
                return family
        raise EvidenceError(f"{base}: nothing in the store was adapted from it; submit an adapted checkpoint")
    if not known:
        raise EvidenceError(
            "the store has no adapted checkpoint yet: evalsvc submit CHECKPOINT --base BASE --suite SUITE"
        )
    if len(known) > 1:
        names = ", ".join(family.base.label for family in known)
        raise UsageError(f"the store has {len(known)} bases ({names}); choose one with --base")
    return known[0]


_CHECKPOINT = ", ".join(f"c.{name}" for name in [*(f.name for f in fields(Checkpoint) if f.name != "cost"), *DECLARED])


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredArm:
    """An arm in the store, under the number that its rows carry."""

    number: int
    digest: str
    checkpoint: Checkpoint
    numerics: str
    serving: Serving = Serving()

    @property
    def label(self) -> str:
        """What people call it: the checkpoint's label, and how it is served unless that is as usual."""
        return served_label(self.checkpoint, self.serving)

    @property
    def is_rerun(self) -> bool:
        """Whether this is a base scored once more, to see how much changes by itself."""
        return bool(json.loads(self.numerics).get("rerun"))


def read_arms(connection: Connection) -> dict[int, StoredArm]:
    """Return all arms by number, oldest first."""
    cursor = connection.execute(
        f"""
        WITH asked AS (
            SELECT u.arm, u.prompt_tokens FROM runs u JOIN plans p USING (plan)
            WHERE u.state = 'done' AND p.role = 'domain' AND p.part_of IS NULL
            QUALIFY row_number() OVER (PARTITION BY u.arm, p.suite ORDER BY u.plan DESC) = 1
        ),
        known AS (SELECT arm, avg(prompt_tokens) AS tokens FROM asked GROUP BY arm)
        SELECT a.arm, a.digest AS key, a.numerics, a.merged, a.quantisation, k.tokens AS tokens_per_query,
               n.trainable / n.parameters AS changed_share, {_CHECKPOINT}
        FROM arms a JOIN checkpoints c ON c.digest = a.checkpoint
        LEFT JOIN known k ON k.arm = a.arm LEFT JOIN changes n ON n.checkpoint = a.checkpoint ORDER BY a.arm
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
    """Return a checkpoint with its cost: as declared or read from its files, else as its weights were compared."""
    share = row["changed_share"] if row["trainable_share"] is None else row["trainable_share"]
    return build_record(Checkpoint, row, cost=build_record(Cost, row, trainable_share=share))
