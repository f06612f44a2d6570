"""Every exception that evalsvc raises on purpose, with the exit code of each branch.

    EvalsvcError             1  evalsvc could not complete its task
    ├── UsageError           2  a command, file or setting that cannot be used as given
    │   ├── SuiteError          a suite or task file: unknown name, bad value, gold out of range
    │   ├── PolicyError         a policy file: bad value, or a rule that could never pass
    │   ├── CheckpointError     a path, Hub id or adapter that is not a loadable checkpoint
    │   └── StoreError          the store's file: not a store, newer, locked, read-only, disk full
    └── EvidenceError        5  scores that are missing or not comparable

Exit codes 3 and 4 (gate: fail, inconclusive) are verdicts, not errors. A message is one line: what is wrong, the value,
the rule, and the next step. Only `cli` prints it. This module imports nothing.
"""

from __future__ import annotations


class EvalsvcError(Exception):
    """Base of all errors that are shown to users without a traceback."""

    exit_code = 1


class UsageError(EvalsvcError):
    """The command, a file or a setting cannot be used as given."""

    exit_code = 2


class SuiteError(UsageError):
    """A suite, or a task in it, is invalid."""


class PolicyError(UsageError):
    """A policy is invalid, or could never pass."""


class CheckpointError(UsageError):
    """A checkpoint cannot be found, read or loaded."""


class StoreError(UsageError):
    """The store's file cannot be used."""


class EvidenceError(EvalsvcError):
    """Scores are missing, incomplete, or not comparable."""

    exit_code = 5
