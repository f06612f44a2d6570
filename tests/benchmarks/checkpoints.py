"""How fast a digest is, and how much memory `what changed` takes; by hand: `python -m tests.benchmarks.checkpoints`.

Writes a pair of synthetic 1 GB checkpoints (bfloat16, an embedding of 128 MB and layers of 4096 x 4096) into a
temporary folder, digests one beside `openssl dgst -sha256` and `sha256sum`, and compares the two in a fresh process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from evalsvc.checkpoints import digests
from evalsvc.settings import core_count

BYTES = 2


def write_pair(folder: Path, layers: int = 26, width: int = 4096) -> tuple[Path, Path]:
    """Write two checkpoints whose weights differ a little; return their safetensors files."""
    shapes = {"model.embed_tokens.weight": (4 * width, width)}
    shapes |= {f"model.layers.{i}.self_attn.q_proj.weight": (width, width) for i in range(layers)}
    header, start = {}, 0
    for name, shape in shapes.items():
        end = start + shape[0] * shape[1] * BYTES
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
        start = end
    head = json.dumps(header).encode()
    files = []
    for seed, name in enumerate(("base", "adapted")):
        path = folder / name / "model.safetensors"
        path.parent.mkdir()
        files.append(path)
        with path.open("wb") as file:
            file.write(len(head).to_bytes(8, "little") + head)
            for number, (rows, columns) in enumerate(shapes.values()):
                for row in range(0, rows, 1024):
                    block = np.random.default_rng((number, row)).standard_normal((1024, columns), dtype=np.float32)
                    if seed:
                        block += 0.05 * np.random.default_rng((9, number, row)).standard_normal(block.shape, np.float32)
                    file.write((block.view(np.uint32) >> 16).astype(np.uint16).tobytes())
        os.utime(path, (1e9, 1e9))
    return files[0], files[1]


COMPARE = """
import resource, sys
from pathlib import Path
import torch
torch.linalg.eigh(torch.eye(300, dtype=torch.float64) @ torch.eye(300, dtype=torch.float64))  # loads its libraries
from evalsvc.engine.weights import full_change
from evalsvc.checkpoints.safetensors import read_headers
started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
change = full_change(read_headers([Path(sys.argv[2])]), read_headers([Path(sys.argv[1])]), lambda done, total: None)
print(started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, len(change.tensors), change.tensors[1].rank_90)
"""


def peak_memory(base: Path, adapted: Path) -> tuple[float, float, float]:
    """Compare a pair in a fresh process; return MB before, peak MB, and seconds."""
    began = time.perf_counter()
    command = [sys.executable, "-c", COMPARE, str(base), str(adapted)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    before, peak, *_ = (float(word) / 1024 for word in done.stdout.split()[:2])
    return before, peak, time.perf_counter() - began


def _seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    """Print what was measured."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EVALSVC_CACHE"] = str(Path(folder) / "cache")
        base, adapted = write_pair(Path(folder))
        size = base.stat().st_size / 1e9
        for tool in (["openssl", "dgst", "-sha256", str(base)], ["sha256sum", str(base)]):
            print(f"{tool[0]:12} {size / _seconds(tool):6.2f} GB/s")
        for what in ("evalsvc", "cached"):
            began = time.perf_counter()
            digests.read_contents([base])
            print(f"{what:12} {size / (time.perf_counter() - began):6.2f} GB/s, on {core_count()} cores")
        before, peak, seconds = peak_memory(base, adapted)
        print(
            f"what changed in {2 * size:.1f} GB: {seconds:.0f} s, peak {peak:.0f} MB, {before:.0f} MB of them imports"
        )


if __name__ == "__main__":
    main()
