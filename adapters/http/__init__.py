"""The HTTP interface: requests become commands, read models become answers."""
