"""What can be done with every structure of a screening: one file a task."""
