"""What is imported inside other people's training processes. Only the standard library at import.

cost_card  a callback for transformers' Trainer that writes a cost card beside every checkpoint
"""
