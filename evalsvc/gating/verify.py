"""Verifies decision records by recomputing them from the scores in the store."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from evalsvc.errors import EvalsvcError, EvidenceError, UsageError
from evalsvc.files.bounded import read_bounded
from evalsvc.files.json_files import MOST_BYTES_OF_SETTINGS, parse_object
from evalsvc.gating.candidates import Candidate
from evalsvc.gating.decisions import (
    KIND,
    RECIPE_KIND,
    SCHEMA,
    STATISTICS,
    describe_decision,
    describe_inputs,
    judge,
    suite_record,
)
from evalsvc.gating.evidence import Evidence, gather
from evalsvc.gating.policy import Policy
from evalsvc.gating.recipe import gather_runs
from evalsvc.gating.verdict import RuleOutcome
from evalsvc.records.digests import canonical, digest
from evalsvc.records.serialise import build_record
from evalsvc.stats.multiplicity import share_alpha
from evalsvc.store.decisions import Decisions, Record, record_digest
from evalsvc.store.store import Store

_EVIDENCE = (
    *("suite", "task", "role", "metric", "filter", "n", "items"),
    *("base", "adapted", "difference", "lost", "gained", "scores", "adapted_scores"),
)
"""The fields of a record's inputs that are evidence."""


def read_record(path: Path) -> Record:
    """Read a decision record.

    Raises:
        UsageError: The file cannot be read.
        EvidenceError: The file is not a decision record.
    """
    name = f"decision {path}"
    try:
        data = read_bounded(path, name, UsageError, MOST_BYTES_OF_SETTINGS)
    except UsageError as error:
        raise UsageError(f"{error}; `evalsvc gate` writes decisions") from error
    return check_record(parse_object(data, name, EvidenceError), name)


def check_record(record: object, name: str = "decision") -> Record:
    """Return what is a decision record.

    Raises:
        EvidenceError: It is something else, or of another schema; the message begins with `name`.
    """
    if not isinstance(record, Mapping) or record.get("kind") not in (KIND, RECIPE_KIND):
        raise EvidenceError(f"{name}: is not a decision record; `evalsvc gate` writes decision records")
    if record.get("schema") != SCHEMA:
        raise EvidenceError(f"{name}: has schema {record.get('schema')}, this evalsvc reads {SCHEMA}")
    return dict(record)


def read_rules(record: Record) -> list[RuleOutcome]:
    """Return the outcomes of a decision record's rules."""
    return [build_record(RuleOutcome, _complete_rule(rule)) for rule in record["rules"]]


def _complete_rule(rule: Record) -> Record:
    """Return a rule of a record with the fields that version 0.1.0 did not write, derived from its name."""
    kind, suite, task = (*rule["rule"].split("/", 2), None)[:3]
    threshold = {"learning": rule["margin"], "diversity": rule["margin"] - 1}.get(kind, -rule["margin"])
    if kind == "diversity" or (kind, suite, task) == ("retention", "group", None):
        suite = task = None
    units = {"units": rule["n"], "unit_of_evidence": "prompts" if kind == "diversity" else "items"}
    return {"kind": kind, "suite": suite, "task": task, "threshold": threshold, **units, **rule}


def has_older_statistics(record: Record) -> bool:
    """Return whether a record's bounds and p-values were computed in another way than this version's."""
    return bool(record.get("statistics", 1) != STATISTICS)


def find_differences(store: Store, record: Record) -> list[str]:
    """Recompute a decision from the stored scores, and return the differences; none if it holds.

    Numbers are compared to nine digits, because the order of summation depends on the processor. Of a record with
    older statistics only the evidence is compared, not what was computed from it.
    """
    differences = []
    if record_digest(record) != record.get("digest"):
        differences.append("the record was edited: its digest does not match its content")
    try:
        differences += _chain_problems(Decisions(store.path).chain(record["base"]["digest"]), record)
        differences += _find_differences(record, _recompute(store, record))
    except (KeyError, TypeError, ValueError) as error:
        differences.append(f"the record was edited: {type(error).__name__}: {error}")
    except EvalsvcError as error:
        differences.append(f"it cannot be recomputed: {error}")
    return differences


def _chain_problems(chain: Sequence[Record], record: Record) -> list[str]:
    problems = []
    previous = None
    for number, kept in enumerate(chain, start=1):
        if record_digest(kept) != kept["digest"]:
            problems.append(f"decision {number} of this base was edited in the store: {kept['digest'][:12]}")
        if kept["previous"] != previous:
            problems.append(
                f"decision {number} of this base does not follow the previous one: a decision is missing or was changed"
            )
        previous = kept["digest"]
    if record["digest"] not in [kept["digest"] for kept in chain]:
        problems.append(f"the store has no decision {record['digest'][:12]}")
    elif record not in chain:
        problems.append(f"the store's decision {record['digest'][:12]} has other content")
    return problems


