"""Paths, Hub ids and adapters -> Checkpoint. Reads files, never loads a model.

discover      which checkpoints a path, folder or Hub id contains
weight_files  which files of a folder are its weights
safetensors   which tensors a weight file contains, and where
digests       the digest of every tensor's content, cached
names         names and steps, from the names of folders
file_checks   findings from files alone, without building a model
base_checks   was an adapter trained on the base that it is attached to?
costs         what training cost, from the files that it wrote
"""

from evalsvc.checkpoints.discover import Description, locate, open_base, open_checkpoints
from evalsvc.checkpoints.weight_files import list_weights

__all__ = ["Description", "list_weights", "locate", "open_base", "open_checkpoints"]
