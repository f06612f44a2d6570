"""A run, from submission to scores.

submission          what is submitted
rendering           whose chat template renders its prompts
prompted            a base with other prompts instead of training
preflight           checks of checkpoints before anything is scored
probe               a few sentences that every arm scores first
executors           shards in, results out; in this process
ray_executor        the same on Ray workers
remote              a command sent to a cluster's head
driver              missing requests to an executor, answers to the store, runs to grading
submit              a submission, prepared and scored
inspect_checkpoint  what is known of a checkpoint; its weights compared; its checks
environment         what works on this machine
"""
