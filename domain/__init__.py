"""What a package is, and what may happen to it."""
