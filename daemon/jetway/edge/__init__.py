"""What runs on an edge host: join (redeem a token) and run (heartbeats, a local copy of the config)."""
