"""How the nano models are trained: `python -m archon.benchmarks.lab.training` (needs the `train` extra)."""
