"""The techniques, as stages: one technique, one file, named as its paper names it."""
