"""How good a model is on one's own recordings, by measurements that it does not see."""
