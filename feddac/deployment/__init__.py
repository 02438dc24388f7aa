"""A federation of separate processes on Flower's own runtime: SuperLink, SuperNodes, server and client apps."""
