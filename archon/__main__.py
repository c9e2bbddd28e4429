"""`python -m archon` is the command `archon`."""

from archon.cli import main

main()
