"""Middleware, one concern per module; `serve.app` sets the order."""
