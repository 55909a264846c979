"""The registry database: the tables that people query."""
