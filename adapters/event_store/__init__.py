"""The event log, on a database."""
