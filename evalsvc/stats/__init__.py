"""Pure statistics: NumPy arrays in, typed records out. Imports only numpy, scipy.special and the standard library.

    estimates     level and standard error of every aggregation that lm-eval uses, through influence values; clusters
    paired        differences of two arms on the same items: Tango's score interval, paired t, McNemar
    margins       a difference, of one task or a weighted mean, against a margin: pass, mirrored fail
    sequential    bounds for several looks at growing data
    betting       evidence after every item, also from a finite pool
    transitions   what a mean hides: the guessing bracket, the floor of a re-run, floors and ceilings of a task
    multiplicity  adjusted p-values of many tests: Holm, Benjamini-Hochberg
    power         how many items a difference needs, and what difference a number of items can show
    bootstrap     resampled items, shared by all arms; BCa intervals
    pareto        non-dominated points, hypervolume, reading off a frontier
    calibration   Brier score and expected calibration error
    drift         forward KL from the base, per token
    diversity     several sampled answers per prompt: distinct ones, repetition, collapse
    continual     the continual-learning family from a matrix of scores
    groups        differences between groups of runs: Welch
    regression    a least-squares line through checkpoints, with its R2
    spectrum      effective rank of a change of weights

Intervals are two-sided at 90 % unless said otherwise: their ends are the one-sided 5 % bounds that the gate uses.
"""
