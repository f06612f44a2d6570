"""evalsvc: does your adapted checkpoint learn without forgetting?

The Python API; every name is imported when it is first used:

    open            a store, with the functions below as its methods
    submit          score a checkpoint and its base on suites
    results         scores of suites and tasks
    compare         one arm against its base, item by item
    frontier        learning against forgetting of all arms of a base
    trajectory      a training run, step by step
    gate            decide whether a checkpoint may be promoted
    plan_gate       what a policy can resolve, before anything is scored
    verify          recompute a decision from the stored scores
    advise          the cheapest way of adapting that passes
    import_lm_eval  bring in results that lm-eval has written
    import_items    bring in a table of items

What they take, and raise:

    Cost            what training cost: GPU-hours, tokens, memory
    Policy          what a checkpoint must meet
    EvalsvcError    base of all errors
    UsageError      what was given cannot be used
    SuiteError      of these, a suite or a task
    PolicyError     of these, a policy
    CheckpointError of these, a checkpoint
    StoreError      of these, the store's file
    EvidenceError   scores are missing or not comparable

The packages, ground floor first: each may import those before it.

    errors       one exception tree, with the exit code of each branch
    settings     paths and addresses, from flags and EVALSVC_* variables
    files        one reader for YAML and one for JSON, with limits
    stats        pure statistics: arrays in, records out
    records      the nouns: Checkpoint, Arm, Request, Response, Plan, Comparison, Frontier
    store        one DuckDB file: records in, records out
    checkpoints  path, Hub id or adapter -> Checkpoint
    harness      lm-eval's tasks: suites, plans, grades
    engine       scoring on this machine's devices
    interchange  results of others, in and out
    scoring      a run: checkpoints and suites in, scores out; on Ray or in this process
    analysis     stored scores -> comparisons, frontiers, trajectories, claims
    gating       a Policy and scores -> a verdict, kept as a decision
    charts       records -> figures
    reports      records -> tables, JSON, Markdown, JUnit XML, HTML
    hooks        what is imported inside other people's training processes
    demo         the main job on models that are trained on the spot
    api          the Python API: questions in, reports out
    cli          the command line
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evalsvc.api import (
        advise,
        compare,
        frontier,
        gate,
        import_items,
        import_lm_eval,
        open,
        plan_gate,
        results,
        submit,
        trajectory,
        verify,
    )
    from evalsvc.errors import (
        CheckpointError,
        EvalsvcError,
        EvidenceError,
        PolicyError,
        StoreError,
        SuiteError,
        UsageError,
    )
    from evalsvc.gating.policy import Policy
    from evalsvc.records.arms import Cost

    __version__: str

__all__ = [
    "CheckpointError",
    "Cost",
    "EvalsvcError",
    "EvidenceError",
    "Policy",
    "PolicyError",
    "StoreError",
    "SuiteError",
    "UsageError",
    "__version__",
    "advise",
    "compare",
    "frontier",
    "gate",
    "import_items",
    "import_lm_eval",
    "open",
    "plan_gate",
    "results",
    "submit",
    "trajectory",
    "verify",
]

_MODULES = {"Cost": "records.arms", "Policy": "gating.policy"}


def __getattr__(name: str) -> Any:
    """Import a name of the API when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version  # takes a tenth of a second

        try:
            value: Any = version("evalsvc")
        except PackageNotFoundError:  # a checkout that was never installed
            value = "0.0.0"
    else:
        module = _MODULES.get(name, "errors" if name.endswith("Error") else "api")
        value = getattr(import_module(f"evalsvc.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the API, for completion in a notebook."""
    return sorted({*globals(), *__all__})
