"""Where models run: one contract, and the backends that keep it."""
