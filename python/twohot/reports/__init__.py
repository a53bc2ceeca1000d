"""A run as read from disk: its page, plots and tables."""
