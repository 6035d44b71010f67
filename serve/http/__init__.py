"""HTTP around the routes: the server, its protocol, middleware, errors as answers, and the OpenAPI document."""
