"""The networks that recipes can name, one architecture a file, and how to build them (`registry`)."""
