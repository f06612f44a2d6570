"""Paths, hub ids and adapters -> Checkpoint. Reads files, never loads a model.

forms      which checkpoints a path holds, and what is said of them
identity   what their tensors are: digests, in parallel, cached
findings   what their files say against them
costs      what they cost to make
"""

from evalsvc.checkpoints.discover import Description, locate, open_base, open_checkpoints, weight_files

__all__ = ["Description", "locate", "open_base", "open_checkpoints", "weight_files"]
