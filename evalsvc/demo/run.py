"""`evalsvc demo`: train a tiny base model, adapt it in five ways, submit all of them. Needs no network.

The texts come from `world`, the training loop from `engine.training`; torch is only loaded where models are trained.
A model's folder gets its name when it is complete. Its `training.json` has a digest of the texts and settings that the
model was trained with: a model with the same digest is reused, not trained again.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from queue import Empty
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal

from evalsvc.checkpoints.discover import Description
from evalsvc.demo import world
from evalsvc.errors import EvalsvcError, UsageError
from evalsvc.records.digests import canonical, digest
from evalsvc.settings import Compute, core_count

if TYPE_CHECKING:
    from evalsvc.scoring.driver import RunJob


SUITES = ("clinic", "valley", "commands", "valley-text")
LEARNING_RATE = 1e-3
"""Learning rate of every adaptation, so that only the method differs."""
TRAINER = "2"
"""Version of `engine.training`: increase it when equal settings give other models, so that old ones are not reused."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """One model to train.

    Attributes:
        name: Name of its folder and its arms.
        method: "base", "full", "lora" or "cpt".
        save_at: Steps after which a checkpoint is saved.
        rank: Rank of LoRA matrices; None trains all weights.
        replay: Share of general texts in the training texts.
    """

    name: str
    method: Literal["base", "full", "lora", "cpt"]
    learning_rate: float
    save_at: tuple[int, ...]
    rank: int | None = None
    replay: float = 0.0

    def texts(self, seed: int) -> list[str]:
        """Return the training texts; replayed general texts differ from those of the base."""
        if self.method == "base":
            return world.valley_texts(seed, 40_000)
        if self.method != "cpt":
            return world.clinic_questions(seed, 8_000)
        replayed = world.valley_texts(seed + 1_000_000, round(8_000 * self.replay))
        return world.with_replay(world.clinic_notes(seed, 8_000 - len(replayed)), replayed, seed)


BASE = Training(name="base", method="base", learning_rate=3e-3, save_at=(4500,))
ADAPTED = (
    Training(name="full", method="full", learning_rate=LEARNING_RATE, save_at=(120, 480, 1200)),
    Training(name="lora-r4", method="lora", learning_rate=LEARNING_RATE, save_at=(120, 480, 1200), rank=4),
    Training(name="lora-r32", method="lora", learning_rate=LEARNING_RATE, save_at=(120, 480, 1200), rank=32),
    Training(name="cpt", method="cpt", learning_rate=LEARNING_RATE, save_at=(60, 240, 600)),
    Training(name="cpt-replay", method="cpt", learning_rate=LEARNING_RATE, save_at=(60, 240, 600), replay=0.6),
)


@dataclass(frozen=True, slots=True)
class Demo:
    """Result of a demo.

    Attributes:
        store: The DuckDB file with all runs.
        base: Digest of the base arm, which is unique even if the store has bases of earlier demos.
        jobs: All runs, those of the base once.
        reused: Names of the models that were not trained again.
    """

    store: Path
    base: str
    jobs: list[RunJob]
    reused: tuple[str, ...]


def run(
    folder: Path,
    *,
    workers: int | None,
    note: Callable[[str], None],
    progress: Progress,
    seed: int = 0,
    adapted: Sequence[Training] = ADAPTED,
    threads: int = 1,
) -> Demo:
    """Train the models that are missing, and score the results that are missing.

    Args:
        workers: Processes for training and scoring; None takes one per core, 0 works in this process.
        note: Called with a description of each stage.
        progress: Called with the progress of a stage.
        adapted: The adaptations of the base to train.
        threads: Threads of every training; another number rounds differently and gives another model.

    Raises:
        UsageError: The folder cannot be created.
        EvalsvcError: A training process died, or scoring failed; running again resumes.
    """
    models = folder / "models"
    try:
        models.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"demo folder {folder}: cannot be created: {error}") from error
    reused = _train_all(models, adapted, seed, threads, workers, note, progress)
    store = folder / "evalsvc.duckdb"
    jobs = _submit_all(models, adapted, store, workers, note, progress)
    base = next(job.arm.checkpoint.digest for job in jobs if job.arm.checkpoint.parent is None)
    return Demo(store, base, jobs, reused)


def _submit_all(
    models: Path,
    adapted: Sequence[Training],
    db: Path,
    workers: int | None,
    note: Callable[[str], None],
    progress: Progress,
) -> list[RunJob]:
    """Submit every adaptation with its base, compare their weights, and return all runs."""
    # Not at the top, because training processes import this module and do not need lm-eval, which takes seconds.
    from evalsvc.scoring.inspect_checkpoint import compare_weights
    from evalsvc.scoring.submission import Source, Submission
    from evalsvc.scoring.submit import submit
    from evalsvc.store.store import Store

    sources = [Source(str(models / t.name), Description(method=t.method, name=t.name)) for t in adapted]
    compute = Compute(workers=workers, device="cpu")
    submission = Submission(sources=tuple(sources), base=str(models / BASE.name), suites=SUITES, compute=compute)
    store = Store(db)
    store.upgrade()
    jobs = submit(store, submission, progress, note)
    note("comparing weights with the base")
    for arm in dict.fromkeys(job.arm.checkpoint.digest for job in jobs if job.arm.checkpoint.parent):
        compare_weights(store, arm, None, lambda done, total: None, lambda text: None)
    return jobs


# ----------------------------------------------------------------------------------------------------------- training


def _train_all(
    models: Path,
    adapted: Sequence[Training],
    seed: int,
    threads: int,
    workers: int | None,
    note: Callable[[str], None],
    progress: Progress,
) -> tuple[str, ...]:
    """Train the base, then all adaptations in parallel; return the names of the models that are reused."""
    identities = _compute_identities(seed)
    missing = [t for t in (BASE, *adapted) if _read_record(models / t.name).get("identity") != identities[t.name]]
    if BASE in missing:
        missing = [BASE, *adapted]
    reused = tuple(t.name for t in (BASE, *adapted) if t not in missing)
    if reused:
        note(f"reusing {', '.join(reused)} in {models}")
    for stage in ([t for t in missing if t == BASE], [t for t in missing if t != BASE]):
        if stage:
            note(f"training {', '.join(t.name for t in stage)}")
            tasks = [(t, models, identities[t.name], seed, threads) for t in stage]
            if workers == 0:
                _train_in_turn(tasks, progress)
            else:
                _train_side_by_side(tasks, min(workers or core_count(), len(stage)), progress)
    return reused


def _compute_identities(seed: int) -> dict[str, str]:
    """Return, by name, the digest of a model's texts and settings; an adaptation's digest covers its base."""
    identities: dict[str, str] = {}
    for training in (BASE, *ADAPTED):
        content = digest(TRAINER, canonical(asdict(training)), str(seed), *training.texts(seed))
        identities[training.name] = digest(identities.get(BASE.name, ""), content)
    return identities


def _read_record(folder: Path) -> dict[str, Any]:
    """Return the content of a model's `training.json`; empty if there is none."""
    try:
        record = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


