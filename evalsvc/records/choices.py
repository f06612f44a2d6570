"""Allowed values that options, files and records share. Imports nothing heavy: `--help` reads them."""

from __future__ import annotations

from typing import Literal

Role = Literal["domain", "general", "instruction", "safety", "drift", "diversity"]
Quantisation = Literal["int8", "nf4", "bnb-int8", "bnb-nf4"]
TemplateSource = Literal["base", "adapted", "plain"]
"""Whose chat template renders the prompts of all arms; "plain" is none."""

Half = Literal["select", "confirm"]
"""The half of every task's items that a decision uses: one to select a checkpoint, the other to confirm it."""
