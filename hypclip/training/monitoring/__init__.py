"""What a run tells of itself, and what it watches for."""
