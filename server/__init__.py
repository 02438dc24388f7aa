"""The ServerApp: what runs at the centre of a federation."""
