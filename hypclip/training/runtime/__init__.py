"""The process a run lives in: signals, and the launcher that started it."""
