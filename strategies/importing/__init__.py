"""Configurations of other projects, read and written as ours."""
