"""evalsvc: does your adapted checkpoint learn without forgetting?

The rooms, ground floor first: each may import those before it.

    errors       one exception tree, with the exit code of each branch
    settings     paths and addresses, from flags and EVALSVC_* variables
    yaml_files   the one YAML reader
    stats        pure statistics: arrays in, records out
    records      the nouns: Checkpoint, Arm, Request, Response, Plan, Comparison, Frontier
    store        one DuckDB file: records in, records out
    checkpoints  path, hub id or adapter -> Checkpoint
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
    cli          the command line
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("evalsvc")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0.0.0"
