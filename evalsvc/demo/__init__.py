"""The main job on models that are trained on the spot.

world  the invented world: texts and items
run    train, submit, show
"""
