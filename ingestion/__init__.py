"""What brings data in: readers of public data sets and files, a simulated audience, and bulk producers."""
