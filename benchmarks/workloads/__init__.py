"""One module per workload; each runs under the rivals' Pythons too, 3.7 and up."""
