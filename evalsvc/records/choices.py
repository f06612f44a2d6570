"""Values that options, files and records share, each defined once. Imports nothing: `--help` reads them."""

from __future__ import annotations

from typing import Literal

Role = Literal["domain", "general", "instruction", "safety", "drift", "diversity"]
Quantisation = Literal["int8", "nf4", "bnb-int8", "bnb-nf4"]
TemplateSource = Literal["base", "adapted", "plain"]
"""Whose chat template renders the prompts of all arms; "plain" is none."""

Half = Literal["select", "confirm"]
"""The half of every task's items that a decision looks at: one to choose on, the other to confirm with."""
