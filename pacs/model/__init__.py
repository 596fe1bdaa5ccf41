"""What index, archive and services say to each other: values without SQL, files or sockets."""
