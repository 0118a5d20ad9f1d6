"""The HTTP server: waitress, extended where uploads need it."""
