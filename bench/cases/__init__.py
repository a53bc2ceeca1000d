"""What groups measure, where it does not fit into the group's own file."""