def _recompute(store: Store, record: Record) -> Record:
    policy = Policy.model_validate(record["policy"]["content"])
    evidence = _gather_recorded(store, policy, record)
    sources = {"policy": _describe_policy(policy), "suites": [suite_record(run) for run in evidence.plans]}
    if has_older_statistics(record):
        inputs = [{key: of_task[key] for key in _EVIDENCE} for of_task in describe_inputs(evidence)]
        return {**sources, "inputs": inputs}
    day = datetime.fromisoformat(record["decided"]).date()
    candidate = None
    if (entry := record.get("candidate")) is not None:
        level = share_alpha(policy.alpha, entry["number"], entry["batch_size"])
        candidate = replace(build_record(Candidate, entry), alpha=level)
    outcome = judge(policy, evidence, record["fraction"], day, candidate)
    recomputed = {
        **sources,
        "candidate": None if candidate is None else asdict(candidate),
        **describe_decision(evidence, outcome),
    }
    return dict(json.loads(json.dumps(recomputed, default=str)))


def _gather_recorded(store: Store, policy: Policy, record: Record) -> Evidence:
    """Return the evidence that a record names."""
    arms = {arm.digest: arm for arm in store.arms()}
    is_recipe, incumbent = record["kind"] == RECIPE_KIND, record.get("incumbent")
    scored = record["runs"] if is_recipe else [record["checkpoint"]]
    for entry in (record["base"], *scored, *([incumbent] if incumbent else [])):
        if entry["key"] not in arms:
            raise EvidenceError(f"the store no longer has scores of {entry['arm']}")
    base, several = arms[record["base"]["key"]], [arms[entry["key"]] for entry in scored]
    plans, sampled = [suite["plan"] for suite in record["suites"]], record.get("sampled")
    if is_recipe:
        name = record["checkpoint"]["arm"]
        return gather_runs(store, policy, name, base, several, plans=plans, sampled=sampled)
    return gather(
        store,
        policy,
        base,
        several[0],
        plans=plans,
        items={(suite, task): count for suite, task, count in record["items"]} or None,
        half=record["half"],
        sampled=sampled,
        incumbent=arms[incumbent["key"]] if incumbent else None,
    )


def _describe_policy(policy: Policy) -> Record:
    """Return the policy of a record with the keys that it had when the record was written."""
    content = policy.model_dump(mode="json", exclude_unset=True)
    return {"digest": digest("policy", canonical(content)), "content": content}


def _find_differences(record: Record, recomputed: Record) -> list[str]:
    differences = []
    for key, value in recomputed.items():
        if _same(record.get(key), value):
            continue
        if isinstance(value, list) and isinstance(record.get(key), list) and len(value) == len(record[key]):
            for before, recomputed_entry in zip(record[key], value, strict=True):
                if not _same(before, recomputed_entry):
                    name = recomputed_entry.get("rule") or "/".join(
                        str(recomputed_entry.get(part, "")) for part in ("suite", "task")
                    )
                    parts = [part for part in recomputed_entry if not _same(before.get(part), recomputed_entry[part])]
                    changes = ", ".join(
                        f"{part} {before.get(part)!r} -> {recomputed_entry[part]!r}" for part in parts[:4]
                    )
                    differences.append(f"{key} {name}: {changes}")
        else:
            differences.append(f"{key}: the record has {record.get(key)!r}, the stored scores give {value!r}"[:300])
    return differences


def _same(recorded: Any, recomputed: Any) -> bool:
    """Whether a recorded value equals the recomputed one; further keys of the record are ignored."""
    if isinstance(recorded, dict) and isinstance(recomputed, dict):
        return all(key in recorded and _same(recorded[key], value) for key, value in recomputed.items())
    if isinstance(recorded, list) and isinstance(recomputed, list):
        return len(recorded) == len(recomputed) and all(map(_same, recorded, recomputed))
    if isinstance(recorded, float) and recomputed is None:  # records of 0.1.0 have infinite numbers
        return not math.isfinite(recorded)
    if isinstance(recorded, float) and isinstance(recomputed, float):
        return math.isclose(recorded, recomputed, rel_tol=1e-9, abs_tol=1e-12)
    return bool(recorded == recomputed)
