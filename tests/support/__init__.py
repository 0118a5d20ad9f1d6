"""What tests share: a real service process, zips, and waiting for a condition."""
