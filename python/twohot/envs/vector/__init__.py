"""Many environments together: in this process, in several, or as one vector environment."""
