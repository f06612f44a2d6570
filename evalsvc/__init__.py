"""evalsvc: does your adapted checkpoint learn without forgetting?

The package in one line each, in the order in which modules may import each other:

    errors       one exception tree, with the exit code of each branch
    stats        pure statistics: arrays in, records out
    records      the nouns: Checkpoint, Arm, Request, Response, Plan, Comparison
    points       where arms lie: Point, Frontier
    work         what workers get and give back: tokens as tries, shards, results
    settings     paths and addresses, from flags and EVALSVC_* variables
    migrations   the schema of the store, step by step
    changes      what adapting changed, by kind of layer
    tensors      safetensors headers: which tensors are where
    world        the invented world of the demo: texts and items
    suites       suite files -> Suite
    policies     policy files -> Policy
    checkpoints  path, hub id or adapter -> Checkpoint
    compare      paired scores -> Comparison
    gains        scores of many arms -> what they gained on each suite, resampled
    frontier     what arms gained -> Frontier
    trajectory   comparisons of many steps -> Trajectory
    claims       claims about adaptation -> decided Cards
    matrices     tasks learned one after the other: files -> Matrix
    importer     results that others have computed -> records
    forecast     a Policy and sizes of suites -> what it can resolve
    gate         paired scores and a Policy -> Verdict
    looks        the same while scores still come in
    harness      lm-eval's tasks: plan and grade
    engine       scoring on one device
    database     one DuckDB file that several processes share
    evidence     scores as arrays, out of the database
    collapse     sampled texts and token drift -> what is left of the base
    registry     arms and plans into the database
    store        records in, records out of the database
    dossiers     what is known of a checkpoint beyond its scores
    ledger       decisions in, decisions out of the database
    browse       items with both arms' answers, page by page
    whatif       the same evidence under another margin, level or size
    charts       records -> figures
    executors    shards in, results out; in this process
    inspection   a suite, checked before it is scored
    cluster      shards on Ray, commands on a cluster
    driver       missing requests to an executor, answers to the store, runs to grading
    integrity    what is known against checkpoints before anything is scored
    probe        a few sentences, scored by every arm first
    doctor       what works on this machine
    service      what is asked of a store
    gathering    what a Policy asks for, out of a store
    decisions    a checkpoint and a Policy -> a decision that is kept, and can be verified
    verification a kept decision, recomputed from the stored scores
    studies      what is asked of a store beyond one comparison
    advice       the cheapest way of adapting that a policy lets pass
    submission   checkpoints and suites in, finished runs out
    report       records -> tables and JSON
    details      what stands behind a comparison or a frontier
    curves       trajectories and matrices -> tables and JSON
    dossier      what is known of a checkpoint, computed where it is not
    demo         the main job on models that are trained on the spot
    decision_report  decisions -> tables, JSON, Markdown, JUnit XML
    dossier_report  dossiers -> tables and JSON
    promotion    what a policy can resolve, and a checkpoint scored until it is decided
    page         records -> one HTML file
    cli          the command line
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("evalsvc")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0.0.0"
