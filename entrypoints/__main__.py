"""`python -m entrypoints` is the `packtrail` command."""

from entrypoints.command import main

main()
