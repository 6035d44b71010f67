"""Requests and responses. Their form is checked here, their size against the settings in serve/service.py."""
