"""``python -m espalier``, for shells that do not find the command."""

from espalier.cli import main

main()
