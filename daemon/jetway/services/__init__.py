"""Services: one verb a file. They read, let the core decide, and write through the ports."""
