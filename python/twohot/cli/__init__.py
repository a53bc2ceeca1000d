"""The `twohot` command, one file a command."""
