"""Imported scores and matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rich.table import Table
from rich.text import Text

from evalsvc.interchange.arms import Imported
from evalsvc.records.matrices import Matrix
from evalsvc.reports.formatting import format_nouns, new_line
from evalsvc.reports.report import Report


@dataclass(frozen=True, slots=True, repr=False)
class ImportReport(Report):
    """Imported arms, as `import lm-eval` and `import items` show them."""

    ROWS: ClassVar[str] = "imported"
    imported: tuple[Imported, ...]

    def content(self) -> dict[str, Any]:
        """Return every arm, with the number of its tasks and items, and what was left out."""
        imported = [
            {
                "arm": entry.arm.checkpoint.label,
                "digest": entry.arm.checkpoint.digest,
                "suite": entry.plan.suite,
                "tasks": len(entry.plan.tasks),
                "items": sum(len(task.samples) for task in entry.plan.tasks),
                "notes": entry.notes,
            }
            for entry in self.imported
        ]
        return {"imported": imported}

    def tables(self) -> list[Table | Text]:
        """Return a line per arm, and one per note."""
        lines: list[Table | Text] = []
        for row in self.rows():
            count = f"{format_nouns(row['tasks'], 'task')}, {format_nouns(row['items'], 'item')}"
            lines.append(new_line(f"{row['arm']}: {count} in suite {row['suite']}"))
            lines += [new_line(f"  {note}") for note in row["notes"]]
        return lines


@dataclass(frozen=True, slots=True, repr=False)
class MatrixImportReport(Report):
    """Imported matrices, as `import matrix` shows them."""

    ROWS: ClassVar[str] = "matrices"
    matrices: tuple[Matrix, ...]

    def content(self) -> dict[str, Any]:
        """Return every matrix's name and tasks."""
        return {"matrices": [{"name": matrix.name, "tasks": matrix.tasks} for matrix in self.matrices]}

    def tables(self) -> list[Table | Text]:
        """Return one line."""
        count = format_nouns(len(self.matrices), "matrix", "matrices")
        return [new_line(f"{count}: {', '.join(matrix.name for matrix in self.matrices)}")]
