"""Hostile programs, a stand-in machine for them to attack, and checkers to put them to."""
