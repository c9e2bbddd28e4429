"""Pipeline files that are wrong, each in its own way, and what must be said about them."""
