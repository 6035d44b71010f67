"""Requests and responses. What a request may hold is checked here; how much of it, by settings, in serve/service.py."""
