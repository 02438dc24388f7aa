"""The shared vocabulary of server and devices; imports nothing else of this project."""
