"""Search for the stack: the best pipeline under a budget. It comes with its own issue; nothing is here yet."""
