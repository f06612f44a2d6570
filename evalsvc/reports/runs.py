"""Runs and their progress."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from rich.table import Table
from rich.text import Text

from evalsvc.errors import EvidenceError
from evalsvc.reports.formatting import format_count, new_table
from evalsvc.reports.report import Report, describe_arm
from evalsvc.store.runs import StoredRun, is_alive

if TYPE_CHECKING:
    from evalsvc.scoring.driver import RunJob


@dataclass(frozen=True, slots=True, repr=False)
class RunsReport(Report):
    """Runs, as `submit` and `status` show them.

    Attributes:
        alive: For each run, whether the process that drives it still runs.
        reused: For each run of a submission, the number of requests with stored responses; None for `status`.
    """

    ROWS: ClassVar[str] = "runs"
    runs: tuple[StoredRun, ...]
    alive: tuple[bool, ...]
    reused: tuple[int, ...] | None = None

    @classmethod
    def of_store(cls, runs: Iterable[StoredRun]) -> RunsReport:
        """Report on all runs of a store."""
        kept = tuple(runs)
        return cls(kept, tuple(is_alive(run.driver) for run in kept))

    @classmethod
    def of_jobs(cls, runs: Iterable[StoredRun], jobs: Sequence[RunJob]) -> RunsReport:
        """Report on the runs of a submission.

        Args:
            runs: All runs of the store.
        """
        reused = {(job.arm.key, job.planned.plan.digest): job.reused for job in jobs}
        kept = tuple(run for run in runs if (run.arm.digest, run.plan) in reused)
        return cls(kept, (True,) * len(kept), tuple(reused[run.arm.digest, run.plan] for run in kept))

    def raise_for_failures(self) -> None:
        """Raise an error if a run is not done.

        Raises:
            EvidenceError: Names the first run's error.
        """
        failed = [run for run in self.runs if run.state != "done"]
        if failed:
            raise EvidenceError(
                f"{len(failed)} of {len(self.runs)} runs failed (first: {failed[0].error}); see `evalsvc status`"
            )

    def content(self) -> dict[str, Any]:
        """Return the runs, each with its arm."""
        runs = [
            {
                "run": run.run,
                **describe_arm(run.arm.checkpoint, run.arm.label),
                "suite": run.suite,
                "role": run.role,
                "state": run.state,
                "requests": run.requests,
                "answered": run.answered,
                "failed": run.failed,
                "error": run.error,
                "part_of": run.part_of,
                "driver_alive": lives,
                "updated": run.updated.isoformat(),
            }
            for run, lives in zip(self.runs, self.alive, strict=True)
        ]
        for entry, reused in zip(runs, self.reused or (), strict=False):
            entry["reused"] = reused
        return {"runs": runs}

    def tables(self) -> list[Table | Text]:
        """Return one table, a row per run."""
        table = new_table("Runs", "arm", "method", "suite", "role", "state", "#answered", "#of", "updated", "note")
        for run, lives in zip(self.runs, self.alive, strict=True):
            stopped = run.state in {"queued", "running"} and not lives
            look = "interim look of a gate" if run.part_of else ""
            table.add_row(
                run.arm.label,
                run.arm.checkpoint.method,
                run.suite,
                run.role,
                run.state,
                format_count(run.answered),
                format_count(run.requests),
                f"{run.updated:%Y-%m-%d %H:%M}",
                run.error or ("its driver has stopped; submit again to resume" if stopped else look),
            )
        return [table]
