"""The process a run lives in: signals, memory, and the launcher that started it."""
