"""HTTP: request bodies, negotiation, routes, middleware, and the server itself."""
