"""Pure statistics: NumPy arrays in, typed records out. Imports only numpy, scipy.special and the standard library.

    estimates     level and standard error of every aggregation that lm-eval uses, through influence values
    paired        differences of two arms on the same items: Tango's score interval, paired t
    margins       a difference, of one task or a weighted mean, against a margin: pass, mirrored fail
    sequential    bounds for several looks at growing data
    betting       evidence after every item, also from a finite pool
    power         what a number of items can resolve
    multiplicity  adjusted p-values of many tests: Holm, Benjamini-Hochberg
    bootstrap     resampled items, shared by all arms
    pareto        non-dominated points and hypervolume in two dimensions

Intervals are two-sided at 90 % unless said otherwise: their ends are the one-sided 5 % bounds that the gate uses.
"""
