"""Where the bits of READY packages are kept."""
