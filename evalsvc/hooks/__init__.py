"""Callbacks for the user's own training process; this module itself imports nothing.

cost_card  a callback for transformers' Trainer that writes a cost card beside every checkpoint; imports transformers
           and torch
"""
