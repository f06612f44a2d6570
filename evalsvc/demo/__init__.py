"""A complete evaluation of small models that the demo trains itself.

world       an invented world: texts and items
task_files  the shipped tasks, generated from it
run         train, submit, show
"""
