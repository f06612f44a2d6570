"""Scoring runs, from the submission to stored scores.

submission          records of a submission
rendering           choice of the chat template that renders the prompts
prompted            a base evaluated with other prompts instead of training (ICL, RAG)
preflight           checks of checkpoints before scoring
probe               sanity probe: a few sentences that every new arm scores first
executors           interface of executors, and the executor in this process
ray_executor        the executor on Ray workers
remote              runs a command on the head node of a cluster
driver              sends missing requests to an executor, stores responses, grades runs
submit              prepares and scores a submission
inspect_checkpoint  facts about a checkpoint, comparison of its weights, its checks
environment         checks of this machine
"""
