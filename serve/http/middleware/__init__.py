"""What happens around every request, one concern a module; `serve.app` says in which order."""
