"""The log in a file: written from one database, restored into another of either engine."""
