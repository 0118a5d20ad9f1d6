"""The processes and the `packtrail` command."""
