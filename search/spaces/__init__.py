"""Search files that ship with the package: one per space (`SearchSpace.ready`)."""
