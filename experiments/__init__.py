"""Commands: flags -> one library call."""
