"""What brings tasks to one shape, and into trials."""
