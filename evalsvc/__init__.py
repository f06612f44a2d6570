"""evalsvc: does your adapted checkpoint learn without forgetting?

The package in one line each, in the order in which modules may import each other:

    errors       one exception tree, with the exit code of each branch
    records      the nouns: Checkpoint, Arm, Request, Response, Plan, Comparison, Point
    settings     paths and addresses, from flags and EVALSVC_* variables
    stats        pure statistics: arrays in, records out
    migrations   the schema of the store, step by step
    world        the invented world of the demo: texts and items
    suites       suite files -> Suite
    policies     policy files -> Policy
    checkpoints  path, hub id or adapter -> Checkpoint
    compare      paired scores -> Comparison
    frontier     scores of many arms -> Frontier
    forecast     a Policy and sizes of suites -> what it can resolve
    gate         paired scores and a Policy -> Verdict
    looks        the same while scores still come in
    harness      lm-eval's tasks: plan and grade
    engine       scoring on one device
    database     one DuckDB file that several processes share
    charts       records -> figures
    store        records in, records out of the database
    ledger       decisions in, decisions out of the database
    executors    shards in, results out; in this process
    inspection   a suite, checked before it is scored
    cluster      shards on Ray, commands on a cluster
    driver       missing requests to an executor, answers to the store, runs to grading
    doctor       what works on this machine
    service      what is asked of a store
    decisions    a checkpoint and a Policy -> a decision that is kept, and can be verified
    submission   checkpoints and suites in, finished runs out
    report       records -> tables and JSON
    decision_report  decisions -> tables, JSON, Markdown, JUnit XML
    demo         the main job on models that are trained on the spot
    promotion    what a policy can resolve, and a checkpoint scored until it is decided
    page         records -> one HTML file
    cli          the command line
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("evalsvc")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0.0.0"
