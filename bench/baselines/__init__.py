"""What twohot is compared with: other libraries, and the methods of others in our own lines."""
