"""Speed, measured: scripts that print one line of JSON last, with every figure and ratio."""
