"""What the engine does on one GPU: right numbers, compiled graphs, speed, memory. Run by hand; see README.md above."""
