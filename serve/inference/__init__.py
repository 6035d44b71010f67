"""The model behind the routes: batches of many requests, the process that runs them, and the ways to run towers."""
