"""The ClientApp: what runs on a device."""
