"""Read models, and the engine that feeds and rebuilds them from the log."""
