"""Scoring on one device: the only package here that imports torch, transformers, peft and tokenizers.

encoding       text -> tokens, as lm-eval's Hugging Face model encodes
trie           token sequences, every shared prefix once
sharding       a plan's requests -> tries, cut into shards; needs a tokenizer, no model
packs          a trie -> rows of one forward pass, and what they attend to
attention      exact attention over a pack, through transformers' attention interface
likelihood     packs in, log-likelihoods and divergences out: the output head at scored rows only
generation     packs in, answers out, many generated at the same time
unpacked       the plain path, padded batches: works for every model
parity         which of the two paths a model takes, decided by a parity check
adapters       an adapter's tensors, matched with its base's modules by PEFT's own loader
resident       full weights in memory, adapters attached, merged and detached
scorer         a shard in, its result out: run by an executor
devices        device and number format
training       a small trainer, for `evalsvc demo`
compatibility  does an adapter fit its base, a tokenizer its embeddings? on the meta device
weights        the difference of weights from their base's, block by block
quantised      full weights, quantised
"""
