"""The process that watches one node's ranks and relays for them."""
