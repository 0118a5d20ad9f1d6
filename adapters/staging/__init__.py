"""Where received bits wait until their package is READY or FAILED."""
