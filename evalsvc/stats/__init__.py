"""Statistics as pure functions: NumPy arrays in, typed records out. Imports only numpy, scipy.special and the stdlib.

    estimates     level and standard error of lm-eval's aggregations, by influence values; clustered standard errors
    paired        differences of two arms on the same items: Tango's score interval, paired t, McNemar's test
    unit_means    bounds of a mean over documents or clusters with scores of any kind
    ratios        how much of a mean over the same units another keeps
    margins       tests of a difference, of one task or a weighted mean, against a margin, in both directions
    sequential    bounds for several interim looks at growing data
    betting       tests by betting after every item, also for a finite pool
    transitions   items lost and gained, adjustment for guessing, A/A floor, floor and ceiling effects
    multiplicity  adjusted p-values: Holm, Benjamini-Hochberg
    power         items needed to show a difference, and the difference that a number of items shows
    bootstrap     resampled items, shared by all arms
    pareto        non-dominated points, hypervolume, interpolation on a frontier
    calibration   Brier score and expected calibration error
    drift         forward KL from the base, per token
    diversity     distinct answers, repetition and collapse among several sampled answers per prompt
    continual     continual-learning metrics of a matrix of scores
    groups        differences between groups of training runs: Welch
    regression    least-squares line through checkpoints, with R2
    spectrum      effective rank of a weight change

Intervals are two-sided at 90 % unless stated otherwise; their ends are the one-sided 5 % bounds that the gate uses.
Formulas and sources are on the page docs/pages/statistics.md, which the modules cite by section.
"""
