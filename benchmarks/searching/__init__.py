"""The search for the stack over a benchmark: evaluation, summary, pictures, and the command `archon search`."""
