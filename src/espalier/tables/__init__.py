"""Published tables and claims, and what our records say about them."""
