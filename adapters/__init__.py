"""Everything that touches the world: HTTP, the bus, the event store, bits on disk, tokens."""
