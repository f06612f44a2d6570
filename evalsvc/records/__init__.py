"""The nouns of evalsvc: frozen, typed, without I/O. Import numpy and `stats`, nothing else.

choices         values that options, files and records share
vocabulary      words with a fixed set of values
digests         identity by content
arms            Checkpoint, Cost, Numerics, Serving, Arm, Finding
methods         methods of adapting, and their groups
plans           Request, Response, Sample, Metric, PlannedTask, Plan
shards          what workers get and give back
scores          Score, Result, Graded, TaskScores
comparisons     Comparison, FullComparison, RoleTotal
frontier        Point, Frontier
weight_changes  what adapting changed, by kind of layer
direction       which way a metric is better
matrices        Matrix: tasks learned one after the other
serialise       records as plain values, and from mappings
"""
