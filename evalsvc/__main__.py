"""`python -m evalsvc` is the command line."""

from evalsvc.cli import main

main()
