"""The networks of the book, smaller than the published ones."""
