"""evalsvc: does your adapted checkpoint learn without forgetting?

The package in one line each, in the order in which modules may import each other:

    errors      one exception tree, with the exit code of each branch
    records     the nouns: Checkpoint, Arm, Request, Response, Plan, Comparison, Point
    settings    paths and addresses, from flags and EVALSVC_* variables
    stats       pure statistics: arrays in, records out
    suites      suite files -> records
    checkpoints path, hub id or adapter -> Checkpoint
    compare     paired scores -> Comparison
    frontier    Comparisons -> Points
    harness     lm-eval tasks: plan() and grade()
    engine      scoring on one device
    store       results in one DuckDB file
    executors   shards in, responses out; in this process
    cluster     the same on Ray
    charts      Points and Comparisons -> figures
    report      records -> terminal and HTML
    service     joins the parts
    demo        the main job on models trained on the spot
    cli         the command line
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("evalsvc")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0.0.0"
