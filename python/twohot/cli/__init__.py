"""The `twohot` command; `commands` has a file for each."""
