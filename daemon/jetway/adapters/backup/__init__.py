"""Backups as files, and what of the state directory belongs into them."""
