"""What shows that the log, and all that is made from it, is what it was."""
