"""Keys, and what is signed with them. Nothing else imports `cryptography`."""
