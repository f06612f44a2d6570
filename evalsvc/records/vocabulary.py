"""Types with a fixed set of values, and array types."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evalsvc.records.choices import Quantisation as Quantisation
from evalsvc.records.choices import Role as Role

Kind = Literal["loglikelihood", "loglikelihood_rolling", "generate_until"]
State = Literal["queued", "running", "done", "failed"]
Aggregation = Literal["mean", "perplexity", "weighted_perplexity", "bits_per_byte", "other"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
