"""Scoring on one device: the only package here that imports torch, transformers, peft and tokenizers.

encoding   text -> tokens, as lm-eval's Hugging Face model encodes
models     full weights in memory, adapters attached and taken off
plain      requests in padded batches: works for every causal language model
scorer     a shard in, its result out: what an executor runs
shards     a plan's requests -> shards; needs no model
fit        does an adapter fit its base, a tokenizer its embeddings? on the meta device
weights    how far weights are from their base's, block by block
quantised  full weights, quantised
callback   a cost card, written while transformers' Trainer trains
training   a small trainer, for `evalsvc demo`
"""