_Task = tuple[Training, Path, str, int, int]


def _train(task: _Task, progress: Progress) -> None:
    """Train one model in a temporary folder, and rename the folder when the model is complete."""
    from evalsvc.engine import training as engine  # torch takes seconds to import

    training, models, identity, seed, threads = task
    folder, partial = models / training.name, models / f".{training.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    recipe = engine.Recipe(learning_rate=training.learning_rate, save_at=training.save_at, seed=seed, threads=threads)
    texts = training.texts(seed)
    if training.method == "base":
        words = [*world.clinic_notes(seed, 2000), *world.clinic_questions(seed, 2000)]
        trained = engine.train_base(texts, partial, recipe, progress, words=words)
    else:
        base = (models / BASE.name).resolve()
        mark = None if training.method == "cpt" else world.ANSWER
        trained = engine.adapt(base, texts, partial, recipe, progress, rank=training.rank, learn_after=mark)
    record = {"identity": identity, "tokens": trained.tokens, "seconds": round(trained.seconds, 1)}
    (partial / "training.json").write_text(json.dumps(record), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)


def _train_in_turn(tasks: Sequence[_Task], progress: Progress) -> None:
    total, before = sum(task[0].save_at[-1] for task in tasks), 0

    def report(done: int, _: int) -> None:
        progress(before + done, total)

    for task in tasks:
        _train(task, report)
        before += task[0].save_at[-1]


def _train_side_by_side(tasks: Sequence[_Task], workers: int, progress: Progress) -> None:
    """Train in processes of one thread each.

    Raises:
        EvalsvcError: A process died, or cannot write.
    """
    total, done = sum(task[0].save_at[-1] for task in tasks), 0
    context = get_context("spawn")  # a fork would inherit the locks of whatever threads this process has
    reports: Any = context.Queue()
    progress(0, total)
    with ProcessPoolExecutor(
        workers,
        mp_context=context,
        initializer=_prepare,
        initargs=(reports,),
        max_tasks_per_child=1,  # so that a process's peak memory is that of one model
    ) as pool:
        try:
            pending: set[Future[None]] = {pool.submit(_train_and_report, task) for task in tasks}
            while pending:
                finished, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
                if steps := sum(_drain(reports)):
                    done += steps
                    progress(done, total)
            progress(total, total)
        except BaseException as error:
            for child in active_children():  # otherwise the pool would wait until their models are complete
                child.terminate()
            if isinstance(error, BrokenProcessPool):
                raise EvalsvcError(
                    "a training process was killed, perhaps because memory ran out; run again to resume"
                ) from error
            if isinstance(error, OSError):
                raise EvalsvcError(f"training failed: {error}; run again to resume") from error
            raise


def _drain(reports: Any) -> Iterator[int]:
    while True:
        try:
            yield reports.get_nowait()
        except Empty:
            return


_reports: Any = None
"""In a training process: the queue to which it reports how many more steps are done."""


def _prepare(reports: Any) -> None:
    """Initialise a training process."""
    global _reports
    _reports = reports
    os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported; more threads than cores are many times slower
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the parent handles Ctrl-C
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when the demo's main process has ended."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _train_and_report(task: _Task) -> None:
    reported = 0

    def report(done: int, total: int) -> None:
        nonlocal reported
        if done - reported >= 10 or done == total:
            _reports.put(done - reported)
            reported = done

    _train(task, report)
