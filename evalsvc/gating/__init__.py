"""Scores and a Policy -> a verdict, kept as a decision that can be verified.

policy      policy files -> Policy
rules       a Policy and paired scores -> Rules with their evidence
measure     a rule's evidence as its test takes it
waivers     which waivers apply
verdict     rules -> Outcome
sequential  the same while scores still come in
batch       the correction for many candidates on the same suites
evidence    what a Policy asks for, out of a store
power       a Policy and sizes of suites -> what it can resolve
power_plan  the same for the suites of a store or a submission, with the compute that it takes
evaluate    score what a Policy asks for, until it is decided
what_if     the same evidence under another margin, level or size
decisions   a checkpoint and a Policy -> a decision that is kept
verify      a kept decision, recomputed from the stored scores
advisor     the cheapest way of adapting that a policy lets pass
"""
