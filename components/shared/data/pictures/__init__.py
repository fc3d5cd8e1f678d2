"""What single pictures hold beyond 8 bits."""
