"""The score statistic and its interval on binary items, at a margin."""

from __future__ import annotations

import pytest

at_a_margin = pytest.mark.parametrize(
    ("lost", "gained", "n", "margin", "z", "low", "high"),
    [
        (20, 18, 500, 0.05, 3.3323, -0.02497, 0.01677),
        (45, 20, 500, 0.05, 0.0000, -0.07724, -0.02399),
        (95, 85, 2000, 0.02, 2.2052, -0.01613, 0.00607),
        (160, 60, 2000, 0.02, -4.1511, -0.06232, -0.03810),
        (0, 0, 132, 0.02, 1.6413, -0.02008, 0.02008),
        (0, 0, 133, 0.02, 1.6475, -0.01994, 0.01994),
    ],
)
