"""Scoring on one device: the only package here that imports torch, transformers, peft and tokenizers.

encoding   text -> tokens, as lm-eval's Hugging Face model encodes
models     full weights in memory, adapters attached and taken off
plain      requests in padded batches: works for every causal language model
scorer     a shard in, its result out: what an executor runs
shards     a plan's requests -> shards; needs no model
training   a small trainer, for `evalsvc demo`
"""
