"""Every exception that evalsvc raises on purpose, and the exit code that each branch means.

    EvalsvcError             1  evalsvc could not do its task
    ├── UsageError           2  a command, file or setting that cannot be used as given
    │   ├── SuiteError          a suite or task file: unknown name, bad value, gold out of range
    │   ├── PolicyError         a policy file: bad value, or a rule that could never pass
    │   ├── CheckpointError     a path, hub id or adapter that is not a loadable checkpoint
    │   └── StoreError          the store's file: foreign, newer, locked, unwritable, disk full
    └── EvidenceError        5  scores that are missing or not comparable

Exit codes 3 and 4 (gate: fail, inconclusive) are verdicts, not errors. A message says what is wrong, the value,
the rule, and the next step, in one line; `cli` alone prints it. This module imports nothing.
"""

from __future__ import annotations


class EvalsvcError(Exception):
    """Base of all errors that users are shown without a traceback."""

    exit_code = 1


class UsageError(EvalsvcError):
    """The command, a file or a setting cannot be used as given."""

    exit_code = 2


class SuiteError(UsageError):
    """A suite, or a task in it, is wrong."""


class PolicyError(UsageError):
    """A policy is wrong, or could never be met."""


class CheckpointError(UsageError):
    """A checkpoint cannot be found, read or loaded."""


class StoreError(UsageError):
    """The store's file cannot be used."""


class EvidenceError(EvalsvcError):
    """Scores are missing, incomplete, or not comparable."""

    exit_code = 5
