"""Verdicts: what a pipeline may know of its candidates, and where candidate code runs."""
