"""The live page: what a worker knows and learns, in a browser. Static files and the views that serve them."""
