"""Whether a metric is better when higher or lower, and the sign and the arrow that follow from it."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

# The metrics of lm-eval's registry and of its tasks, those of its old releases included.
_LOWER = frozenset(
    """
    bits_per_byte word_perplexity byte_perplexity perplexity ppl logloss loss nll
    brier_score ter wer cer mer mae mse rmse
    likelihood_diff likelihood_difference pct_stereotype pct_male_preferred pct_female_preferred difference_male_female
    amb_bias_score disamb_bias_score bias_score_ambig bias_score_disambig perspective_api_toxicity_score pct_invalid
    """.split()
)
_HIGHER = frozenset(
    """
    acc acc_norm acc_bytes acc_all acc_mutual_info acc_ambig acc_disambig accuracy accuracy_amb accuracy_disamb
    balanced_accuracy partial_accuracy correct
    exact_match em exact HasAns_exact NoAns_exact best_exact quasi_exact_match numerical_match math_verify
    f1 HasAns_f1 NoAns_f1 best_f1 flexible_f1 macro_f1 micro_f1 mean_3class_f1 fscore precision recall mcc pearsonr
    spearmanr qa_f1_score qa_f1_zh_score
    bleu bleu_max bleu_acc bleu_diff bleu_avg chrf chrf++ meteor
    rouge rouge1 rouge2 rougeL rougeLsum rouge1_max rouge1_acc rouge1_diff rouge2_max rouge2_acc rouge2_diff
    rougeL_max rougeL_acc rougeL_diff rougeL_avg rouge_score rouge_zh_score
    bert_score bertscore_f1 bertscore_precision bertscore_recall bleurt bleurt_max bleurt_acc bleurt_diff
    mc1 mc2 mrr r@1 r@2 pass_at_1 pass_at_k pass@1 pass@10 pass@100 likelihood eqbench percent_parseable
    inst_level_loose_acc inst_level_strict_acc prompt_level_loose_acc prompt_level_strict_acc
    """.split()
)

Difference = TypeVar("Difference", float, NDArray[np.float64])


def find_direction(metric: str) -> bool | None:
    """Return whether a metric is better when higher, by its name; None if the name does not tell."""
    return False if metric in _LOWER else True if metric in _HIGHER else None


def is_higher_better(metric: str, declared: object = None) -> bool:
    """Return whether a task's metric is better when higher: as the task declares it, else by its name, else yes."""
    return find_direction(metric) is not False if declared is None else bool(declared)


def orient(difference: Difference, higher_is_better: bool) -> Difference:
    """Return a difference, adapted minus base, with the sign turned so that positive is better."""
    return difference if higher_is_better else -difference


def arrow(higher_is_better: bool) -> str:
    """Return the arrow that is shown after a metric's name."""
    return "↑" if higher_is_better else "↓"
