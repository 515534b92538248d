"""The HTTP endpoints: thin, they read a request, ask a part of the gateway and shape the answer."""
