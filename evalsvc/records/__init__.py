"""Records: frozen dataclasses without I/O, which import only numpy and `stats`.

choices         allowed values that options, files and records share
vocabulary      types with a fixed set of values
digests         content digests
arms            Checkpoint, Cost, Numerics, Serving, Arm, Finding
methods         methods of adapting, and groups of methods
generation      how a task's generation_kwargs decode
plans           Request, Response, Sample, Metric, PlannedTask, Plan
shards          Shard, ShardResult
scores          Score, Result, Graded, TaskScores
comparisons     Comparison, FullComparison, RoleTotal
frontier        Point, Frontier
weight_changes  WeightChange: how adapting changed the weights
direction       whether a metric is better when higher or lower
matrices        Matrix: scores of tasks learned one after the other
serialise       converts records to plain values, and mappings to records
"""
