"""Leaving one process: batches of problems as tasks on a Ray cluster, within one budget, over one store."""
