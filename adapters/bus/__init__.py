"""Messages: the relay publishes the log, consumers do the work."""
