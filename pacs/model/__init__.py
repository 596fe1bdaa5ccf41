"""What the index records and what the other packages say of it: values without SQL, files or sockets."""
