"""The main job on models that are trained on the spot.

world       the invented world: texts and items
task_files  the shipped tasks, made of it
run         train, submit, show
"""
