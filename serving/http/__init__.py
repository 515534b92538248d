"""The HTTP side: connections, who may come in, what clients send, how errors are told, and the endpoints."""
