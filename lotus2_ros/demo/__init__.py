"""The demo: a node, a player and a recorder as processes of their own."""
