"""The functions behind the state tables, by what they are about. Only `core.lifecycle` calls them."""
